//! The page in a real browser, driven through its debugging protocol. Skipped where `STENTOR_BROWSER` names none.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use stentor::protocol::Payload;
use tungstenite::{Message, WebSocket};

use crate::client::{serve, tcp};

/// A headless browser with one open page.
struct Browser {
    child: Child,
    profile: std::path::PathBuf,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    loaded: bool,
    asked: u64,
}

impl Browser {
    fn open(program: &str, url: &str) -> Browser {
        let profile = std::env::temp_dir().join(format!("stentor-browser-{}", std::process::id()));
        let quiet =
            ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
        let mut child = Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--remote-debugging-port=0"])
            .args(quiet)
            .arg(format!("--user-data-dir={}", profile.display()))
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .find_map(|line| line.ok()?.strip_prefix("DevTools listening on ").map(str::to_owned))
            .expect("the browser ended before it listened");
        // The browser would stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let host = address.strip_prefix("ws://").unwrap().split('/').next().unwrap();
        let (socket, _) = tungstenite::client(&address, tcp(host.parse().unwrap())).unwrap();
        let mut browser = Browser { child, profile, socket, session: None, loaded: false, asked: 0 };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let session = browser.ask("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        browser.ask("Page.enable", json!({}));
        browser.ask("Page.navigate", json!({ "url": url }));
        // What is asked before would be forgotten with the empty page.
        while !browser.loaded {
            browser.read();
        }
        browser
    }

    fn read(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.socket.read().unwrap() {
                let message: Value = serde_json::from_str(&text).unwrap();
                self.loaded |= message["method"] == "Page.loadEventFired";
                return message;
            }
        }
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut request = json!({ "id": self.asked, "method": method, "params": params });
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(request.to_string())).unwrap();
        loop {
            let answer = self.read();
            if answer["id"] == self.asked {
                assert!(answer.get("error").is_none(), "{answer}");
                return answer["result"].clone();
            }
        }
    }

    /// What `find` (JavaScript, asked at every frame) returns once it returns something.
    fn wait_for(&mut self, find: &str) -> String {
        let script = format!(
            "new Promise(done => {{ const find = {find}; const look = () => {{ const found = find(); \
             if (found) done(String(found)); else requestAnimationFrame(look); }}; look(); }})"
        );
        let answer =
            self.ask("Runtime.evaluate", json!({ "expression": script, "awaitPromise": true, "returnByValue": true }));
        answer["result"]["value"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

#[test]
fn the_page_shows_moving_quotes_and_what_one_publishes() {
    let Some(program) = std::env::var("STENTOR_BROWSER").ok().filter(|program| !program.is_empty()) else {
        return eprintln!("skipped: STENTOR_BROWSER names no browser");
    };
    let server = serve(|config| config.demo = true);
    let mut browser = Browser::open(&program, &format!("http://{}/", server.addresses()[0]));
    // A quote that was seen with one value and then with another.
    let moved = browser.wait_for(
        "(() => { const seen = new Map(); return () => { \
         for (const row of document.querySelectorAll('tbody tr')) { \
           const [name, value] = [row.cells[0].textContent, row.cells[1].textContent]; \
           if (name.startsWith('q.demo.') && seen.has(name) && seen.get(name) !== value) return name; \
           seen.set(name, value); } } })()",
    );
    assert!(moved.starts_with("q.demo."), "{moved}");
    let markup = r#""<img src=x onerror=\"document.title='run'\">""#;
    server.publisher().publish("aaa.news", Payload::Json(markup.as_bytes())).unwrap();
    let shown = browser.wait_for(
        "() => [...document.querySelectorAll('tbody tr')].find(row => row.cells[0].textContent === 'aaa.news')\
         ?.cells[1].textContent",
    );
    assert!(shown.contains("<img src=x"), "data is shown as text: {shown}");
    assert_eq!(browser.wait_for("() => document.images.length + ' images'"), "0 images");
}

//! A real browser, driven through its debugging protocol. Tests with it are skipped where `STENTOR_BROWSER` names none.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::{
    client::{PATIENCE, tcp},
    skip::skip,
};

/// A headless browser with one open page.
pub struct Browser {
    child: Child,
    profile: std::path::PathBuf,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    loaded: bool,
    asked: u64,
    /// What was last asked, for whoever waits in vain.
    doing: String,
    /// What the page did wrong: exceptions, violations of its policy, errors on its console.
    wrongs: Vec<String>,
}

impl Browser {
    /// The browser there is, with a page of this width; none with a word about it.
    pub fn open(width: u32, url: &str) -> Option<Browser> {
        let Some(program) = std::env::var("STENTOR_BROWSER").ok().filter(|program| !program.is_empty()) else {
            skip("browser", "the page in a browser: STENTOR_BROWSER names none");
            return None;
        };
        Some(Browser::start(&program, width, url))
    }

    fn start(program: &str, width: u32, url: &str) -> Browser {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let nth = STARTED.fetch_add(1, Ordering::Relaxed);
        let profile = std::env::temp_dir().join(format!("stentor-browser-{}-{nth}", std::process::id()));
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
        let mut browser = Browser {
            child,
            profile,
            socket,
            session: None,
            loaded: false,
            asked: 0,
            doing: String::new(),
            wrongs: Vec::new(),
        };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let session = browser.ask("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        browser.ask("Emulation.setDeviceMetricsOverride", size);
        browser.ask("Page.navigate", json!({ "url": url }));
        // What is asked before would be forgotten with the empty page.
        while !browser.loaded {
            browser.read();
        }
        browser
    }

    fn read(&mut self) -> Value {
        loop {
            let message = self.socket.read().unwrap_or_else(|error| panic!("waiting for {}: {error}", self.doing));
            if let Message::Text(text) = message {
                let message: Value = serde_json::from_str(&text).unwrap();
                self.loaded |= message["method"] == "Page.loadEventFired";
                self.note(&message);
                return message;
            }
        }
    }

    fn note(&mut self, message: &Value) {
        let (entry, call) = (&message["params"]["entry"], &message["params"]["type"]);
        let is_wrong = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => call == "error" || call == "warning",
            // That an address can't be reached is the network's doing.
            Some("Log.entryAdded") => entry["level"] == "error" && entry["source"] != "network",
            _ => false,
        };
        if is_wrong {
            self.wrongs.push(message["params"].to_string());
        }
    }

    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        self.doing = format!("{method} {params}");
        let mut request = json!({ "id": self.asked, "method": method, "params": params });
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(request.to_string())).unwrap();
        let begun = Instant::now();
        loop {
            let answer = self.read();
            // A page that tells of other things all the time has the socket never wait for long.
            assert!(begun.elapsed() < 2 * PATIENCE, "waiting for {}", self.doing);
            if answer["id"] == self.asked {
                assert!(answer.get("error").is_none(), "{answer}");
                return answer["result"].clone();
            }
        }
    }

    /// What `find` (JavaScript, asked at every frame) returns once it returns something.
    pub fn wait_for(&mut self, find: &str) -> String {
        let script = format!(
            "new Promise(done => {{ const find = {find}; const look = () => {{ const found = find(); \
             if (found) done(String(found)); else requestAnimationFrame(look); }}; look(); }})"
        );
        let answer =
            self.ask("Runtime.evaluate", json!({ "expression": script, "awaitPromise": true, "returnByValue": true }));
        answer["result"]["value"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// What an expression (JavaScript, of a promise if need be) comes to, as text.
    pub fn evaluate(&mut self, expression: &str) -> String {
        let script = format!("Promise.resolve({expression}).then(String)");
        let asked = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let answer = self.ask("Runtime.evaluate", asked);
        answer["result"]["value"].as_str().unwrap_or_else(|| panic!("{expression}: {answer}")).to_owned()
    }

    /// Waits until the text of an element is what `is` (JavaScript, of a `text`) says.
    pub fn wait_for_text(&mut self, selector: &str, is: &str) -> String {
        self.wait_for(&format!(
            "() => {{ const text = document.querySelector('{selector}')?.textContent ?? ''; return ({is}) && text; }}"
        ))
    }

    /// Presses and releases a key that is no letter.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "End" => 35,
            "Home" => 36,
            "ArrowUp" => 38,
            "ArrowDown" => 40,
            _ => panic!("no code for {key}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if (kind, key) == ("keyDown", "Enter") { "\r" } else { "" };
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.ask("Input.dispatchKeyEvent", event);
        }
    }

    /// Types into what has the focus, in place of what is there.
    pub fn type_over(&mut self, id: &str, text: &str) {
        self.evaluate(&format!("document.getElementById('{id}').select()"));
        self.ask("Input.insertText", json!({ "text": text }));
    }

    /// Nothing went wrong on the page so far.
    pub fn assert_clean(&mut self) {
        self.evaluate("1"); // what was on its way has arrived
        assert!(self.wrongs.is_empty(), "{:#?}", self.wrongs);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

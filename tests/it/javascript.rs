//! The JavaScript client and the parts of the console that need no browser, under Node. Skipped where there is none.

use std::process::Command;

use stentor::Payload;

use crate::{browser::Browser, client::serve, skip::skip};

fn node(args: &[&str]) -> Option<std::process::Output> {
    Command::new("node").args(args).env("STENTOR", env!("CARGO_BIN_EXE_stentor")).output().ok()
}

/// Node has a WebSocket; before 22 it wants to be asked for it, and before 20.10 there is none.
fn has_websocket(option: &str) -> bool {
    let said = node(&[option, "--print", "typeof WebSocket + typeof fetch"]);
    said.is_some_and(|said| said.stdout.trim_ascii() == b"functionfunction")
}

/// Runs these of its tests, where there is a node for them.
fn pass(names: &[&str]) {
    let Some(option) = ["--no-warnings", "--experimental-websocket"].into_iter().find(|option| has_websocket(option))
    else {
        return skip("node", "the JavaScript client under Node: there is no node here that has a WebSocket");
    };
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/js");
    let files: Vec<String> = names.iter().map(|name| format!("{tests}/{name}.test.mjs")).collect();
    let args: Vec<&str> =
        [option, "--test-reporter=spec", "--test"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let output = node(&args).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_javascript_client_passes_its_own_tests() {
    pass(&["books", "client", "console", "cuts", "faults", "feed", "ways"]);
}

#[test]
fn behind_a_proxy_that_breaks_upgrades_and_buffers_streams_the_javascript_client_loses_nothing() {
    if Command::new("nginx").arg("-v").output().is_err() {
        return skip("nginx", "the JavaScript client behind a proxy: there is no nginx here");
    }
    pass(&["proxy"]);
}

#[test]
fn in_a_browser_the_javascript_client_takes_every_way() {
    let server = serve(|_| ());
    let address = server.addresses()[0];
    server.publisher().publish("a", Payload::Json(b"1.50")).unwrap();
    let Some(mut browser) = Browser::open(1000, &format!("http://{address}/healthz")) else { return };
    for way in ["websocket", "events", "polling"] {
        let script = format!(
            "import('http://{address}/stentor.js').then(({{ Stentor }}) => new Promise(done => {{
               const client = new Stentor('http://{address}/ws', {{ transports: ['{way}'] }});
               const told = [];
               client.subscribe('*', {{
                 onUpdate: ({{ type, seq, json }}) => {{
                   told.push(`${{type}} ${{seq}} ${{json}}`);
                   if (told.length === 1) client.publishJson('a', '2.50');
                   if (told.length === 2) {{ client.close(); done(told.join()); }}
                 }},
               }});
             }}))"
        );
        let seq = server.publisher().publish("a", Payload::Json(b"1.50")).unwrap().seq;
        let expected = format!("snapshot {seq} 1.50,update {} 2.50", seq + 1);
        assert_eq!(browser.evaluate(&script), expected, "{way}");
    }
    browser.assert_clean();
}

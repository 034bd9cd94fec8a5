//! The page, as it is served.

use super::*;

#[test]
fn the_page_may_load_nothing_from_elsewhere() {
    let server = Server::start();
    let mut client = server.connect();
    for (target, kind) in [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")] {
        let answer = client.get(target);
        assert!(answer.status == 200 && answer.headers["content-type"].starts_with(kind), "{target}");
        assert!(answer.headers["content-security-policy"].starts_with("default-src 'none'"));
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert!(!answer.body.contains("http://") && !answer.body.contains("https://"), "{target}");
    }
}

#[test]
fn every_address_on_the_page_is_served() {
    let server = Server::start();
    let mut client = server.connect();
    let html = client.get("/").body;
    let after = |key: &'static str| html.split(key).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    let named: Vec<String> = after("src=\"").chain(after("href=\"")).filter(|at| !at.starts_with("data:")).collect();
    assert!(named.len() >= 5, "{named:?}");
    for address in named {
        assert_eq!(client.get(&address).status, 200, "{address}");
    }
}

//! The page, as it is served.

use super::*;
use crate::control::page::FILES;

#[test]
fn the_page_may_load_nothing_from_elsewhere() {
    let server = Server::start();
    let mut client = server.connect();
    for file in FILES {
        let answer = client.get(file.path);
        let kind = match file.path.rsplit_once('.') {
            Some((_, "js")) => "text/javascript",
            Some((_, "css")) => "text/css",
            _ => "text/html",
        };
        assert!(answer.status == 200 && answer.headers["content-type"].starts_with(kind), "{}", file.path);
        assert!(answer.headers["content-security-policy"].starts_with("default-src 'none'"));
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert!(!answer.body.contains("http://") && !answer.body.contains("https://"), "{}", file.path);
    }
}

#[test]
fn every_address_on_the_page_is_served_and_lies_beside_it() {
    let server = Server::start();
    let mut client = server.connect();
    let html = client.get("/").body;
    let after = |key: &'static str| html.split(key).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    let is_address = |at: &String| !at.starts_with("data:") && !at.starts_with('#');
    let named: Vec<String> = after("src=\"").chain(after("href=\"")).filter(is_address).collect();
    assert!(named.len() >= 5, "{named:?}");
    for address in named {
        // Below a path of a proxy, there is nothing of the server's at an absolute one.
        assert!(!address.starts_with('/'), "{address}");
        assert_eq!(client.get(&format!("/{address}")).status, 200, "{address}");
    }
}

#[test]
fn every_module_that_a_script_imports_is_served() {
    let server = Server::start();
    let mut client = server.connect();
    for file in FILES.iter().filter(|file| file.path.ends_with(".js")) {
        for import in file.text.lines().filter(|line| line.starts_with("import ")) {
            let from = import.split('"').nth(1).unwrap().strip_prefix('.').unwrap();
            assert_eq!(client.get(from).status, 200, "{}: {import}", file.path);
        }
    }
}

//! Against a server that wants to see a token before it lets anybody subscribe or publish.

mod common;

use std::fs;

use common::{Outcome, run, run_with};
use sha2::{Digest, Sha256};
use stentor::server::Server;

const SHORT: &str = "--subs 4 --topics 2 --rate 200/s --duration 1s --warmup 200ms --drain 500ms";

const WORD: &str = "planted-0123456789abcdef";

/// A server with one holder, who may subscribe to and publish on what is measured, and a file with its token.
struct World {
    server: Server,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let hash: String = Sha256::digest(WORD).iter().map(|byte| format!("{byte:02x}")).collect();
        let rights = folder.path().join("rights.toml");
        fs::write(&rights, format!("[tokens.load]\nsha256 = \"{hash}\"\nsub = [\"bench.>\"]\npub = [\"bench.>\"]\n"))
            .unwrap();
        fs::write(folder.path().join("token"), format!("{WORD}\n")).unwrap();
        fs::write(folder.path().join("wrong"), "another-word\n").unwrap();
        let set = move |config: &mut stentor::config::Config| {
            config.workers = Some(1);
            config.pin = stentor::config::Pin::None;
            config.rights = Some(rights);
        };
        let server = Server::builder().listen("127.0.0.1:0".parse().unwrap()).set(set).start().unwrap();
        World { server, folder }
    }

    fn arguments(&self, more: &str) -> String {
        format!("fanout ws://{} {SHORT} {more}", self.server.addresses()[0])
    }

    fn file(&self, name: &str) -> String {
        format!("--token-file {}", self.folder.path().join(name).display())
    }
}

fn assert_measured(outcome: &Outcome) {
    outcome.assert_fine();
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(400), "{}", outcome.out);
    let all = format!("{}{}{}", outcome.out, outcome.err, outcome.json);
    assert!(!all.contains(WORD), "the token is in what is kept of a run: {all}");
}

#[test]
fn subscribers_and_publishers_show_the_token_in_each_of_stentors_protocols() {
    let world = World::new();
    let http = format!("--publish-url http://{}", world.server.addresses()[0]);
    for more in ["", "--processes 2", &http, "--protocol raw", "--protocol poll"] {
        assert_measured(&run(&world.arguments(&format!("{} {more}", world.file("token")))));
    }
}

#[test]
fn the_token_may_be_in_the_environment_and_a_file_goes_before() {
    let world = World::new();
    assert_measured(&run_with(&[("STENTOR_TOKEN", WORD)], &world.arguments("--processes 2")));
    assert_measured(&run_with(&[("STENTOR_TOKEN", "another-word")], &world.arguments(&world.file("token"))));
}

#[test]
fn without_the_right_token_nothing_is_measured_and_it_says_why() {
    let world = World::new();
    for (arguments, said) in [
        (world.arguments("--timeout 1s"), "the subscription was not done"),
        (world.arguments(&world.file("wrong")), "4001 the token is not the right one"),
        (world.arguments(&world.file("none")), "--token-file"),
        (world.arguments(&format!("{} --header Authorization:x", world.file("token"))), "leave one of them out"),
    ] {
        let outcome = run(&arguments);
        assert!(outcome.code != 0 && outcome.code != 3, "{arguments}: {}{}", outcome.out, outcome.err);
        assert!(format!("{}{}", outcome.out, outcome.err).contains(said), "{said}: {}{}", outcome.out, outcome.err);
    }
}

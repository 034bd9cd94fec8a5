//! What rights cost: signatures, a look among a thousand patterns, a hundred thousand holders, ten thousand tokens at once. On one core, on this machine and today.
//!
//! ```sh
//! cargo bench --features bench --bench rights
//! ```
//!
//! Each line is the median of five rounds, with the lowest and the highest; the side that is saturated is this process, which does nothing else.

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use jsonwebtoken::Algorithm;
use serde_json::json;
use stentor::{
    config::Config,
    internals::access::{Holder, Rules, Shown, keys::sha256, sign::Signer},
};

const NOW: u64 = 1_795_900_000;
const ROUNDS: usize = 5;

fn main() {
    let dir = tempfile::tempdir().expect("a folder for files");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    };
    let us = NOW * 1_000_000;
    for algorithm in [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256, Algorithm::PS256, Algorithm::HS256] {
        let signer = Signer::make(algorithm).expect("a key").0;
        let config = Config { jwt_keys: Some(write("keys.json", &signer.jwks())), token_cache: 0, ..Config::default() };
        let rules = Rules::read(&config, us).expect("rules").0;
        let token = |n: usize| {
            signer.sign(&json!({"aud": "stentor", "sub": format!("u{n}"), "exp": NOW + 60, "stentor": {"sub": ["q.us.>", "t.us.>"]}})).expect("a token")
        };
        let tokens: Vec<String> = (0..200).map(token).collect();
        let name = format!("{algorithm:?}");
        each(&format!("judging a token, {name}"), tokens.len(), |n| {
            black_box(rules.holder(Some(&Shown::new(&*tokens[n])), us).expect("it is right"));
        });
        if algorithm == Algorithm::EdDSA {
            let cached = Rules::read(&Config { token_cache: 10_000, ..config.clone() }, us).expect("rules").0;
            let all: Vec<String> = (0..10_000).map(token).collect();
            let begun = Instant::now();
            all.iter().for_each(|token| {
                drop(black_box(cached.holder(Some(&Shown::new(&**token)), us).expect("it is right")))
            });
            println!(
                "10,000 tokens that were not seen before, one after the other: {:.0} ms of one core",
                begun.elapsed().as_secs_f64() * 1e3
            );
            each("judging a token that was seen", 10_000, |n| {
                black_box(cached.holder(Some(&Shown::new(&*all[n])), us).expect("it is right"));
            });
            let wrong = format!("{}A", &tokens[0][..tokens[0].len() - 1]);
            let wrong = if wrong == tokens[0] { format!("{}Q", &wrong[..wrong.len() - 1]) } else { wrong };
            each("refusing a token with a wrong signature", 200, |_| {
                black_box(cached.holder(Some(&Shown::new(&*wrong)), us).expect_err("it is wrong"));
            });
        }
    }
    patterns(&write, us);
    holders(&write, us);
}

fn patterns(write: &dyn Fn(&str, &str) -> std::path::PathBuf, us: u64) {
    let names: Vec<String> = (0..1000).map(|n| format!("\"q.v{n}.>\"")).collect();
    let text = format!(
        "[roles.many]\nsub = [{0}]\npub = [{0}]\n[tokens.a]\nsha256 = \"{1}\"\nrole = \"many\"\n",
        names.join(","),
        hex("a")
    );
    let rules =
        Rules::read(&Config { rights: Some(write("rights.toml", &text)), ..Config::default() }, us).expect("rules").0;
    let holder = rules.holder(Some(&Shown::new("a")), us).expect("it is right");
    let asked: Vec<String> = (0..1000).map(|n| format!("q.v{n}.A")).collect();
    each("a name within 1,000 patterns", 1000, |n| {
        assert!(black_box(rules.now(&holder, us)).may_subscribe(&asked[n]));
    });
    each("publishing on a topic within 1,000 patterns", 1000, |n| {
        assert!(black_box(rules.now(&holder, us)).may_publish(&asked[n]));
    });
    let plain = Rules::default();
    each("publishing where anybody may", 1000, |n| {
        assert!(!black_box(plain.now(&Holder::Anonymous, us)).may_publish(&asked[n]));
    });
}

fn holders(write: &dyn Fn(&str, &str) -> std::path::PathBuf, us: u64) {
    let mut text = String::from("[roles.pro]\nsub = ['q.us.>']\n");
    for n in 0..100_000 {
        text += &format!("[tokens.u{n}]\nsha256 = '{}'\nrole = 'pro'\n", hex(&format!("secret {n}")));
    }
    let config = Config { rights: Some(write("many.toml", &text)), ..Config::default() };
    drop(text);
    let before = resident();
    let begun = Instant::now();
    let rules = Rules::read(&config, us).expect("rules").0;
    let took = begun.elapsed();
    let held = resident().saturating_sub(before);
    println!(
        "100,000 static tokens of a rights file: read in {:.0} ms, {} bytes resident for each, with what reading has left",
        took.as_secs_f64() * 1e3,
        held / 100_000
    );
    let before = resident();
    let all: Vec<Holder> = (0..100_000)
        .map(|n| rules.holder(Some(&Shown::new(format!("secret {n}"))), us).expect("it is right"))
        .collect();
    println!("100,000 of them there: {} bytes resident for each", resident().saturating_sub(before) / 100_000);
    drop(all);
}

/// Does something so many times, in rounds, and says how long it takes, and how often that is a second.
fn each(what: &str, count: usize, run: impl Fn(usize)) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (begun, mut done) = (Instant::now(), 0_u64);
            while begun.elapsed() < Duration::from_millis(300) {
                (0..count).for_each(&run);
                done += count as u64;
            }
            done as f64 / begun.elapsed().as_secs_f64()
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let (median, least, most) = (rounds[ROUNDS / 2], rounds[0], rounds[ROUNDS - 1]);
    let (unit, in_a_second) = if median > 1e6 { ("ns", 1e9) } else { ("µs", 1e6) };
    let each = |rate: f64| in_a_second / rate;
    println!(
        "{what}: {:.1} {unit} [{:.1} to {:.1}], {median:.0} a second and core",
        each(median),
        each(most),
        each(least)
    );
}

fn hex(token: &str) -> String {
    sha256(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() * 1024
}

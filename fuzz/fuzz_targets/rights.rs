//! Tokens, keys, rights files, revocations and patterns: nothing that anybody writes panics or hangs, what is let in is what was signed, and
//! what is covered by patterns is what a naive look says.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use stentor::internals::access::{
    Revocation,
    file::File,
    keys::Keys,
    patterns::{Patterns, cover, touch},
    sign::Signer,
    token::{Expected, Token},
};

const NOW: u64 = 1_795_900_000;

/// A secret, so that whatever is made up for claims is signed.
static SIGNER: LazyLock<(Signer, Keys)> = LazyLock::new(|| {
    let secret = r#"{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;
    let signer = Signer::parse(secret, None).unwrap();
    let keys = Keys::parse(&signer.jwks()).unwrap();
    (signer, keys)
});

fn expected() -> Expected {
    Expected { audiences: vec!["a".into()], issuer: None, leeway: 5, bytes_max: 4096 }
}

fn judge(text: &str) {
    let (signer, keys) = &*SIGNER;
    assert!(Token::judge(text, keys, &expected(), NOW).is_err(), "nobody has signed that");
    let _ = Token::judge(&signer.sign_text(text, "{}"), keys, &expected(), NOW);
    let signed = signer.sign_text(r#"{"alg":"HS256"}"#, text);
    match Token::judge(&signed, keys, &expected(), NOW) {
        Ok(token) => {
            assert!((1..=256).contains(&token.subject.len()) && token.expires + 5 > NOW && &*token.audience == "a");
            assert!(token.rights.rates.iter().all(|(_, rate)| *rate > 0.0 && rate.is_finite()));
        }
        Err(wrong) => {
            let signature = signed.rsplit('.').next().unwrap();
            assert!(!wrong.to_string().contains(signature), "{wrong}");
        }
    }
}

/// Whether `pattern` stands for `topic`, segment by segment.
fn stands_for(pattern: &str, topic: &[&str]) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let each = |pattern: &[&str]| pattern.iter().zip(topic).all(|(a, b)| *a == "*" || a == b);
    match pattern.split_last() {
        Some((&">", head)) => topic.len() > head.len() && each(head),
        _ => topic.len() == pattern.len() && each(&pattern),
    }
}

/// The first line is asked for, the others are given.
fn compare(text: &str) {
    let names: Vec<&str> = text.lines().filter(|line| line.len() <= 200).take(64).collect();
    let Some((name, given)) = names.split_first() else { return };
    let Ok(asked) = Patterns::new([*name]) else { return };
    let Ok(set) = Patterns::new(given.iter().copied()) else { return };
    let longest = names.iter().map(|name| name.split('.').count()).max().unwrap_or(0);
    let fixed: Vec<&str> = name.split('.').filter(|part| *part != ">").map(|part| if part == "*" { "!" } else { part }).collect();
    let lengths = if name.ends_with('>') { 1..=longest + 1 } else { 0..=0 };
    let naive = lengths.into_iter().all(|more| {
        let topic = [&fixed[..], &vec!["!"; more]].concat();
        given.iter().any(|pattern| stands_for(pattern, &topic))
    });
    assert_eq!(cover(&[&set], name), naive, "{name} within {given:?}");
    if !name.contains(['*', '>']) {
        assert_eq!(set.stand_for(name), naive);
        assert_eq!(set.touch(name), naive, "a topic touches what stands for it");
    }
    assert!(asked.touch(name) && touch(name, name));
    assert!(cover(&[&asked], name), "a name lies within itself");
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    judge(text);
    compare(text);
    let _ = Keys::parse(text);
    let _ = File::parse(text);
    if let Ok(one) = Revocation::parse(text, NOW) {
        assert_eq!(Revocation::parse(&one.line(), 0), Ok(one), "what is written is read again");
    }
});

//! As much as one can say, as often as one can come.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{Attack, Attacker, MIB, attack, wire};

pub const RECONNECTS: Attack = attack(
    "reconnects",
    "1 address that connects and leaves as fast as it can, in the middle of the handshake or behind it: workers and acceptor",
    reconnects,
);

fn reconnects(attacker: &Attacker) {
    attacker.settled();
    let mut n = 0;
    while attacker.goes_on() {
        n += 1;
        if n % 4 == 0 {
            attacker.upgraded("/ws");
        } else {
            attacker.sent(&wire::upgrade_request("/ws"));
        }
    }
}

pub const SUBSCRIPTIONS_BY_ADDRESS: Attack = attack(
    "subscriptions-by-address",
    "1 address that connects to /ws?topics=, /sse and /raw as fast as it can, with 10,000 topics to look for: work outside any quota",
    subscriptions_by_address,
)
.memory(64, 16);

fn subscriptions_by_address(attacker: &Attacker) {
    attacker.publish_topics("attack.a.list", attacker.count(10_000), "1");
    let many: Vec<String> = (0..200).map(|n| format!("attack.*.list.{n}.x")).collect();
    let many = many.join(",");
    let requests = [
        wire::upgrade_request("/ws?topics=attack.%3E"),
        wire::upgrade_request(&format!("/ws?topics={many}")),
        wire::get("/sse?topics=attack.%3E", ""),
        wire::get(&format!("/sse?topics={many}"), ""),
        wire::upgrade_request("/raw/attack.a.list.1"),
    ];
    attacker.settled();
    for request in requests.iter().cycle() {
        if !attacker.goes_on() {
            return;
        }
        // Until its answer begins, or the server would see it leave before it has read the request.
        if let Some(mut stream) = attacker.sent(request) {
            let _ = wire::status(&mut stream);
        }
    }
}

/// In four seconds, half a megabyte is what calm leaves as well; entries that stay are more than two.
pub const RATES: Attack = Attack {
    left: 3 * MIB / 2,
    ..attack(
        "rates",
        "1 address, 200 connections that subscribe at 12 rates of once in decades and unsubscribe: what is kept for each",
        rates,
    )
};

/// Topics that each connection has, each at a rate of its own.
const RATES_EACH: usize = 12;

fn rates(attacker: &Attacker) {
    let mut crowd: Vec<_> = (0..attacker.count(200)).filter_map(|_| attacker.upgraded("/ws")).collect();
    attacker.settled();
    let topics = || (0..RATES_EACH).map(|topic| format!("attack.rate.{topic}"));
    while attacker.goes_on() {
        let mut say = |command: &dyn Fn(usize, usize) -> String| {
            for (n, stream) in crowd.iter_mut().enumerate() {
                let commands: Vec<u8> = (0..RATES_EACH).flat_map(|topic| wire::command(&command(n, topic))).collect();
                let sent = stream.write_all(&commands).is_ok();
                let answered = sent && (0..RATES_EACH).all(|_| acknowledged(stream));
                let fresh = if answered { None } else { attacker.upgraded("/ws") };
                if let Some(fresh) = fresh {
                    *stream = fresh;
                }
            }
        };
        // No two share a rate.
        say(&|n, topic| {
            let rate = 10_000 + n * RATES_EACH + topic;
            format!(r#"{{"op":"sub","topics":["attack.rate.{topic}"],"mode":"latest","rate":0.0000000{rate}}}"#)
        });
        // Twice: with the first a tick begins, the second has to wait for the next one.
        for _ in 0..2 {
            attacker.exchange(&wire::publish_lines(topics(), "1"));
        }
        say(&|_, topic| format!(r#"{{"op":"unsub","topics":["attack.rate.{topic}"]}}"#));
    }
}

/// Reads up to an acknowledgement, or to whatever else ends it.
fn acknowledged(stream: &mut TcpStream) -> bool {
    while let Ok((first, message)) = wire::read_frame(stream) {
        if first == 0x88 || message.starts_with(b"{\"type\":\"ack\"") {
            return first != 0x88;
        }
    }
    false
}

pub const CLOSE_CODES: Attack = attack(
    "close-codes",
    "1 address that closes with each of the codes 3000 to 4999 once: a series of a metric for each, for ever",
    close_codes,
);

fn close_codes(attacker: &Attacker) {
    for code in (3000..5000_u16).step_by(attacker.scale) {
        if let Some(mut stream) = attacker.upgraded("/ws")
            && stream.write_all(&wire::frame(0x88, &code.to_be_bytes())).is_ok()
        {
            while wire::read_frame(&mut stream).is_ok_and(|(first, _)| first != 0x88) {}
        }
        if !attacker.goes_on() {
            break;
        }
    }
    attacker.settled();
    while attacker.pause(Duration::from_millis(20)) {}
}

pub const LOG: Attack = attack(
    "log",
    "1 address that shows wrong tokens and sends bad requests as fast as it can: everybody else's lines are lost among its own",
    log,
);

fn log(attacker: &Attacker) {
    let wrong = wire::command(r#"{"op":"auth","token":"wrong"}"#);
    attacker.settled();
    let mut n = 0;
    while attacker.goes_on() {
        n += 1;
        if n % 2 == 0 {
            if let Some(mut stream) = attacker.upgraded("/ws")
                && stream.write_all(&wrong).is_ok()
            {
                while wire::read_frame(&mut stream).is_ok_and(|(first, _)| first != 0x88) {}
            }
        } else if let Some(mut stream) = attacker.sent(&wire::get("/ws", "")) {
            let _ = wire::status(&mut stream);
        }
    }
}

pub const PINGS: Attack =
    attack("pings", "1 address, 10 connections that ping without end, renewed as they are closed", pings);

fn pings(attacker: &Attacker) {
    attacker.flood(10, |_| attacker.upgraded("/ws"), &wire::frame(0x89, &[b'x'; 125]), true);
}

pub const LISTS: Attack = attack(
    "lists",
    "1 address, 10 connections that ask for their 1,024 subscriptions without end, renewed as they are closed",
    lists,
)
.memory(64, 16);

fn lists(attacker: &Attacker) {
    let open = |n: usize| {
        let names: Vec<String> = (0..1024).map(|name| format!("\"attack.{n}.{name}\"")).collect();
        let mut stream = attacker.upgraded("/ws")?;
        let sub = format!(r#"{{"op":"sub","topics":[{}],"snapshot":false}}"#, names.join(","));
        stream.write_all(&wire::command(&sub)).ok()?;
        Some(stream)
    };
    attacker.flood(10, open, &wire::command(r#"{"op":"list"}"#), true);
}

/// A server that knows tokens, and lets the healthy in without.
const WITH_TOKENS: &[&str] =
    &["--jwt-keys", "examples/hostile/keys.json", "--anonymous-subscribe", ">", "--anonymous-publish"];

pub const TOKENS: Attack = attack(
    "tokens",
    "1 address, 10 connections over which forged tokens are shown by plain HTTP, some ten thousand a second: a signature each",
    tokens,
)
.with(WITH_TOKENS);

fn tokens(attacker: &Attacker) {
    let request = wire::get("/topics/attack.none", &format!("Authorization: Bearer {}\r\n", forged(0)));
    attacker.flood(10, |_| attacker.connect(), &request, true);
}

pub const TOKENS_AT_HANDSHAKES: Attack = attack(
    "tokens-at-handshakes",
    "1 address that shows another forged token with each WebSocket, stream and poll, as fast as it can: signatures in a worker's turn",
    tokens_at_handshakes,
)
.with(WITH_TOKENS);

fn tokens_at_handshakes(attacker: &Attacker) {
    attacker.settled();
    let mut n = 0;
    while attacker.goes_on() {
        n += 1;
        let token = forged(n);
        let request = match n % 3 {
            0 => wire::upgrade_request(&format!("/ws?topics=attack.a&token={token}")),
            1 => wire::get("/sse?topics=attack.a", &format!("Authorization: Bearer {token}\r\n")),
            _ => wire::get("/poll?topics=attack.a", &format!("Authorization: Bearer {token}\r\n")),
        };
        // Until its answer begins, or the server would see it leave before it has read the request.
        if let Some(mut stream) = attacker.sent(&request) {
            let _ = wire::status(&mut stream);
        }
    }
}

pub const TOKENS_OF_MANY: Attack = attack(
    "tokens-of-many",
    "20 addresses over which forged tokens are shown with polls, each as many as --max-tokens-per-ip allows and more: ten thousand signatures a second, in workers' turns",
    tokens_of_many,
)
.with(WITH_TOKENS);

fn tokens_of_many(attacker: &Attacker) {
    let sources: Vec<Attacker> = (0..20).map(|n| attacker.nth(n)).collect();
    let request = wire::get("/poll?topics=attack.a", &format!("Authorization: Bearer {}\r\n", forged(0)));
    attacker.flood(sources.len(), |n| sources[n].connect(), &request, true);
}

pub const REFRESHES: Attack = attack(
    "refreshes",
    "20 addresses with 2,500 clients that show 10,000 new tokens at one moment, all genuine, again and again: a signature each, in workers' turns",
    refreshes,
)
.memory(64, 64)
.with(WITH_TOKENS);

/// As many as a connection may show at once (`--max-auths`), and when it may again.
const TOKENS_AT_ONCE: usize = 4;
const TOKENS_AGAIN: Duration = Duration::from_millis(2100);

fn refreshes(attacker: &Attacker) {
    // The key by which the server knows these is in `keys.json`.
    let Ok(key) = Ed25519KeyPair::from_seed_unchecked(&[b'r'; 32]) else { return };
    let sources: Vec<Attacker> = (0..20).map(|n| attacker.nth(n)).collect();
    let mut clients: Vec<TcpStream> =
        (0..attacker.count(2500)).filter_map(|n| sources[n % sources.len()].upgraded("/ws")).collect();
    for client in &mut clients {
        // The greeting.
        let _ = wire::read_frame(client);
    }
    attacker.holds(clients.len());
    let (mut jti, mut rounds) = (0, 0);
    while attacker.goes_on() {
        let begun = Instant::now();
        let until = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) + 240;
        for (n, client) in clients.iter_mut().enumerate() {
            let auths = (0..TOKENS_AT_ONCE).flat_map(|_| {
                jti += 1;
                let token = genuine(&key, &format!("client-{n}"), jti, until);
                wire::command(&format!(r#"{{"op":"auth","id":{jti},"token":"{token}"}}"#))
            });
            let auths: Vec<u8> = auths.collect();
            if client.write_all(&auths).is_err() {
                attacker.wronged("a client could not say all of its tokens");
            }
        }
        rounds += 1;
        if rounds == 1 {
            attacker.settled();
        }
        for client in &mut clients {
            for _ in 0..TOKENS_AT_ONCE {
                match wire::read_frame(client) {
                    Ok((0x81, text)) if text.starts_with(b"{\"type\":\"ack\"") => {}
                    Ok((_, text)) => attacker
                        .wronged(&format!("a genuine token was answered {:.60}", String::from_utf8_lossy(&text))),
                    Err(_) => attacker.wronged("a genuine token was not answered"),
                }
            }
        }
        while attacker.goes_on() && begun.elapsed() < TOKENS_AGAIN {
            attacker.pause(Duration::from_millis(10));
        }
    }
}

/// A token that is genuine, of this subject.
fn genuine(key: &Ed25519KeyPair, subject: &str, jti: usize, until: u64) -> String {
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let head = part(r#"{"alg":"EdDSA","kid":"two","typ":"JWT"}"#);
    let claims = part(&format!(
        r#"{{"aud":"stentor","sub":"{subject}","jti":"{jti}","exp":{until},"stentor":{{"sub":[">"]}}}}"#
    ));
    let signed = format!("{head}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// A token of the right form, by the right key's name, whose signature only a look at the key tells from a genuine one.
fn forged(n: usize) -> String {
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let head = part(r#"{"alg":"ES256","kid":"one","typ":"JWT"}"#);
    let claims = part(&format!(
        r#"{{"aud":"stentor","sub":"attacker","jti":"{n}","exp":4102444800,"stentor":{{"sub":[">"]}}}}"#
    ));
    // Two numbers of the curve's size, neither of them nought.
    let signature: Vec<u8> = (1..=64_u64).map(|byte| (byte.wrapping_mul(n as u64 + 37) % 251) as u8 + 1).collect();
    format!("{head}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
}

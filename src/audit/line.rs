//! An event as a line of JSON.
//!
//! ```text
//!   {"ts":1764455226000000,"event":"subscribe","conn":"1-2a","address":"192.0.2.7:50112","holder":"u42","source":"token",
//!    "token":"k81","topics":["q.us.>"],"mode":"all"}
//! ```
//!
//! Whoever reads it may do so in a terminal, so it is printable: whatever could move the cursor or turn the text around is escaped, of
//! names and reasons that clients have chosen as of anything else.

use std::{io::Write, sync::Arc};

use super::{Been, Event, What};
use crate::{
    access::{Holder, Whom},
    config::Shown,
    limits::Prefix,
};

/// Appends the line of an event; `left_out` lines of its address went before it and are not there.
pub(super) fn write(event: &Event, left_out: u64, out: &mut Vec<u8>) {
    let word = match &event.what {
        What::Connect { .. } => "connect",
        What::Auth => "auth",
        What::Subscribe { .. } => "subscribe",
        What::Unsubscribe { .. } => "unsubscribe",
        What::Read { .. } => "read",
        What::Refused { .. } => "refused",
        What::Revoked { .. } => "revoked",
        What::End { .. } => "end",
        What::Here { .. } => "here",
    };
    begin(out, event.ts, word);
    if event.conn > 0 {
        put(out, format_args!(",\"conn\":\"{:x}-{:x}\"", event.conn >> 48, event.conn & 0xffff_ffff_ffff));
    }
    put(out, format_args!(",\"address\":\"{}\"", Shown(event.address)));
    match (&event.what, &event.holder) {
        // Whoever shows the token of operators, or asks from this machine where there is none.
        (What::Revoked { .. }, Holder::Anonymous) => {
            out.extend_from_slice(br#","holder":"operator","source":"operator""#)
        }
        (_, holder) => write_holder(out, holder),
    }
    match &event.what {
        What::Connect { door, tls } => put(out, format_args!(",\"door\":\"{door}\",\"tls\":{tls}")),
        What::Auth => {}
        What::Subscribe { names, mode, rate } => {
            write_names(out, names);
            put(out, format_args!(",\"mode\":\"{mode}\""));
            if let Some(rate) = rate {
                put(out, format_args!(",\"rate\":{rate}"));
            }
        }
        What::Unsubscribe { names } => write_names(out, names),
        What::Read { door, names } => {
            put(out, format_args!(",\"door\":\"{door}\""));
            write_names(out, names);
        }
        What::Refused { why, message } => {
            put(out, format_args!(",\"why\":\"{why}\""));
            write_text(out, "message", message);
        }
        What::Revoked { one } => {
            match &one.whom {
                Whom::Name { name, issuer } => {
                    write_text(out, "sub", name);
                    issuer.iter().for_each(|issuer| write_text(out, "iss", issuer));
                }
                Whom::Id(id) => write_text(out, "jti", id),
            }
            put(out, format_args!(",\"until\":{}", one.until));
        }
        What::End { code, reason, been } => {
            put(out, format_args!(",\"code\":{code}"));
            write_text(out, "reason", reason);
            write_been(out, *been);
        }
        What::Here { been, subscriptions } => {
            write_been(out, *been);
            put(out, format_args!(",\"subscriptions\":{subscriptions}"));
        }
    }
    if left_out > 0 {
        put(out, format_args!(",\"left_out\":{left_out}"));
    }
    out.extend_from_slice(b"}\n");
}

/// Appends a line about the audit itself: that it begins or ends.
pub(super) fn write_own(ts: u64, event: &str, out: &mut Vec<u8>) {
    begin(out, ts, event);
    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    put(out, format_args!(",\"server\":\"stentor/{version}\",\"pid\":{pid}}}\n"));
}

/// Appends that so many events are missing, because there was no room for them.
pub(super) fn write_dropped(ts: u64, lines: u64, out: &mut Vec<u8>) {
    begin(out, ts, "dropped");
    put(out, format_args!(",\"lines\":{lines}}}\n"));
}

/// Appends that so many lines of an address were left out, of which no line has come since.
pub(super) fn write_left_out(ts: u64, address: Option<Prefix>, lines: u64, out: &mut Vec<u8>) {
    begin(out, ts, "left_out");
    if let Some(address) = address {
        put(out, format_args!(",\"address\":\"{address}\""));
    }
    put(out, format_args!(",\"lines\":{lines}}}\n"));
}

fn begin(out: &mut Vec<u8>, ts: u64, event: &str) {
    put(out, format_args!("{{\"ts\":{ts},\"event\":\"{event}\""));
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "a Vec takes everything");
}

/// Who it is, and how that is known; of a token its id, if it has one, and who has issued it.
fn write_holder(out: &mut Vec<u8>, holder: &Holder) {
    let (name, source) = match holder {
        Holder::Anonymous => ("anonymous", "none"),
        Holder::Publisher { .. } => ("publisher", "publish-token"),
        Holder::Server => ("server", "server"),
        Holder::Known(known) => (&*known.key.name, known.key.source.as_str()),
    };
    write_text(out, "holder", name);
    write_text(out, "source", source);
    let Some(known) = holder.known() else { return };
    if !known.key.issuer.is_empty() {
        write_text(out, "issuer", &known.key.issuer);
    }
    if let Some(id) = &known.id {
        write_text(out, "token", id);
    }
}

fn write_been(out: &mut Vec<u8>, been: Been) {
    put(out, format_args!(",\"seconds\":{},\"bytes\":{}", been.seconds, been.bytes));
    put(out, format_args!(",\"received\":{}", been.received));
    if been.unacked > 0 {
        put(out, format_args!(",\"unacked\":{}", been.unacked));
    }
}

fn write_names(out: &mut Vec<u8>, names: &[Arc<str>]) {
    out.extend_from_slice(b",\"topics\":[");
    for (n, name) in names.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write_string(out, name);
    }
    out.push(b']');
}

fn write_text(out: &mut Vec<u8>, field: &str, text: &str) {
    put(out, format_args!(",\"{field}\":"));
    write_string(out, text);
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut room = [0; 4];
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            c if is_unprintable(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    put(out, format_args!("\\u{unit:04x}"));
                }
            }
            c => out.extend_from_slice(c.encode_utf8(&mut room).as_bytes()),
        }
    }
    out.push(b'"');
}

/// Control characters (C0, DEL, C1), ends of lines, and what changes the direction of text or is not seen (Unicode's `Bidi_Control`,
/// and the zero-width ones).
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::access::Revocation;

    fn line(what: What, left_out: u64) -> (String, Value) {
        let event = Event {
            ts: 17,
            conn: (3 << 48) + 0x2a,
            address: "[::1]:7".parse().unwrap(),
            holder: Holder::Anonymous,
            what,
        };
        let mut out = Vec::new();
        write(&event, left_out, &mut out);
        let text = String::from_utf8(out).unwrap();
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (text, value)
    }

    #[test]
    fn a_line_is_one_object_of_json_with_all_that_is_known() {
        let names = vec!["q.us.>".into(), "t.a".into()];
        let (text, value) = line(What::Subscribe { names, mode: "latest", rate: Some(2.5) }, 0);
        let expected = r#"{"ts":17,"event":"subscribe","conn":"3-2a","address":"[::1]:7","holder":"anonymous","source":"none","topics":["q.us.>","t.a"],"mode":"latest","rate":2.5}"#;
        assert_eq!(text, format!("{expected}\n"));
        assert_eq!(value["topics"][1], "t.a");
        let been = Been { seconds: 61, bytes: 1000, unacked: 0, received: 321 };
        let one = Revocation::parse(r#"{"sub":"u\u202e","iss":"b","until":7}"#, 0).unwrap();
        let (text, value) = line(What::Revoked { one: Box::new(one) }, 0);
        assert_eq!((&value["holder"], &value["iss"], &value["until"]), (&"operator".into(), &"b".into(), &7.into()));
        assert!(text.contains("\\u202e") && value["sub"] == "u\u{202e}", "{text}");
        let (_, value) = line(What::Here { been, subscriptions: 3 }, 4);

        assert_eq!((&value["seconds"], &value["bytes"], &value["received"]), (&61.into(), &1000.into(), &321.into()));
        assert_eq!(value["subscriptions"], 3);
        assert_eq!(value["left_out"], 4);
        assert!(value.get("unacked").is_none());
    }

    #[test]
    fn whatever_a_client_chooses_is_printable_and_comes_back_as_it_was() {
        let nasty = "a\n\r\t\"\\\0\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028}\u{200b}\u{feff}é😀";
        for what in [
            What::Refused { why: "forbidden", message: nasty.into() },
            What::End { code: 1000, reason: nasty.into(), been: Been::default() },
            What::Read { door: "poll", names: vec![nasty.into()] },
        ] {
            let (text, value) = line(what, 0);
            assert!(!text.trim_end_matches('\n').chars().any(is_unprintable), "{text:?}");
            let back = [&value["message"], &value["reason"], &value["topics"][0]].into_iter().find_map(Value::as_str);
            assert_eq!(back, Some(nasty));
        }
    }
}

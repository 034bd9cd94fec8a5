//! The stamp: what makes a payload measurable and verifiable wherever it turns up.
//!
//! Every payload carries 84 bytes of ASCII that need no escaping in JSON, so they come through a server that wraps,
//! batches or re-encodes payloads as text. From the marker to the payload's end is the *span*; the check covers all of
//! it, so a byte lost, changed or borrowed from another publication shows up.
//!
//! ```text
//!  0    4        12       20       28       36       44               60               76       84
//!  +----+--------+--------+--------+--------+--------+----------------+----------------+--------+-- ~ --+
//!  |lg1:|run     |topic   |seq     |number  |length  |planned ns      |sent ns         |check   | body  |
//!  +----+--------+--------+--------+--------+--------+----------------+----------------+--------+-- ~ --+
//!        8 hex digits each                            16 hex digits each                 8
//! ```
//!
//! `seq` counts within the topic from 1, `number` over all topics of the run from 0; `length` is the span's. Digits are
//! decoded eight at a time, in a few arithmetic steps and without a table: the whole stamp takes some 20 ns, and the
//! receiver does it once per publication, not once per delivery (see `recent.rs`).

/// How a stamp begins; chosen to be rare in anybody's data.
pub const MARKER: &[u8; 4] = b"lg1:";

/// Bytes from the marker to the end of the check.
pub const STAMP_LEN: usize = 84;

const CHECK_AT: usize = 76;
const JSON_HEAD: &[u8] = b"{\"x\":\"";

/// What a payload says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The run that published it; payloads of other runs are not ours to judge.
    pub run: u32,
    /// Index of the topic in this run.
    pub topic: u32,
    /// Position within its topic, from 1.
    pub seq: u32,
    /// Position within the run, over all topics, from 0.
    pub number: u32,
    /// When it should have been sent, in nanoseconds of the monotonic clock.
    pub planned: u64,
    /// When it was handed to the kernel.
    pub sent: u64,
}

/// The shape of a payload around its stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Form {
    /// A JSON object, as market data is.
    Json,
    /// The bare span: for servers that carry payloads inside JSON strings or other text.
    Plain,
}

/// What follows the stamp.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// Filler that makes the whole payload this many bytes.
    Fill(usize),
    /// A JSON value, byte for byte.
    Data(&'a [u8]),
}

/// Why bytes that look like a stamp are not a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The payload ends before the stamp or the length it gives does.
    Torn,
    /// The check does not match the bytes.
    Wrong,
}

impl Form {
    /// The smallest payload that has room for a stamp.
    pub fn smallest(self) -> usize {
        match self {
            Self::Json => JSON_HEAD.len() + STAMP_LEN + 2,
            Self::Plain => STAMP_LEN,
        }
    }

    /// The bytes of a payload before its span.
    pub fn head(self) -> &'static [u8] {
        match self {
            Self::Json => JSON_HEAD,
            Self::Plain => b"",
        }
    }
}

/// Appends one payload to `out`.
pub fn write(stamp: &Stamp, form: Form, body: Body<'_>, out: &mut Vec<u8>) {
    let payload_at = out.len();
    out.extend_from_slice(form.head());
    let span_at = out.len();
    out.extend_from_slice(MARKER);
    for value in [stamp.run, stamp.topic, stamp.seq, stamp.number, 0] {
        out.extend_from_slice(&digits(value));
    }
    for value in [stamp.planned, stamp.sent] {
        out.extend_from_slice(&digits((value >> 32) as u32));
        out.extend_from_slice(&digits(value as u32));
    }
    out.extend_from_slice(b"00000000");
    append_body(stamp.number, form, body, payload_at, out);
    let span = &mut out[span_at..];
    let length = span.len() as u32;
    span[36..44].copy_from_slice(&digits(length));
    let check = check(span);
    span[CHECK_AT..STAMP_LEN].copy_from_slice(&digits(check));
}

fn append_body(number: u32, form: Form, body: Body<'_>, payload_at: usize, out: &mut Vec<u8>) {
    let tail: &[u8] = match (form, body) {
        (Form::Plain, _) => b"",
        (Form::Json, Body::Fill(_)) => b"\"}",
        (Form::Json, Body::Data(_)) => b"}",
    };
    match body {
        Body::Fill(size) => fill(number, (payload_at + size).saturating_sub(out.len() + tail.len()), out),
        Body::Data(data) => {
            out.extend_from_slice(if form == Form::Json { b"\",\"data\":" } else { b"" });
            out.extend_from_slice(data);
        }
    }
    out.extend_from_slice(tail);
}

/// Letters that differ from publication to publication, so that bytes of one in another are noticed.
fn fill(number: u32, len: usize, out: &mut Vec<u8>) {
    let mut state = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let end = out.len() + len;
    while out.len() < end {
        state = state.wrapping_mul(0xD129_0D3B_2F4A_7C15).rotate_left(29) ^ 0x5DEE_CE66;
        let letters = ((state >> 3) & 0x0F0F_0F0F_0F0F_0F0F) + 0x6161_6161_6161_6161;
        out.extend_from_slice(&letters.to_le_bytes());
    }
    out.truncate(end);
}

/// Where the next stamp begins in `message`, looked for from `from` on.
pub fn find(message: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(message.get(from..)?, MARKER).map(|at| at + from)
}

/// The number in the stamp at the start of `span`, unverified: a hint for finding the same publication again.
#[inline]
pub fn number_hint(span: &[u8]) -> Option<u32> {
    span.get(28..36).map(|digits| value(digits.try_into().expect("8 digits")))
}

/// Reads and verifies the stamp at the start of `bytes`; returns it with its span's length.
pub fn read(bytes: &[u8]) -> Result<(Stamp, usize), Fault> {
    let stamp = bytes.get(..STAMP_LEN).ok_or(Fault::Torn)?;
    let word = |at: usize| value(stamp[at..at + 8].try_into().expect("8 digits"));
    let long = |at: usize| (u64::from(word(at)) << 32) | u64::from(word(at + 8));
    let len = word(36) as usize;
    if len < STAMP_LEN {
        return Err(Fault::Wrong);
    }
    let span = bytes.get(..len).ok_or(Fault::Torn)?;
    if span[CHECK_AT..STAMP_LEN] != digits(check(span)) {
        return Err(Fault::Wrong);
    }
    let stamp =
        Stamp { run: word(4), topic: word(12), seq: word(20), number: word(28), planned: long(44), sent: long(60) };
    Ok((stamp, len))
}

/// Eight lower-case hexadecimal digits.
fn digits(value: u32) -> [u8; 8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|at| DIGITS[(value >> (28 - 4 * at)) as usize & 15])
}

/// The value of eight hexadecimal digits; anything else gives some value, which the check then refuses.
#[inline]
fn value(digits: [u8; 8]) -> u32 {
    let word = u64::from_le_bytes(digits);
    let nibbles = (word & 0x0F0F_0F0F_0F0F_0F0F).wrapping_add(9u64.wrapping_mul((word >> 6) & 0x0101_0101_0101_0101));
    let bytes = ((nibbles << 4) | (nibbles >> 8)) & 0x00FF_00FF_00FF_00FF;
    let pairs = ((bytes << 8) | (bytes >> 16)) & 0x0000_FFFF_0000_FFFF;
    ((pairs << 16) | (pairs >> 32)) as u32
}

/// Four bytes over the whole span but the check itself. Eight bytes a step: 20 ns for 128 bytes.
fn check(span: &[u8]) -> u32 {
    let (before, after) = (&span[..CHECK_AT], &span[STAMP_LEN..]);
    let sum = mix(mix(span.len() as u64, before), after);
    (sum ^ (sum >> 32)) as u32
}

fn mix(mut sum: u64, bytes: &[u8]) -> u64 {
    let step = |sum: u64, word: u64| {
        let product = u128::from(sum ^ word ^ 0xA076_1D64_78BD_642F) * 0xE703_7ED1_A0B4_28DB;
        (product as u64) ^ ((product >> 64) as u64)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        sum = step(sum, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    step(sum, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(number: u32) -> Stamp {
        Stamp { run: 0xC0FFEE, topic: 3, seq: 9, number, planned: 1 << 40, sent: (1 << 40) + 77 }
    }

    fn payload(form: Form, body: Body<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        write(&sample(42), form, body, &mut out);
        out
    }

    #[test]
    fn a_filled_payload_has_the_size_asked_for_and_reads_back() {
        for form in [Form::Json, Form::Plain] {
            for size in [form.smallest(), 128, 1000, 65_536] {
                let payload = payload(form, Body::Fill(size));
                assert_eq!(payload.len(), size);
                let at = find(&payload, 0).unwrap();
                assert_eq!(at, form.head().len());
                assert_eq!(read(&payload[at..]), Ok((sample(42), size - at)));
                assert_eq!(number_hint(&payload[at..]), Some(42));
            }
        }
    }

    #[test]
    fn a_json_payload_is_json_and_keeps_its_data() {
        let payload = payload(Form::Json, Body::Data(br#"{"bid":[1.5,2]}"#));
        let value: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(value["data"]["bid"][1], 2);
        assert!(read(&payload[6..]).is_ok());
    }

    #[test]
    fn a_payload_cut_short_is_torn() {
        let payload = payload(Form::Plain, Body::Fill(128));
        assert_eq!(read(&payload[..100]), Err(Fault::Torn));
        assert_eq!(read(&payload[..50]), Err(Fault::Torn));
    }

    #[test]
    fn fillers_of_two_publications_differ() {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        fill(1, 256, &mut a);
        fill(2, 256, &mut b);
        assert!(a.iter().zip(&b).filter(|(a, b)| a != b).count() > 128);
        assert!(a.iter().all(u8::is_ascii_lowercase));
    }

    proptest! {
        #[test]
        fn no_changed_byte_goes_unnoticed(at in 4usize..300, change in 1u8..=255) {
            let mut payload = payload(Form::Plain, Body::Fill(300));
            payload[at] ^= change;
            prop_assert!(read(&payload).is_err());
        }

        #[test]
        fn digits_and_value_are_inverse(number: u32) {
            prop_assert_eq!(value(digits(number)), number);
        }
    }
}

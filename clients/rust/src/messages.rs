//! Publications as nearly all are written, taken apart where they lie: without a look at what is published, which the program parses if it wants to.

/// A message that says of a topic what most messages do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Publication<'m> {
    pub is_snapshot: bool,
    pub topic: &'m str,
    pub epoch: Option<&'m str>,
    pub seq: u64,
    pub ts: u64,
    pub raw: &'m str,
}

impl<'m> Publication<'m> {
    /// Takes a message apart that has these fields in this order, the payload being the last. Of all others, none: they are taken apart the long way.
    pub fn of(message: &'m str) -> Option<Publication<'m>> {
        let rest = message.strip_prefix(r#"{"type":""#)?;
        let (is_snapshot, rest) = match rest.strip_prefix(r#"update","topic":""#) {
            Some(rest) => (false, rest),
            None => (true, rest.strip_prefix(r#"snapshot","topic":""#)?),
        };
        let (topic, rest) = word(rest)?;
        let (epoch, rest) = match rest.strip_prefix(r#","epoch":""#) {
            Some(rest) => word(rest).map(|(epoch, rest)| (Some(epoch), rest))?,
            None => (None, rest),
        };
        let (seq, rest) = number(rest.strip_prefix(r#","seq":"#)?)?;
        let (ts, rest) = number(rest.strip_prefix(r#","ts":"#)?)?;
        let raw = rest.strip_prefix(r#","data":"#)?.strip_suffix('}').filter(|raw| !raw.is_empty())?;
        Some(Publication { is_snapshot, topic, epoch, seq, ts, raw })
    }
}

/// A string without escapes, up to its end.
fn word(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|byte| matches!(byte, b'"' | b'\\'))?;
    (end > 0 && text.as_bytes()[end] == b'"').then(|| (&text[..end], &text[end + 1..]))
}

/// A number of at most 19 digits.
fn number(text: &str) -> Option<(u64, &str)> {
    let len = text.bytes().take(20).take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(len);
    // JSON has no zeros before a number.
    let is_one = (1..20).contains(&len) && (len == 1 || !digits.starts_with('0'));
    is_one.then(|| (digits.bytes().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, value::RawValue};

    use super::*;

    #[test]
    fn what_is_written_otherwise_is_left_to_others() {
        for message in [
            r#"{"type":"update","topic":"a","seq":5,"ts":1,"key":true,"data":1}"#,
            r#"{"type":"update","topic":"a","seq":5,"ts":1,"base64":"AA=="}"#,
            r#"{"type":"update","topic":"a\u0062","seq":5,"ts":1,"data":1}"#,
            r#"{"type":"update","topic":"","seq":5,"ts":1,"data":1}"#,
            r#"{"type":"update","topic":"a","seq":05,"ts":1,"data":1}"#,
            r#"{"type":"update","topic":"a","seq":-5,"ts":1,"data":1}"#,
            r#"{"type":"update","topic":"a","seq":5.0,"ts":1,"data":1}"#,
            r#"{"type":"update","topic":"a","seq":50000000000000000000,"ts":1,"data":1}"#,
            r#"{"type":"update","topic":"a","ts":1,"seq":5,"data":1}"#,
            r#"{"type":"update","topic":"a","seq":5,"ts":1,"data":1} "#,
            r#"{"type":"update","topic":"a","seq":5,"ts":1,"data":}"#,
            r#"{"type":"updates","topic":"a","seq":5,"ts":1,"data":1}"#,
            r#"{"type":"update","topic":"a"#,
            "",
        ] {
            assert_eq!(Publication::of(message), None, "{message}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_apart_is_what_json_has(
            kind in "update|snapshot", topic in "[a-z.\u{e9}]{1,9}", epoch in proptest::option::of("[a-z0-9]{1,9}"),
            seq in 0..u64::MAX / 2, ts in any::<u32>(), data in "-?[1-9][0-9]{0,5}|\"[a-z}]{0,9}\"|\\[1, 2\\]|\\{\"a\":\\{\\}\\}",
        ) {
            let mid = epoch.as_ref().map(|epoch| format!(r#","epoch":"{epoch}""#)).unwrap_or_default();
            let text = format!(r#"{{"type":"{kind}","topic":"{topic}"{mid},"seq":{seq},"ts":{ts},"data":{data}}}"#);
            let found = Publication::of(&text).unwrap();
            let whole: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!((found.topic, found.epoch), (whole["topic"].as_str().unwrap(), whole["epoch"].as_str()));
            prop_assert_eq!((Some(found.seq), Some(found.ts)), (whole["seq"].as_u64(), whole["ts"].as_u64()));
            prop_assert_eq!(found.is_snapshot, whole["type"] == "snapshot");
            prop_assert_eq!(found.raw, serde_json::from_str::<&RawValue>(&data).unwrap().get());
        }
    }
}

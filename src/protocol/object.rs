//! One JSON object, taken apart into the fields that somebody knows.
//!
//! The text is read once where it is plain (`json.rs`), and once more by serde_json where it is not. Each known field is remembered as the stretch of text that holds its value, so nothing is copied
//! and nothing is converted that nobody looks at; unknown fields are passed over. What was found before an error stays
//! known, so that an error can still be answered with the sender's `id`.
//!
//! Cost: no allocation, unless serde_json has to read values nested more than one level deep: it keeps a stack of a byte a level.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{self, Json};

/// The known fields of one object: a name each, and the text of the value where there was one.
pub(crate) struct Fields<'a, const N: usize> {
    names: &'static [&'static str; N],
    values: [Option<Json<'a>>; N],
    twice: Option<usize>,
}

/// Why a text is not an object with each known field at most once.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectError {
    /// Not JSON at all.
    #[error("not valid JSON: {0}")]
    Json(serde_json::Error),
    /// JSON, but something else.
    #[error("expected a JSON object, found {0}")]
    NotObject(&'static str),
    /// A value with lists and objects nested more deeply than may be.
    #[error("expected at most {max} levels of lists and objects in {0:?}, found more", max = json::DEPTH_MAX)]
    TooDeep(&'static str),
    /// A field that is there more than once, so that nobody knows which one counts.
    #[error("expected the field {0:?} once, found it twice")]
    Twice(&'static str),
}

impl<'a, const N: usize> Fields<'a, N> {
    /// An object of which nothing is known yet.
    pub(crate) fn new(names: &'static [&'static str; N]) -> Self {
        Fields { names, values: [None; N], twice: None }
    }

    /// Reads `text`. After an error, [`Fields::get`] still tells what came before it.
    pub(crate) fn read(&mut self, text: &'a str) -> Result<(), ObjectError> {
        if self.read_plain(text).is_none() {
            (self.values, self.twice) = ([None; N], None);
            self.read_any(text)?;
        }
        self.twice.map_or(Ok(()), |field| Err(ObjectError::Twice(self.names[field])))
    }

    /// Reads an object without anything unusual; none if it isn't one.
    fn read_plain(&mut self, text: &'a str) -> Option<()> {
        let bytes = text.as_bytes();
        let mut at = json::space(bytes, json::literal(bytes, json::space(bytes, 0), b"{")?);
        if bytes.get(at) == Some(&b'}') {
            return (json::space(bytes, at + 1) == bytes.len()).then_some(());
        }
        loop {
            let name = json::literal(bytes, at, b"\"")?;
            let end = json::string(bytes, name)?;
            let name = &text[name..end - 1];
            // One with escapes may be one of the known.
            if memchr::memchr(b'\\', name.as_bytes()).is_some() {
                return None;
            }
            let from = json::space(bytes, json::literal(bytes, json::space(bytes, end), b":")?);
            let end = json::value(bytes, from)?;
            if let Some(field) = self.names.iter().position(|known| *known == name) {
                self.found(field, Json(&text[from..end]));
            }
            at = json::space(bytes, end);
            match bytes.get(at)? {
                b',' => at = json::space(bytes, at + 1),
                b'}' => return (json::space(bytes, at + 1) == bytes.len()).then_some(()),
                _ => return None,
            }
        }
    }

    fn found(&mut self, field: usize, value: Json<'a>) {
        if self.values[field].replace(value).is_some() {
            self.twice.get_or_insert(field);
        }
    }

    /// Reads whatever serde_json does.
    fn read_any(&mut self, text: &'a str) -> Result<(), ObjectError> {
        let mut json = serde_json::Deserializer::from_str(text);
        match (&mut *self).deserialize(&mut json).and_then(|()| json.end()) {
            Ok(()) => self.check_depth(),
            Err(error) if error.is_data() => Err(ObjectError::NotObject(kind(text))),
            Err(error) => Err(ObjectError::Json(error)),
        }
    }

    /// What is plain is never too deep.
    fn check_depth(&self) -> Result<(), ObjectError> {
        let is_too_deep = |value: &Option<Json<'_>>| value.is_some_and(|value| json::is_too_deep(value.get()));
        let field = self.values.iter().position(is_too_deep);
        field.map_or(Ok(()), |field| Err(ObjectError::TooDeep(self.names[field])))
    }

    /// The text of a field's value; none where the field was missing.
    pub(crate) fn get(&self, field: usize) -> Option<Json<'a>> {
        self.values[field]
    }

    /// The known fields from one on, and the text of the value of each that is there.
    pub(crate) fn from(&self, field: usize) -> impl Iterator<Item = (&'static str, Option<Json<'a>>)> {
        self.names.iter().copied().zip(self.values).skip(field)
    }
}

impl<'a, const N: usize> DeserializeSeed<'a> for &mut Fields<'a, N> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a, const N: usize> Visitor<'a> for &mut Fields<'a, N> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(known) = map.next_key_seed(Key(self.names))? {
            match known {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(field) => {
                    let value: &RawValue = map.next_value()?;
                    self.found(field, Json(value.get()));
                }
            }
        }
        Ok(())
    }
}

/// A field's name, read as its number.
struct Key(&'static [&'static str]);

impl<'a> DeserializeSeed<'a> for Key {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == name))
    }
}

/// A string, borrowed from the text unless it has escapes.
#[derive(Debug)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'a> serde::Deserialize<'a> for Text<'a> {
    fn deserialize<D: serde::Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'a> Visitor<'a> for Borrow {
            type Value = Text<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<'a>, E> {
                self.visit_string(text.to_owned())
            }

            fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

/// The string that `value` is; none where it is something else, or escapes half of a surrogate pair.
pub(crate) fn string(value: Json<'_>) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(value.get()).ok().map(Cow::Owned)
}

/// What a JSON text is, in words, by its first character.
pub(crate) fn kind(text: &str) -> &'static str {
    match text.trim_ascii_start().bytes().next() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        Some(b'-' | b'0'..=b'9') => "a number",
        _ => "nothing",
    }
}

/// At most the first 64 bytes of what somebody sent, in quotes, for an error that is sent back or logged.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 64; // as much as fits into one line beside the sentence around it
    match text.char_indices().find(|&(at, _)| at >= SHOWN_MAX) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
    }
}

/// Every entry of an object whose keys are names and not fields, in order.
pub(crate) struct Entries<'a>(pub(crate) Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> serde::Deserialize<'a> for Entries<'a> {
    fn deserialize<D: serde::Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'a> Visitor<'a> for Collect {
            type Value = Entries<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Entries<'a>, A::Error> {
                let mut entries = Vec::new();
                while let Some((Text(key), value)) = map.next_entry::<_, &RawValue>()? {
                    entries.push((key, Json(value.get())));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Result<(), String>, Option<&str>, Option<&str>) {
        let mut fields = Fields::new(&["a", "b"]);
        let result = fields.read(text).map_err(|error| error.to_string());
        (result, fields.get(0).map(Json::get), fields.get(1).map(Json::get))
    }

    #[test]
    fn values_are_kept_as_they_were_written() {
        let (result, a, b) = read(r#" {"x":[1,{}],"b": {"p" : 1.50} ,"\u0061":"\u00e9"} "#);
        assert_eq!((result, a, b), (Ok(()), Some(r#""\u00e9""#), Some(r#"{"p" : 1.50}"#)));
    }

    #[test]
    fn what_came_before_an_error_stays_known() {
        let (result, a, _) = read(r#"{"a":1,"b":}"#);
        assert!(result.unwrap_err().starts_with("not valid JSON"));
        assert_eq!(a, Some("1"));
        let (result, a, b) = read(r#"{"a":1,"a":2,"b":3}"#);
        assert_eq!(result.unwrap_err(), r#"expected the field "a" once, found it twice"#);
        assert_eq!((a, b), (Some("2"), Some("3")));
    }

    #[test]
    fn other_json_is_named_by_its_kind() {
        for (text, found) in [("[1]", "a list"), ("\"a\"", "a string"), ("1", "a number"), ("null", "null")] {
            assert_eq!(read(text).0.unwrap_err(), format!("expected a JSON object, found {found}"));
        }
        for text in ["", "hello", "{\"a\":1}x", "{\"a\"", "{'a':1}"] {
            assert!(read(text).0.unwrap_err().starts_with("not valid JSON"), "{text}");
        }
    }

    #[test]
    fn a_string_is_borrowed_unless_it_has_escapes() {
        assert!(matches!(string(Json(r#""abc""#)), Some(Cow::Borrowed("abc"))));
        assert_eq!(string(Json(r#""a\"c""#)).as_deref(), Some("a\"c"));
        assert_eq!(string(Json(r#""\ud800""#)), None);
    }

    proptest::proptest! {
        #[test]
        fn plain_objects_are_read_as_serde_reads_them(
            text in r#"[ ]?\{([ ]?"[abcx]{1,2}"[ ]?:[ ]?(1|"a"|\[1, 2\]|\{"a":null\}|"\\n"|01|x)[ ]?,?){0,4}\}[ ]?"#,
        ) {
            let (mut plain, mut any) = (Fields::new(&["a", "b"]), Fields::new(&["a", "b"]));
            let read = any.read_any(&text);
            proptest::prop_assert_eq!(plain.read_plain(&text).is_some(), read.is_ok(), "{}", text);
            if read.is_ok() {
                proptest::prop_assert_eq!((plain.values, plain.twice), (any.values, any.twice));
            }
        }
    }
}

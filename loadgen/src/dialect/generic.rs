//! Servers that need no knowledge built in: payloads as messages, or templates from the command line.

use anyhow::{Context, Result};

use super::{Dialect, Heard, Settings, template};
use crate::target::Url;

/// Fills in the path of a raw topic where the address names none.
pub fn complete_raw(url: &mut Url, settings: &Settings, publisher: bool) {
    if url.path == "/" {
        url.path = "/raw/{topic}".into();
    }
    let mut add = |parameter: &str| {
        url.path.push(if url.path.contains('?') { '&' } else { '?' });
        url.path.push_str(parameter);
    };
    if publisher {
        return add("echo=0");
    }
    if settings.latest {
        add("mode=latest");
    }
    if let Some(rate) = settings.latest_rate {
        add(&format!("rate={rate}"));
    }
}

/// Fills in the path that a dialect file has, where the address names none.
pub fn complete(url: &mut Url, path: Option<&String>) {
    if let (Some(path), "/") = (path, url.path.as_str()) {
        url.path.clone_from(path);
    }
}

/// Takes `QUESTION=>ANSWER` apart.
pub fn answer(pair: &str) -> Result<(Vec<u8>, Vec<u8>)> {
    let (question, answer) = pair
        .split_once("=>")
        .with_context(|| format!("--answer `{pair}`: write it like 'PING\\r\\n=>PONG\\r\\n', with => between"))?;
    Ok((template::unescape(question), template::unescape(answer)))
}

impl Dialect {
    /// What a message means that no built-in knowledge explains.
    pub(super) fn hear_generic(&self, message: &[u8]) -> Heard {
        if let Some((_, answer)) = self.answers.iter().find(|(question, _)| message.starts_with(question)) {
            return Heard::Answer(answer.clone());
        }
        let ready = self.settings.ready.as_deref().map(template::unescape);
        match ready {
            Some(ready) if memchr::memmem::find(message, &ready).is_some() => Heard::Subscribed(Vec::new()),
            _ => Heard::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::dialect, *};
    use crate::dialect::Protocol;

    #[test]
    fn questions_are_answered_and_readiness_is_recognised() {
        let settings =
            Settings { answers: vec![r"PING\r\n=>PONG\r\n".into()], ready: Some("+OK".into()), ..Settings::default() };
        let generic = dialect(Protocol::Generic, settings);
        assert_eq!(generic.hear(b"PING\r\n"), Heard::Answer(b"PONG\r\n".to_vec()));
        assert_eq!(generic.hear(b"say +OK now"), Heard::Subscribed(vec![]));
        assert_eq!(generic.hear(b"INFO {}"), Heard::Nothing);
    }

    #[test]
    fn an_answer_without_arrow_is_refused_with_an_example() {
        assert!(answer("PING").unwrap_err().to_string().contains("=>"));
    }

    #[test]
    fn raw_paths_keep_what_the_address_says() {
        let mut url = Url::parse("ws://h/x/{topic}?a=1").unwrap();
        complete_raw(&mut url, &Settings { latest: true, latest_rate: Some(4.0), ..Settings::default() }, false);
        assert_eq!(url.path, "/x/{topic}?a=1&mode=latest&rate=4");
    }

    #[test]
    fn templates_subscribe_topic_by_topic() {
        let settings = Settings { subscribe: Some(r"SUB {topic} {id}\r\n".into()), ..Settings::default() };
        let mut said = Vec::new();
        dialect(Protocol::Generic, settings).subscribe(&[0, 1], false, &mut |message| said.push(message.to_vec()));
        assert_eq!(said, [b"SUB a 1\r\n".to_vec(), b"SUB b 2\r\n".to_vec()]);
    }
}

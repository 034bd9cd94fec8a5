//! Challenges of those who give certificates out (`--acme-listen`), and the way to https for everybody else, in a thread of its own
//! (`own`), named `acme`.
//!
//! RFC 8555 section 8.3: whoever asks for a certificate for a name shows that it is theirs by a file that is found under that name on
//! port 80. The file is put there by an ACME client (certbot, lego), in the folder that it calls its webroot; here it is only read. Its
//! name is the challenge's token, of letters, digits, `-` and `_`. Nothing else in that folder can be reached, no link is followed in
//! it, and what is no plain file of at most [`BYTES_MAX`] is not there: whoever may write into the folder gets out of it no further
//! than that.

use std::{io, path::PathBuf};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, fstat, openat},
    io::Errno,
};

use super::{
    Control,
    own::{Duty, OwnParts},
    route::{Answer, look},
};
use crate::{
    config::{Config, page},
    http::{Refusal, Request, Response, response::TEXT},
    io::{Edge, epoll::Epoll},
    log::{Kind, tell},
};

/// Where challenges are looked for.
const BEGINNING: &str = "/.well-known/acme-challenge/";

/// The folders of that within the webroot.
const FOLDERS: [&str; 2] = [".well-known", "acme-challenge"];

/// The most bytes of an answer to a challenge, which has some 90.
const BYTES_MAX: usize = 4096;

/// The longest token; those in use have 43 letters.
const TOKEN_MAX: usize = 128;

/// What a challenge is answered from, and where everything else is sent.
pub(super) struct Challenges {
    webroot: PathBuf,
    /// The port of https, where there is any.
    https: Option<u16>,
    /// The port of this address.
    port: u16,
}

impl Control<Epoll> {
    /// The thread for challenges; whatever else is asked there is sent on to this port.
    ///
    /// # Errors
    /// The socket can't be watched.
    pub(crate) fn acme(parts: OwnParts, config: &Config, https: Option<u16>) -> io::Result<Self> {
        let port = parts.socket.local_addr()?.as_socket().map_or(0, |address| address.port());
        let webroot = config.acme_webroot.clone().unwrap_or_default();
        Control::on_its_own(parts, Duty::Challenges(Challenges { webroot, https, port }))
    }
}

impl<E: Edge> Control<E> {
    /// What a request to the address for challenges comes to.
    pub(super) fn route_acme(&self, head: &Request<'_>) -> Result<Answer, Refusal> {
        let Some(Duty::Challenges(challenges)) = self.own.as_ref().map(|own| &own.duty) else { return Err(nothing()) };
        let Some(token) = head.path().strip_prefix(BEGINNING) else { return challenges.send_on(head) };
        look(head)?;
        let (log, metrics) = (&self.context.shared.log, &self.context.shared.metrics);
        let host = head.header("Host").unwrap_or_default();
        match challenges.find(token) {
            Ok(answer) => {
                metrics.challenges_answered.bump();
                tell!(log, Kind::Challenge, self.now, INFO, { host, token }, "a challenge was answered");
                // RFC 8555 section 8.3 recommends the type.
                let answer = Response::new(200).body("application/octet-stream", answer);
                Ok(answer.header("Cache-Control", "no-store").into())
            }
            Err(error) => {
                metrics.challenges_missing.bump();
                let (folder, token) = (challenges.webroot.display(), token.get(..TOKEN_MAX).unwrap_or(token));
                tell!(log, Kind::Challenge, self.now, WARN, { host, token, %folder, %error }, "a challenge is not there");
                Err(nothing())
            }
        }
    }
}

fn nothing() -> Refusal {
    Refusal::new(404, "There is nothing at this path.")
}

impl Challenges {
    /// The answer to a challenge.
    fn find(&self, token: &str) -> io::Result<Vec<u8>> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if token.is_empty() || token.len() > TOKEN_MAX || !token.bytes().all(is_part) {
            return Err(io::Error::other("this is no name of a challenge"));
        }
        let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // That the webroot itself is a link is its owner's own affair.
        let mut within = openat(CWD, &self.webroot, folder, Mode::empty())?;
        for name in FOLDERS {
            within = openat(&within, name, folder | OFlags::NOFOLLOW, Mode::empty())?;
        }
        // A pipe would be waited for.
        let file = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&within, token, file, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("this is no plain file"));
        }
        let mut answer = vec![0; BYTES_MAX + 1];
        let len = read_whole(&file, &mut answer)?;
        if len > BYTES_MAX {
            return Err(io::Error::other("this is too large for a challenge"));
        }
        answer.truncate(len);
        Ok(answer)
    }

    /// The way to the same over https, under the name that was asked for.
    fn send_on(&self, head: &Request<'_>) -> Result<Answer, Refusal> {
        let https = self.https.ok_or_else(nothing)?;
        let host = head.header("Host").ok_or_else(|| Refusal::new(400, "The Host header is missing."))?;
        let (host, port) = page::split(host)
            .ok_or_else(|| Refusal::new(400, "The Host header is not a host with an optional port."))?;
        // Asked for without a port it was port 80. If that isn't the one here, somebody between leads 80 to it, and so 443 to https.
        let is_led = port.is_none() && self.port != 80;
        let port = if https == 443 || is_led { String::new() } else { format!(":{https}") };
        let target = if head.target() == "*" { "/" } else { head.target() };
        let text = "This is at https, to which you are sent on.\n";
        let answer = Response::new(301).header("Location", format!("https://{host}{port}{target}"));
        Ok(answer.body(TEXT, text.as_bytes()).into())
    }
}

/// Fills the buffer as far as there is something.
fn read_whole(file: impl rustix::fd::AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::read(&file, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::parse;

    /// Where a request for `/` under this name is sent.
    fn sent(port: u16, https: Option<u16>, host: &str) -> Result<String, u16> {
        let challenges = Challenges { webroot: PathBuf::new(), https, port };
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let (head, _) = parse(head.as_bytes(), 1024).unwrap().unwrap();
        let answer = challenges.send_on(&head).map_err(|refusal| refusal.status)?;
        let mut text = Vec::new();
        answer.head.write(&mut text, false);
        let text = String::from_utf8(text).unwrap();
        Ok(text.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().to_owned())
    }

    #[test]
    fn the_port_of_https_is_said_where_it_is_another_than_443() {
        assert_eq!(sent(80, Some(443), "a").unwrap(), "https://a/");
        assert_eq!(sent(80, Some(443), "a:80").unwrap(), "https://a/");
        assert_eq!(sent(80, Some(9443), "a").unwrap(), "https://a:9443/");
        assert_eq!(sent(8080, Some(8443), "a:8080").unwrap(), "https://a:8443/");
        assert_eq!(sent(8080, Some(8443), "a").unwrap(), "https://a/", "somebody leads 80 here, and 443 there");
        assert_eq!(sent(80, None, "a"), Err(404), "there is no https");
    }
}

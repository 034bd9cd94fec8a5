//! Signed requests, as Pusher's HTTP API has them: a publication counts where whoever asks knows the application's secret.
//!
//! What is signed is the method, the path and the query, in which are the time and a digest of the body; the signature itself goes last into the
//! query (Pusher Channels, "HTTP API reference", Authentication). Servers take requests that are at most ten minutes old.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Who signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    /// The application's key, which is no secret.
    pub key: String,
    /// Its secret.
    pub secret: String,
}

impl Sign {
    /// The query, with its question mark, of a POST of `body` to `path` at a Unix time in seconds.
    pub fn query(&self, path: &str, body: &[u8], now: u64) -> String {
        let digest = hex(&Md5::digest(body));
        let query = format!("auth_key={}&auth_timestamp={now}&auth_version=1.0&body_md5={digest}", self.key);
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("a key of any length");
        mac.update(format!("POST\n{path}\n{query}").as_bytes());
        format!("?{query}&auth_signature={}", hex(&mac.finalize().into_bytes()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to memory");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_reference_has_its_signature() {
        let sign = Sign { key: "278d425bdf160c739803".into(), secret: "7ad3773142a6692b25b8".into() };
        let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        assert_eq!(
            sign.query("/apps/3/events", body, 1_353_088_179),
            "?auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
             &body_md5=ec365a775a4cd0599faeb73354201b6f\
             &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
        );
    }
}

//! A certificate for trying TLS out, signed by itself: nobody trusts it who wasn't told to.
//!
//! It is kept in a folder, so that whoever has once said yes to it, or was given its file (`curl --cacert`), need not do so again
//! after a restart. It is no authority: who trusts it trusts this server, and nothing that its key could sign.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustix::system::uname;

use super::pair::{self, KeysError, Origin, Pair};

const FLAG: &str = "--tls-self-signed";

/// The file of the certificate, and that of its key.
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// How long it is valid, in seconds. Some clients take no certificate that is valid for much longer than a year.
const VALID: u64 = 365 * 86_400;

/// How much earlier it is valid from, in seconds, for clocks that are behind.
const EARLIER: u64 = 3600;

/// The certificate in this folder, made anew if there is none, or if it has expired.
///
/// # Errors
/// The folder can't be written, or what is there is something else.
pub(super) fn keep(dir: &Path, now: u64) -> Result<Pair, KeysError> {
    let wrong = |error: io::Error| Origin { flag: FLAG, file: dir }.error(error.to_string());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(wrong)?;
    // Of two servers that start at the same time one makes it, and the other finds it. Where there are no locks, that is luck.
    let folder = File::open(dir).map_err(wrong)?;
    let _ = folder.lock();
    if let Some(found) = find(dir, now)? {
        return Ok(found);
    }
    make(dir, now).map_err(wrong)?;
    read(dir, now)
}

/// The certificate in this folder; none if there is none, or if it has expired.
///
/// # Errors
/// What is there is something else.
pub(super) fn find(dir: &Path, now: u64) -> Result<Option<Pair>, KeysError> {
    let [certificate, key] = paths(dir);
    let is_there = |file: &Path| fs::exists(file).is_ok_and(|is_there| is_there);
    // The one without the other is of no use to anybody: who made them ended in between.
    if !is_there(&certificate) || !is_there(&key) {
        return Ok(None);
    }
    match read(dir, now) {
        Err(_) if pair::has_expired(Origin { flag: FLAG, file: &certificate }, now) => Ok(None),
        read => read.map(Some),
    }
}

/// Whether this is the file of a certificate in this folder.
pub(super) fn is_in(dir: &Path, file: &Path) -> bool {
    file == dir.join(CERTIFICATE)
}

fn paths(dir: &Path) -> [PathBuf; 2] {
    [CERTIFICATE, KEY].map(|file| dir.join(file))
}

fn read(dir: &Path, now: u64) -> Result<Pair, KeysError> {
    let [certificate, key] = paths(dir);
    pair::read_as(Origin { flag: FLAG, file: &certificate }, Origin { flag: FLAG, file: &key }, now)
}

fn make(dir: &Path, now: u64) -> io::Result<()> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = params(now).and_then(|params| params.self_signed(&key)).map_err(io::Error::other)?;
    // The key first: a new one beside an expired certificate is made anew as well.
    write(dir, KEY, &key.serialize_pem(), 0o600)?;
    write(dir, CERTIFICATE, &certificate.pem(), 0o644)
}

fn params(now: u64) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names())?;
    let moment = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = moment(now.saturating_sub(EARLIER));
    params.not_after = moment(now.saturating_add(VALID));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Stentor, for trying out");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// What this machine is called by those who are on it, and by its neighbours if they know its name.
fn names() -> Vec<String> {
    let machine = uname().nodename().to_string_lossy().to_ascii_lowercase();
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let is_name = !machine.is_empty() && machine != "localhost" && machine.bytes().all(is_part);
    let machine = is_name.then_some(machine);
    ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into_iter().chain(machine).collect()
}

/// Puts a file there, whole or not at all.
fn write(dir: &Path, name: &str, text: &str, mode: u32) -> io::Result<()> {
    let new = dir.join(format!(".{name}.new"));
    // One that somebody left behind may be readable for others.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, dir.join(name))
}

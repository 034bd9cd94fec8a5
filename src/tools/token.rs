//! `stentor token`: makes keys and tokens for trying out, and says what a token allows.
//!
//! ```text
//!  stentor token --new-key issuer.pem > keys.json              a key; its public part for --jwt-keys
//!  stentor token --key issuer.pem --sub 'q.us.>' --for 1h      a token
//!  stentor token --explain - --jwt-keys keys.json              what one allows, and why it would be refused
//!  stentor token --hash < secret                               what a rights file has of a static token
//! ```
//!
//! It talks to no server. A token that is explained may come by standard input, so that it stands in no history of a shell; so does what is hashed.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::{ArgGroup, Args, ValueEnum};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::{
    access::{Rights, Rules, Shown, Wrong, keys::sha256, sign::Signer},
    clock,
    config::{Config, Span},
};

/// What `stentor token` is told.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("what").required(true).args(["key", "new_key", "explain", "hash"]))]
pub struct Options {
    /// Make a token, signed by this private key: PEM, or a JWK with a secret
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Make a private key, put it into this new file, and print its public part: a JWKS for --jwt-keys
    #[arg(long, value_name = "FILE")]
    pub new_key: Option<PathBuf>,

    /// Say what a token allows, and with --jwt-keys whether it would be taken; - reads it from standard input
    #[arg(long, value_name = "TOKEN|-")]
    pub explain: Option<String>,

    /// Read a static token from standard input, and print its SHA-256, for a rights file
    #[arg(long)]
    pub hash: bool,

    /// With --key: print its public part instead of a token
    #[arg(long, requires = "key", conflicts_with_all = ["sub", "publish", "role", "name"])]
    pub public: bool,

    /// With --new-key: what it signs with; with --key of RSA: PS256 instead of RS256
    #[arg(long, value_name = "ALGORITHM", value_enum)]
    pub alg: Option<Signing>,

    /// What the token's holder may subscribe to; repeat for several
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub sub: Vec<String>,

    /// What it may publish on; repeat for several
    #[arg(long = "pub", value_name = "PATTERN", value_delimiter = ',')]
    pub publish: Vec<String>,

    /// A role of the server's rights file
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,

    /// What the holder is called (`sub` of the token)
    #[arg(long, value_name = "NAME", default_value = "try-out")]
    pub name: String,

    /// How long the token is valid
    #[arg(long = "for", value_name = "DURATION", default_value = "1h")]
    pub length: Span,

    /// Its id, by which it can be revoked alone (`jti`)
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,

    /// Connections at once
    #[arg(long, value_name = "N")]
    pub conns: Option<u32>,

    /// It may do what operators do
    #[arg(long)]
    pub admin: bool,

    /// For whom tokens are (`aud`)
    #[arg(long, value_name = "AUDIENCE", default_value = "stentor")]
    pub jwt_audience: String,

    /// Who issues them (`iss`)
    #[arg(long, value_name = "ISSUER")]
    pub jwt_issuer: Option<String>,

    /// With --explain: the server's keys
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "new_key", "hash"])]
    pub jwt_keys: Option<PathBuf>,

    /// With --explain: the server's rights file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "new_key", "hash"])]
    pub rights: Option<PathBuf>,

    /// With --explain: the server's file of who was revoked
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "new_key", "hash"])]
    pub revoked: Option<PathBuf>,
}

/// What tokens are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "verbatim")]
pub enum Signing {
    /// Ed25519, the default: fast, and short tokens
    EdDSA,
    /// ECDSA with P-256
    ES256,
    /// RSA of 2048 bits
    RS256,
    /// RSA of 2048 bits, PSS
    PS256,
    /// A shared secret: whoever can check tokens can make them
    HS256,
}

impl From<Signing> for Algorithm {
    fn from(signing: Signing) -> Algorithm {
        match signing {
            Signing::EdDSA => Algorithm::EdDSA,
            Signing::ES256 => Algorithm::ES256,
            Signing::RS256 => Algorithm::RS256,
            Signing::PS256 => Algorithm::PS256,
            Signing::HS256 => Algorithm::HS256,
        }
    }
}

/// What came of it: what is to be printed, and whether that is a refusal.
#[derive(Debug)]
pub struct Outcome {
    /// For standard output.
    pub text: String,
    /// The token that was explained would not be taken.
    pub is_refusal: bool,
}

impl From<String> for Outcome {
    fn from(text: String) -> Outcome {
        Outcome { text, is_refusal: false }
    }
}

/// Does what it was told.
///
/// # Errors
/// One line: a file can't be read or written, or has something else in it.
pub fn run(options: &Options) -> Result<Outcome, String> {
    let algorithm = options.alg.map(Algorithm::from);
    if let Some(path) = &options.new_key {
        let (signer, text) = Signer::make(algorithm.unwrap_or(Algorithm::EdDSA))?;
        keep(path, &text).map_err(|error| format!("--new-key {}: {error}", path.display()))?;
        return Ok(signer.jwks().into());
    }
    if let Some(path) = &options.key {
        let named = |error: &dyn std::fmt::Display| format!("--key {}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| named(&error))?;
        let signer = Signer::parse(&text, algorithm).map_err(|error| named(&error))?;
        if options.public {
            return Ok(signer.jwks().into());
        }
        return Ok(format!("{}\n", signer.sign(&claims(options, clock::wall_us() / 1_000_000))?).into());
    }
    if options.hash {
        let hash = sha256(input()?.as_bytes());
        return Ok(hash.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect::<String>().into());
    }
    match options.explain.as_deref() {
        Some("-") => explain(&input()?, options, clock::wall_us()),
        Some(token) => explain(token.trim(), options, clock::wall_us()),
        None => Err("nothing was asked for".into()),
    }
}

/// Puts a private key into a new file that nobody else can read.
fn keep(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A token from standard input, without the end of its line.
fn input() -> Result<String, String> {
    let mut text = String::new();
    io::stdin().take(1 << 20).read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
    let token = text.trim_end_matches(['\r', '\n']);
    if token.is_empty() {
        return Err("standard input: expected a token, found nothing".into());
    }
    Ok(token.to_owned())
}

fn claims(options: &Options, now: u64) -> Value {
    let mut stentor = json!({ "sub": options.sub, "pub": options.publish });
    for (claim, value) in [
        ("role", options.role.as_ref().map(|role| json!(role))),
        ("conns", options.conns.map(|conns| json!(conns))),
        ("admin", options.admin.then_some(Value::Bool(true))),
    ] {
        if let Some(value) = value {
            stentor[claim] = value;
        }
    }
    let expires = now.saturating_add(options.length.get().as_secs());
    let mut claims =
        json!({ "aud": options.jwt_audience, "sub": options.name, "iat": now, "exp": expires, "stentor": stentor });
    for (claim, value) in [("iss", &options.jwt_issuer), ("jti", &options.id)] {
        if let Some(value) = value {
            claims[claim] = json!(value);
        }
    }
    claims
}

/// What a token says, and whether a server with these keys and rights would take it. Nothing of its signature is shown.
fn explain(token: &str, options: &Options, wall_us: u64) -> Result<Outcome, String> {
    let mut text = String::new();
    let parts: Vec<&str> = token.split('.').collect();
    let read =
        |part: &str| URL_SAFE_NO_PAD.decode(part).ok().and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    if let [head, claims, _] = &parts[..] {
        for (name, part) in [("head", head), ("claims", claims)] {
            // Writing to a String can't fail.
            let _ = match read(part) {
                Some(json) => writeln!(text, "{name}: {json}"),
                None => writeln!(text, "{name}: not JSON in base64url"),
            };
        }
    } else {
        text += "It has no three parts, so it is a static token, or none.\n";
    }
    if options.jwt_keys.is_none() && options.rights.is_none() {
        text += "Nobody was asked whether it is genuine: name the server's --jwt-keys, or --rights.\n";
        return Ok(text.into());
    }
    let config = Config {
        jwt_keys: options.jwt_keys.clone(),
        rights: options.rights.clone(),
        revoked: options.revoked.clone(),
        jwt_issuer: options.jwt_issuer.clone(),
        jwt_audience: vec![options.jwt_audience.clone()],
        ..Config::default()
    };
    let (rules, notes) = Rules::read(&config, wall_us).map_err(|error| error.to_string())?;
    for note in notes {
        let _ = writeln!(text, "{note}");
    }
    let judged = rules.holder(Some(&Shown::new(token)), wall_us);
    let is_refusal = judged.is_err();
    let said = match &judged {
        Ok(holder) => {
            let may = rules.now(holder, wall_us);
            let until = may.until_us().map_or("for ever".to_owned(), |until| format!("until {}", moment(until)));
            let _ = writeln!(text, "{} may, {until}:", holder.name().unwrap_or("It"));
            may.parts().for_each(|rights| describe(rights, &mut text));
            "It would be taken.".to_owned()
        }
        Err(wrong) => format!("It would be refused: {}.", reason(wrong)),
    };
    let _ = writeln!(text, "{said}");
    Ok(Outcome { text, is_refusal })
}

fn reason(wrong: &Wrong) -> String {
    match wrong {
        Wrong::Unknown => "no key has signed it, and no entry of the rights file has its hash".into(),
        other => other.to_string(),
    }
}

/// A moment for people, in microseconds since the Unix epoch.
fn moment(wall_us: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_micros(wall_us)) {
        // What comes after the year 9999 can't be written.
        Some(moment) if wall_us < 253_402_300_800_000_000 => humantime::format_rfc3339_seconds(moment).to_string(),
        _ => "a moment that never comes".into(),
    }
}

fn describe(rights: &Rights, text: &mut String) {
    for (what, patterns) in [
        ("subscribe to", &rights.sub),
        ("publish on", &rights.publ),
        ("not yet have, since it is to be delayed:", &rights.delayed),
    ] {
        if !patterns.is_empty() {
            let _ = writeln!(text, "  {what} {}", patterns.iter().collect::<Vec<_>>().join(" "));
        }
    }
    for (pattern, rate) in &rights.rates {
        let _ = writeln!(text, "  have at most {rate} updates a second of {pattern}");
    }
    if rights.latest_only {
        text.push_str("  have newest values only\n");
    }
    if let Some(conns) = rights.conns {
        let _ = writeln!(text, "  have {conns} connections at once");
    }
    if rights.admin {
        text.push_str("  do what operators do\n");
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    fn given(args: &[&str]) -> Result<Options, String> {
        let command = Options::augment_args(Command::new("token"));
        let matches = command.try_get_matches_from(["token"].iter().chain(args)).map_err(|error| error.to_string())?;
        Ok(Options::from_arg_matches(&matches).unwrap())
    }

    fn text(args: &[&str]) -> String {
        run(&given(args).unwrap()).unwrap().text
    }

    #[test]
    fn a_key_makes_tokens_that_its_public_part_takes_and_explains() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for (n, algorithm) in ["EdDSA", "ES256", "RS256", "PS256", "HS256"].into_iter().enumerate() {
            let (key, keys) = (path(&format!("key{n}")), path("keys.json"));
            fs::write(&keys, text(&["--new-key", &key, "--alg", algorithm])).unwrap();
            assert_eq!(text(&["--key", &key, "--public", "--alg", algorithm]), fs::read_to_string(&keys).unwrap());
            let token =
                text(&["--key", &key, "--alg", algorithm, "--sub", "q.us.>,t.>", "--name", "u42", "--conns", "2"]);
            let outcome = run(&given(&["--explain", &token, "--jwt-keys", &keys]).unwrap()).unwrap();
            for said in ["subscribe to q.us.> t.>\n", "u42 may, until 20", "have 2 connections", "It would be taken.\n"]
            {
                assert!(outcome.text.contains(said), "{said}: {}", outcome.text);
            }
            assert!(!outcome.is_refusal && !outcome.text.contains(token.trim().rsplit_once('.').unwrap().1));
            let outcome =
                run(&given(&["--explain", &token, "--jwt-keys", &keys, "--jwt-audience", "b"]).unwrap()).unwrap();
            assert!(outcome.is_refusal && outcome.text.contains("It would be refused: the token is for somebody else"));
            let error = run(&given(&["--new-key", &key]).unwrap()).unwrap_err();
            assert!(error.contains("exists"), "a key that is there is not lost: {error}");
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path("key0")).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn without_keys_it_says_what_a_token_says_and_that_nobody_was_asked() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"u42"}"#);
        let said = text(&["--explain", &format!("{}.{claims}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode("{}"))]);
        assert!(
            said.contains("claims: {\"sub\":\"u42\"}\nNobody was asked") && !said.contains("c2lnbmF0dXJl"),
            "{said}"
        );
        assert!(text(&["--explain", "s3cret"]).contains("no three parts"));
    }

    #[test]
    fn one_thing_is_asked_for_at_a_time() {
        for args in [
            &[][..],
            &["--key", "a", "--hash"],
            &["--sub", "a"],
            &["--key", "a", "--jwt-keys", "b"],
            &["--jwt-keys", "b"],
        ] {
            assert!(given(args).is_err(), "{args:?}");
        }
        let missing = run(&given(&["--key", "/no/such/file"]).unwrap()).unwrap_err();
        assert!(missing.starts_with("--key /no/such/file: No such file"), "{missing}");
    }
}

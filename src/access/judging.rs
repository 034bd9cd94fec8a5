//! Tests of tokens, roles, revocation and what they come to together.

use std::{fs, path::PathBuf, sync::LazyLock};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{sign::Signer, *};
use crate::protocol::command::Mode;

/// When tests are, in seconds since the Unix epoch: in November 2026.
const NOW: u64 = 1_795_900_000;

const ALL: [Algorithm; 5] = [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256, Algorithm::PS256, Algorithm::HS256];

/// One of each kind; made once, since an RSA key takes its time.
static SIGNERS: LazyLock<Vec<Signer>> =
    LazyLock::new(|| ALL.iter().map(|algorithm| Signer::make(*algorithm).unwrap().0).collect());

fn us(seconds: u64) -> u64 {
    seconds * 1_000_000
}

/// Settings with files in a folder of their own.
struct Stage {
    dir: TempDir,
    config: Config,
}

impl Stage {
    /// With the keys of all signers.
    fn new() -> Stage {
        let keys: Vec<Value> =
            SIGNERS.iter().map(|it| serde_json::from_str::<Value>(&it.jwks()).unwrap()["keys"][0].clone()).collect();
        let mut stage = Stage { dir: tempfile::tempdir().unwrap(), config: Config::default() };
        stage.config.jwt_keys = Some(stage.write("keys.json", &json!({ "keys": keys }).to_string()));
        stage
    }

    fn with_rights(mut self, text: &str) -> Stage {
        self.config.rights = Some(self.write("rights.toml", text));
        self
    }

    fn with_revoked(mut self) -> Stage {
        self.config.revoked = Some(self.dir.path().join("revoked"));
        self
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn rules(&self) -> Rules {
        self.config.check().unwrap();
        Rules::read(&self.config, us(NOW)).unwrap().0
    }
}

/// The claims of a good token, with those of `more` in their place or beside.
fn claims(more: Value) -> Value {
    let mut claims = json!({"aud": "stentor", "sub": "u42", "exp": NOW + 60, "stentor": {"sub": ["q.us.>"]}});
    for (name, value) in more.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn token(more: Value) -> String {
    SIGNERS[0].sign(&claims(more)).unwrap()
}

fn show(rules: &Rules, token: &str) -> Result<Holder, Wrong> {
    rules.holder(Some(&Shown::new(token)), us(NOW))
}

/// Somebody with a certificate.
fn certified(rules: &Rules, name: &str, expires: Option<u64>) -> Holder {
    let (name, expires) = (name.to_owned(), expires.unwrap_or(u64::MAX));
    rules.certified(Some(&Certified { name, expires, ..Certified::default() }))
}

/// What is wrong with a token, as it is told.
fn wrong(rules: &Rules, token: &str) -> String {
    show(rules, token).map(|holder| format!("{holder:?} was let in")).unwrap_err().to_string()
}

#[test]
fn a_token_of_each_algorithm_is_taken_and_gives_what_it_says() {
    let rules = Stage::new().rules();
    for signer in SIGNERS.iter() {
        let holder = show(&rules, &signer.sign(&claims(json!({"jti": "7"}))).unwrap()).unwrap();
        let known = holder.known().unwrap();
        assert_eq!((&*known.key.name, known.id.as_deref(), known.expires), ("u42", Some("7"), Some(NOW + 60)));
        let may = rules.now(&holder, us(NOW));
        assert_eq!((may.may_subscribe("q.us.A"), may.may_subscribe("q.eu.A"), may.publishes()), (true, false, false));
        assert_eq!(may.until_us(), Some(us(NOW + 65)), "exp and the leeway");
    }
}

#[test]
fn who_shows_nothing_may_nothing_where_others_have_rights_but_what_is_named_for_everybody() {
    let mut stage = Stage::new();
    let rules = stage.rules();
    assert!(!rules.nobody().subscribes() && !rules.nobody().publishes());
    stage.config.anonymous_subscribe = vec!["t.free.>".into()];
    stage.config.anonymous_publish = true;
    let rules = stage.rules();
    let may = rules.nobody();
    assert_eq!((may.may_subscribe("t.free.A"), may.may_subscribe("q.us.A"), may.may_publish("a")), (true, false, true));
    let plain = Rules::of(&Config { publish_token: Some("s3cret".parse().unwrap()), ..Config::default() });
    assert!(plain.nobody().may_subscribe(">"), "--publish-token alone leaves subscribing open");
    // Names for everybody bound everybody, whatever else there is.
    let named = Rules::of(&Config { anonymous_subscribe: vec!["t.>".into()], ..Config::default() });
    assert!(named.nobody().may_subscribe("t.A") && !named.nobody().may_subscribe("q.A"));
}

#[test]
fn each_thing_that_may_be_wrong_with_a_token_is_told_and_none_is_let_in() {
    let rules = Stage::new().rules();
    let good = token(json!({}));
    assert!(show(&rules, &good).is_ok());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (head, payload) = message.split_once('.').unwrap();
    let other = Signer::make(Algorithm::EdDSA).unwrap().0;
    let kid = |n: usize| serde_json::from_str::<Value>(&SIGNERS[n].jwks()).unwrap()["keys"][0]["kid"].clone();
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = |n: usize, head: Value| SIGNERS[n].sign_as(&head, &claims(json!({}))).unwrap();
    let mut flipped = signature.to_owned();
    flipped.replace_range(..1, if signature.starts_with('A') { "B" } else { "A" });
    for (token, said) in [
        (
            format!("{}.{payload}.", part(&json!({"alg": "none", "kid": kid(0)}).to_string())),
            "signed by \"none\", its key is for EdDSA",
        ),
        (format!("{}.{payload}.{signature}", part(r#"{"alg":"none"}"#)), "it names none (kid), and there are several"),
        // The public key of somebody, taken for a shared secret.
        (signed(4, json!({"alg": "HS256", "kid": kid(2)})), "signed by \"HS256\", its key is for RS256"),
        (signed(2, json!({"alg": "RS256", "kid": kid(3)})), "signed by \"RS256\", its key is for PS256"),
        (signed(0, json!({"alg": "EdDSA", "kid": "no such"})), "key is not known: kid \"no such\""),
        (signed(0, json!({"alg": "EdDSA", "kid": kid(0), "crit": ["exp"]})), "crit"),
        (signed(0, json!({"alg": "EdDSA", "kid": kid(0), "crit": null})), "crit"),
        (other.sign(&claims(json!({}))).unwrap(), "key is not known"),
        (format!("{message}.{flipped}"), "signature is wrong"),
        (format!("{message}."), "signature is wrong"),
        (format!("{message}.{signature}="), "signature is wrong"),
        (format!("{head}.{}.{signature}", part(&claims(json!({"sub": "u1"})).to_string())), "signature is wrong"),
        (token(json!({"exp": null})), "has no exp"),
        (token(json!({"aud": null})), "has no aud"),
        (token(json!({"sub": null})), "has no sub"),
        (token(json!({"exp": NOW - 5})), "has expired, 5 s ago"),
        (token(json!({"exp": 0})), "has expired"),
        (token(json!({"exp": "soon"})), "garbled: its claims: invalid type: string \"soon\""),
        (token(json!({"exp": -1})), "expected seconds since 1970"),
        (token(json!({"exp": 1e300})), "expected seconds since 1970"),
        (token(json!({"nbf": NOW + 6})), "not yet valid, for 1 s more"),
        (token(json!({"aud": "others"})), "for somebody else: its aud has to have stentor"),
        (token(json!({"aud": []})), "for somebody else"),
        (token(json!({"aud": 7})), "garbled"),
        (token(json!({"sub": ""})), "sub: expected 1 to 256 bytes, found 0"),
        (token(json!({"sub": "x".repeat(257)})), "sub: expected 1 to 256 bytes, found 257"),
        (token(json!({"sub": "a\nb"})), "sub: found a control character"),
        (token(json!({"sub": "x".repeat(10_000)})), "too long: expected at most 4096 bytes (--max-token), found "),
        (token(json!({"stentor": {"sub": ["q..a"]}})), "stentor.sub: \"q..a\": an empty segment at byte 2"),
        (token(json!({"stentor": {"pub": ["q.>.a"]}})), "stentor.pub"),
        (token(json!({"stentor": {"rate": {"q.>": 0}}})), "stentor.rate: \"q.>\": expected more than 0"),
        (token(json!({"stentor": {"rate": {"q..": 1}}})), "stentor.rate"),
        (token(json!({"stentor": {"modes": ["some"]}})), "stentor.modes: expected all or latest, found \"some\""),
        (token(json!({"stentor": {"conns": -1}})), "garbled"),
        (token(json!({"stentor": {"until": 1}})), "unknown field `until`"),
        (token(json!({"stentor": {"role": "no such"}})), "role that is not known here: \"no such\""),
        ("a.b.c".into(), "its head is not base64url"),
        (format!("{}.b.c", part("{}")), "its head: missing field `alg`"),
        (format!("{}.b.c", part(r#"{"alg":"EdDSA","alg":"none"}"#)), "duplicate field `alg`"),
        ("a.b.c.d".into(), "not the right one"),
        ("é.é.é".into(), "garbled"),
    ] {
        let found = wrong(&rules, &token);
        assert!(found.contains(said), "expected {said:?}, found {found:?}");
        assert!(!found.contains(signature), "{found}");
    }
    assert!(show(&rules, &token(json!({"exp": NOW - 4}))).is_ok(), "within the leeway");
    assert!(show(&rules, &token(json!({"nbf": NOW + 5}))).is_ok(), "within the leeway");
    assert!(show(&rules, &token(json!({"aud": ["others", "stentor"], "iss": "anybody", "nbf": 1.5}))).is_ok());
}

#[test]
fn where_an_issuer_is_expected_another_is_none() {
    let mut stage = Stage::new();
    stage.config.jwt_issuer = Some("https://id.example".into());
    stage.config.jwt_audience = vec!["a".into(), "b".into()];
    let rules = stage.rules();
    assert!(show(&rules, &token(json!({"iss": "https://id.example", "aud": "b"}))).is_ok());
    let said = wrong(&rules, &token(json!({"iss": "https://id.example.evil", "aud": "b"})));
    assert_eq!(said, "the token was issued by somebody else: its iss has to be https://id.example");
    assert_eq!(wrong(&rules, &token(json!({"aud": "a"}))), "the token has no iss");
    assert!(wrong(&rules, &token(json!({"iss": "https://id.example"}))).contains("a or b"));
}

#[test]
fn a_holder_is_who_vouches_for_it_who_issued_it_and_its_name() {
    let stage = Stage::new()
        .with_rights(&format!("[tokens.u42]\nsha256 = '{}'\n[certificates.u42]\nsub = ['q.>']\n", hex("s3cret")));
    let rules = stage.rules();
    let (one, other) =
        (show(&rules, &token(json!({"iss": "a"}))).unwrap(), show(&rules, &token(json!({"iss": "b"}))).unwrap());
    let again = show(&rules, &token(json!({"iss": "a", "exp": NOW + 90}))).unwrap();
    let (fixed, certificate) = (show(&rules, "s3cret").unwrap(), certified(&rules, "u42", None));
    assert!(one.is_same(&again));
    let all = [&one, &other, &fixed, &certificate, &Holder::Anonymous];
    for (n, holder) in all.iter().enumerate() {
        assert!(all.iter().skip(n + 1).all(|other| !holder.is_same(other)), "{holder:?}");
    }
    assert!(all[..4].iter().all(|holder| holder.name() == Some("u42")));
}

fn hex(token: &str) -> String {
    sha256(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

const RIGHTS: &str = r#"
[roles.pro]
sub = ["q.us.>", "t.us.>"]
rate = { "q.>" = 4, "q.us.A" = 2.5 }
conns = 2

[roles.ops]
admin = true
modes = ["latest"]
sub = ">"

[tokens.desk-7]
sha256 = "SECRET"
role = "pro"
pub = ["n.desk"]
expires = 2026-11-29T12:00:00+01:00

[certificates."feed.example"]
pub = ["q.>"]

[certificates."*"]
sub = ["t.free"]
"#;

fn rights() -> String {
    RIGHTS.replace("SECRET", &hex("s3cret"))
}

#[test]
fn what_a_token_and_its_role_give_adds_up_and_every_bound_of_both_counts() {
    let rules = Stage::new().with_rights(&rights()).rules();
    let holder = show(
        &rules,
        &token(
            json!({"stentor": {"role": "pro", "sub": ["q.*", "q.*.*", "q.*.*.>"], "conns": 5, "rate": {"q.us.>": 3}}}),
        ),
    )
    .unwrap();
    let may = rules.now(&holder, us(NOW));
    assert!(may.may_subscribe("q.>") && may.may_subscribe("t.us.A") && !may.may_subscribe("t.>"));
    assert_eq!(
        (may.rate("q.us.B"), may.rate("q.us.A"), may.rate("q.>"), may.rate("t.us.A")),
        (Some(3.0), Some(2.5), Some(2.5), None)
    );
    assert_eq!((may.conns(), may.is_admin(), may.latest_only()), (Some(2), false, false));
    let told = |names: &[&str], mode, rate| may.check(names.iter().copied(), mode, rate).map_err(|why| why.to_string());
    assert_eq!(told(&["t.us.A"], Mode::All, None), Ok(()));
    assert_eq!(told(&["q.us.B"], Mode::Latest, Some(3.0)), Ok(()));
    assert_eq!(told(&["q.us.B", "x"], Mode::Latest, Some(1.0)), Err("x: you may not subscribe to that".into()));
    let text = "q.us.B: you may have at most 3 updates a second of that: ask for a rate of at most 3";
    assert_eq!(told(&["t.us.A", "q.us.B"], Mode::Latest, Some(3.5)), Err(text.into()));
    assert_eq!(told(&["q.us.B"], Mode::Latest, None), Err(text.into()));
    let text = "q.us.B: you may not have every publication of that: ask for mode latest with a rate of at most 3";
    assert_eq!(told(&["q.us.B"], Mode::All, None), Err(text.into()));
    let ops = show(&rules, &token(json!({"stentor": {"role": "ops"}}))).unwrap();
    let may = rules.now(&ops, us(NOW));
    assert!(may.is_admin() && may.latest_only() && may.may_subscribe(">"));
    assert!(may.check(["a"], Mode::All, None).is_err_and(|why| why.to_string().ends_with("ask for mode latest")));
    assert_eq!(may.check(["a"], Mode::Latest, None), Ok(()));
}

#[test]
fn names_under_a_delay_are_refused_as_long_as_nothing_is_delayed() {
    let rules = Stage::new().rules();
    let holder = show(&rules, &token(json!({"stentor": {"sub": ["q.>"], "delay": {"q.nyse.>": 900}}}))).unwrap();
    let may = rules.now(&holder, us(NOW));
    for (name, expected) in [("q.us.A", true), ("q.nyse.A", false), ("q.*.A", false), ("q.>", false), ("q.*", true)] {
        assert_eq!(may.may_subscribe(name), expected, "{name}");
    }
}

#[test]
fn static_tokens_and_certificates_have_what_the_file_gives_them_until_its_moment() {
    let rules = Stage::new().with_rights(&rights()).rules();
    let desk = show(&rules, "s3cret").unwrap();
    let may = rules.now(&desk, us(NOW));
    assert!(may.may_publish("n.desk") && !may.may_publish("q.a") && may.may_subscribe("q.us.A"));
    // 2026-11-29T11:00:00Z
    assert_eq!(may.until_us(), Some(us(1_795_950_000)));
    assert_eq!(rules.now(&desk, us(1_795_950_000)).ended(), Some(Ended::Expired));
    assert!(!rules.now(&desk, us(1_795_950_000)).may_publish("n.desk"));
    let late = rules.holder(Some(&Shown::new("s3cret")), us(1_795_950_001));
    assert_eq!(late.unwrap_err(), Wrong::Expired { ago: 1 });
    let may = |name: &str, topic: &str| rules.now(&certified(&rules, name, None), us(NOW)).may_publish(topic);
    assert!(may("feed.example", "q.a") && !may("other.example", "q.a"));
    let other = certified(&rules, "other.example", Some(NOW + 1));
    assert!(rules.now(&other, us(NOW)).may_subscribe("t.free"), "what is for every other");
    assert_eq!(rules.now(&other, us(NOW + 1)).ended(), Some(Ended::Expired), "a certificate expires without leeway");
    assert_eq!(wrong(&rules, "s3cre"), "the token is not the right one");
}

#[test]
fn a_token_ends_at_its_moment_and_the_leeway_whatever_the_clock_does() {
    let rules = Stage::new().rules();
    let holder = show(&rules, &token(json!({}))).unwrap();
    let ended = |seconds: u64| rules.now(&holder, us(seconds)).ended();
    assert_eq!(
        [ended(NOW + 64), ended(NOW + 65), ended(u64::MAX / 1_000_000)],
        [None, Some(Ended::Expired), Some(Ended::Expired)]
    );
    // A clock that is set back: the same token at the same time is the same answer.
    assert_eq!([ended(NOW), ended(0)], [None, None]);
    let may = rules.now(&holder, us(NOW + 65));
    assert!(!may.may_subscribe("q.us.A") && !may.subscribes() && may.conns().is_none() && !may.is_admin());
    // One that never ends, as far as numbers go.
    let holder = show(&rules, &token(json!({"exp": 9e15}))).unwrap();
    assert_eq!(rules.now(&holder, us(NOW)).until_us(), Some(u64::MAX));
}

#[test]
fn a_change_of_the_rules_is_judged_for_those_who_are_there() {
    let mut stage = Stage::new().with_rights(&rights());
    let first = stage.rules();
    let held = show(&first, &token(json!({"stentor": {"role": "pro"}}))).unwrap();
    let own = show(&first, &token(json!({}))).unwrap();
    let (desk, feed) = (show(&first, "s3cret").unwrap(), certified(&first, "feed.example", None));
    let all = [&held, &own, &desk, &feed];
    let ended = |rules: &Rules| all.map(|holder| rules.now(holder, us(NOW)).ended());
    // The role shrinks, the desk's token is another one, and the certificate is forgotten.
    stage.write("rights.toml", &format!("[roles.pro]\nsub = ['t.us.>']\n[tokens.desk-7]\nsha256 = '{}'", hex("other")));
    let second = stage.rules().after(&first);
    assert_eq!(ended(&second), [None, None, Some(Ended::Withdrawn), None]);
    assert!(second.now(&held, us(NOW)).may_subscribe("t.us.A") && !second.now(&held, us(NOW)).may_subscribe("q.us.A"));
    assert!(second.now(&own, us(NOW)).may_subscribe("q.us.A"), "what it says itself stays");
    assert!(!second.now(&feed, us(NOW)).publishes());
    let renewed = second.renewed(&held, us(NOW));
    assert!(second.now(&renewed, us(NOW)).may_subscribe("t.us.A") && renewed.is_same(&held));
    let needs = |rules: &Rules| rules.needs_signature(&Shown::new(token(json!({"stentor": {"role": "pro"}}))));
    assert!(!needs(&second), "what was genuine is so still");
    // The role is gone; then the key is.
    stage.write("rights.toml", "");
    let third = stage.rules().after(&second);
    assert!(needs(&third), "it is looked at as a whole again, each time");
    assert_eq!(ended(&third), [Some(Ended::Withdrawn), None, Some(Ended::Withdrawn), None]);
    stage.config.jwt_keys = Some(stage.write("keys.json", &SIGNERS[1].jwks()));
    let fourth = stage.rules().after(&third);
    assert_eq!(ended(&fourth)[1], Some(Ended::Withdrawn));
    assert!(wrong(&fourth, &token(json!({}))).contains("key is not known"), "nor is it taken from the cache");
    // And an audience.
    let mut other = Stage::new();
    other.config.jwt_audience = vec!["others".into()];
    assert_eq!(ended(&other.rules().after(&fourth))[1], Some(Ended::Withdrawn));
}

#[test]
fn who_is_revoked_ends_at_once_wherever_it_was_judged() {
    let stage = Stage::new().with_revoked();
    let rules = stage.rules();
    let there = rules.clone();
    let (one, two) = (token(json!({"jti": "1"})), token(json!({"jti": "2", "sub": "u43", "iss": "a"})));
    let (a, b) = (show(&rules, &one).unwrap(), show(&rules, &two).unwrap());
    let ended = |rules: &Rules| [&a, &b].map(|holder| rules.now(holder, us(NOW)).ended());
    assert_eq!(ended(&there), [None, None]);
    let before = rules.revoked().generation();
    let revoke = |json: &str| rules.revoke(&Revocation::parse(json, NOW + 100).unwrap(), us(NOW)).unwrap();
    assert!(revoke(r#"{"jti":"1"}"#) > before);
    assert_eq!(ended(&there), [Some(Ended::Revoked), None], "by id, in rules that another thread has");
    assert_eq!(wrong(&there, &one), "the token was revoked");
    revoke(r#"{"sub":"u43","iss":"b"}"#);
    assert_eq!(ended(&there)[1], None, "of another issuer");
    revoke(r#"{"sub":"u43"}"#);
    assert_eq!((ended(&there)[1], wrong(&there, &two)), (Some(Ended::Revoked), "the token was revoked".into()));
    assert_eq!(rules.now(&b, us(NOW + 20)).ended(), Some(Ended::Revoked));
    // After a restart, and after a reload.
    assert_eq!(ended(&stage.rules()), [Some(Ended::Revoked); 2]);
    let reloaded = stage.rules().after(&rules);
    assert_eq!(ended(&reloaded), [Some(Ended::Revoked); 2]);
    revoke(r#"{"sub":"u43","until":0}"#);
    assert_eq!([ended(&reloaded)[1], ended(&stage.rules())[1]], [None, None], "lifted");
    // Its moment passes.
    let far = show(&rules, &token(json!({"jti": "1", "exp": NOW + 1000}))).unwrap_err();
    assert_eq!(far, Wrong::Revoked);
    assert_eq!(rules.now(&a, us(NOW + 64)).ended(), Some(Ended::Revoked));
}

#[test]
fn revocations_are_bounded_and_none_is_forgotten_before_its_moment() {
    let revoked = Revoked::new(2);
    let add = |json: &str, now| revoked.add(&Revocation::parse(json, 100).unwrap(), now);
    add(r#"{"jti":"a","until":10}"#, 1).unwrap();
    add(r#"{"jti":"b"}"#, 1).unwrap();
    let full = add(r#"{"jti":"c"}"#, 1).unwrap_err();
    assert!(full.to_string().contains("2 revocations already, which --max-revoked allows"), "{full}");
    add(r#"{"jti":"b","until":90}"#, 1).unwrap();
    add(r#"{"jti":"c"}"#, 10).unwrap();
    assert_eq!(revoked.count(), (2, 2));
}

#[test]
fn what_is_no_revocation_is_refused_with_what_is_expected() {
    for (json, said) in [
        ("", "expected {\"sub\""),
        ("{}", "expected sub or jti, found neither"),
        (r#"{"sub":"a","jti":"b"}"#, "expected either sub or jti, found both"),
        (r#"{"jti":"b","iss":"c"}"#, "iss goes with sub"),
        (r#"{"sub":""}"#, "sub: expected 1 to 256 bytes, found 0"),
        (r#"{"sub":"a","until":-1}"#, "invalid value"),
        (r#"{"sub":"a","untill":1}"#, "unknown field `untill`"),
    ] {
        let error = Revocation::parse(json, 0).unwrap_err();
        assert!(error.contains(said), "{json}: {error}");
    }
    let stage = Stage::new().with_revoked();
    stage.write("revoked", "{\"sub\":\"a\",\"until\":1}\n\n{\"sub\":1}\n");
    let error = Rules::read(&stage.config, us(NOW)).unwrap_err().0;
    assert!(error.contains("revoked:3: ") && error.starts_with("--revoked "), "{error}");
    // A last line that was cut off when it was written.
    let path = stage.write("revoked", "{\"sub\":\"a\",\"until\":1}\n{\"sub\":\"b\",\"un");
    revoked::append(&path, &Revocation::parse(r#"{"sub":"c \"\n","iss":"d"}"#, 7).unwrap()).unwrap();
    let found = || revoked::read(&path).unwrap().iter().map(|one| one.until).collect::<Vec<_>>();
    assert_eq!(found(), [1, 7], "what was cut off is gone");
    stage.write("revoked", r#"{"sub":"a","until":1}"#);
    revoked::append(&path, &Revocation::parse(r#"{"jti":"b"}"#, 8).unwrap()).unwrap();
    assert_eq!(found(), [1, 8], "somebody left out the end of the line");
    stage.write("revoked", "{\"sub\":\"a\",\"until\":1}\n{\"sub\":\"b\",\"un");
    assert_eq!(revoked::read(&path).unwrap().len(), 1);
}

#[test]
fn a_token_in_an_address_is_for_minutes() {
    let mut stage = Stage::new().with_rights(&rights());
    let rules = stage.rules();
    let judge = |rules: &Rules, token: &str| {
        rules.holder(Some(&Shown { text: token.into(), in_address: true }), us(NOW)).map(drop)
    };
    let (short, long) = (token(json!({"exp": NOW + 300})), token(json!({"exp": NOW + 301})));
    assert_eq!((judge(&rules, &short), judge(&rules, &long)), (Ok(()), Err(Wrong::InAddress)));
    assert!(show(&rules, &long).is_ok(), "in a header it is taken");
    assert_eq!(judge(&rules, &long), Err(Wrong::InAddress), "also when it is known already");
    assert_eq!(judge(&rules, "s3cret"), Ok(()), "a static one goes on being taken there");
    stage.config.token_in_url = true;
    assert_eq!(judge(&stage.rules(), &long), Ok(()));
}

#[test]
fn a_signature_is_checked_once_for_those_who_come_again() {
    let mut stage = Stage::new();
    stage.config.token_cache = 4;
    let rules = stage.rules();
    let tokens: Vec<String> = (0..6).map(|n| token(json!({"sub": format!("u{n}")}))).collect();
    let needs = |token: &str| rules.needs_signature(&Shown::new(token));
    assert!(needs(&tokens[0]) && !needs("s3cret") && !needs(&"x.y.".repeat(2000)));
    let first = show(&rules, &tokens[0]).unwrap();
    let again = show(&rules, &tokens[0]).unwrap();
    assert!(Arc::ptr_eq(first.known().unwrap(), again.known().unwrap()) && !needs(&tokens[0]));
    for token in &tokens {
        show(&rules, token).unwrap();
        show(&rules, "a.b.c").unwrap_err();
        assert!(rules.seen().0 <= 4);
    }
    assert!(needs(&tokens[0]) && !needs(&tokens[5]));
    // What is known is judged all the same.
    assert!(
        rules.holder(Some(&Shown::new(&*tokens[5])), us(NOW + 65)).is_err_and(|why| why == Wrong::Expired { ago: 5 })
    );
    stage.config.token_cache = 0;
    let rules = stage.rules();
    show(&rules, &tokens[0]).unwrap();
    assert!(rules.needs_signature(&Shown::new(&*tokens[0])) && rules.seen() == (0, 0));
}

#[test]
fn as_many_tokens_as_there_is_room_for_are_remembered_in_whatever_order_they_come() {
    let mut stage = Stage::new();
    stage.config.token_cache = 100;
    let rules = stage.rules();
    let all: Vec<String> = (0..100).map(|n| token(json!({"jti": n.to_string()}))).collect();
    let needs = |token: &str| rules.needs_signature(&Shown::new(token));
    all.iter().for_each(|token| drop(show(&rules, token).unwrap()));
    for _ in 0..3 {
        assert!(!all.iter().any(|token| needs(token)), "one after the other, again and again");
        assert!(!all.iter().rev().any(|token| needs(token)));
    }
    // One more pushes out older ones, and never more than there is room for are there.
    show(&rules, &token(json!({"jti": "more"}))).unwrap();
    let (remembered, most) = rules.seen();
    assert!((51..=100).contains(&remembered) && most == 100, "{remembered}");
}

#[test]
fn a_jwks_that_is_broken_is_told_with_its_line_and_key() {
    let short = URL_SAFE_NO_PAD.encode([7; 31]);
    let good = SIGNERS[0].jwks();
    let one: Value = serde_json::from_str::<Value>(&good).unwrap()["keys"][0].clone();
    let two = |key: Value| json!({"keys": [one, key]}).to_string();
    let rsa = |bytes: usize| {
        json!({"keys": [{"kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode(vec![0xff; bytes]), "e": "AQAB"}]})
            .to_string()
    };
    for (text, said) in [
        ("".into(), "line 1: expected a JWKS"),
        ("{\"keys\":[\n{\"kty\":\"OKP\",}]}".into(), "line 2: expected a JWKS"),
        ("{\"keys\":[]}".into(), "expected at least one key for signatures, found none"),
        ("{\"keys\":[\n\n{\"kty\":\"OKP\",\"crv\":\"Ed25519\"}]}".into(), "line 3: key 1: x is missing"),
        ("[]".into(), "expected a JWKS"),
        (two(json!({"kty": "oct", "kid": "s", "k": short})), "key 2: k: expected 32 to 1024 bytes, found 31"),
        (two(json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode([7; 32])})), "a key has no kid"),
        (two(one.clone()), "there is one with the kid "),
        (
            two(json!({"kty": "OKP", "crv": "Ed25519", "kid": "p", "x": one["x"], "d": one["x"]})),
            "key 2: it is private (d)",
        ),
        (two(json!({"kty": "OKP", "crv": "Ed25519", "kid": "p", "x": "AA=="})), "x is not base64url"),
        (
            two(json!({"kty": "EC", "crv": "P-256", "kid": "p", "x": one["x"], "y": "AA"})),
            "y: expected 32 bytes, found 1",
        ),
        (two(json!({"kid": "p"})), "key 2: missing field `kty`"),
        (rsa(255), "expected an RSA key of 2048 to 8192 bits, found 2040"),
        (rsa(1025), "found 8200"),
        (json!({"keys": vec![json!({}); 65]}).to_string(), "expected at most 64 keys, found 65"),
        (
            json!({"keys": [{"kty": "RSA", "use": "enc"}]}).to_string(),
            "found none: line 1: key 1 is left out: its use is not sig",
        ),
    ] {
        let error = Keys::parse(&text).unwrap_err();
        assert!(error.contains(said), "expected {said:?}, found {error:?}");
        assert!(!error.contains(&short), "{error}");
    }
    let mut many = one.clone();
    many["kid"] = "other".into();
    let set = json!({"keys": [one, many, {"kty": "EC", "crv": "P-384"}, {"kty": "RSA", "alg": "RSA-OAEP", "n": one["x"], "e": "AQAB"}]});
    let set = json!({"keys": [set["keys"][0], set["keys"][1], set["keys"][2], {"kty": "AKP"}]});
    let keys = Keys::parse(&set.to_string()).unwrap();
    assert_eq!((keys.iter().count(), keys.left_out.len()), (2, 2));
    assert!(keys.left_out[0].contains("EC P-384 is none of OKP Ed25519"), "{:?}", keys.left_out);
}

#[test]
fn where_there_is_one_key_a_token_needs_to_name_none() {
    let mut stage = Stage::new();
    stage.config.jwt_keys = Some(stage.write("keys.json", &SIGNERS[1].jwks()));
    let rules = stage.rules();
    assert!(show(&rules, &SIGNERS[1].sign_as(&json!({"alg": "ES256"}), &claims(json!({}))).unwrap()).is_ok());
}

#[test]
fn a_mistake_in_the_rights_file_is_told_with_its_line_and_nothing_secret_is_shown() {
    for (text, said) in [
        ("[roles.pro", "1: not TOML: "),
        ("\nroles = 1", "2: roles: expected a table"),
        ("[rolls.pro]\nsub = []", "1: rolls: expected roles, tokens or certificates"),
        ("[roles.pro]\nsub = ['q.us.>', 'q..a']", "2: roles.pro: sub: q..a: an empty segment at byte 2"),
        ("[roles.pro]\nsubs = []", "2: roles.pro: subs: expected sub, pub, delay, rate, modes, conns or admin"),
        ("[roles.pro]\nrate = { 'q.>' = 0 }", "2: roles.pro: rate: q.>: expected a number for each pattern"),
        ("[roles.pro]\nrate = { 'q.>' = inf }", "2: roles.pro: rate: q.>: expected a number for each pattern"),
        ("[roles.pro]\nconns = 0", "2: roles.pro: conns: expected a number from 1"),
        ("[roles.pro]\nadmin = 'yes'", "2: roles.pro: admin: expected true or false"),
        ("[roles.pro]\nmodes = []", "2: roles.pro: modes: expected all or latest, found none"),
        ("[tokens.a]\nrole = 'pro'", "1: tokens.a: has no sha256"),
        (
            "[tokens.a]\nsha256 = 's3cret'",
            "2: tokens.a: sha256: expected the SHA-256 of the token, 64 hexadecimal digits",
        ),
        ("[certificates.a]\nrole = 'pro'", "2: certificates.\"a\": role: there is no [roles.pro]"),
        ("[certificates.a]\nsha256 = ''", "2: certificates.\"a\": sha256: expected role, expires, sub"),
        ("[certificates.a]\nexpires = 2026-11-29", "2: certificates.\"a\": expires: expected a moment like"),
        ("[certificates.a]\nexpires = 2026-11-29T12:00:00", "2: certificates.\"a\": expires: expected a moment like"),
        ("[certificates.a]\nexpires = 'soon'", "2: certificates.\"a\": expires: expected a moment like"),
        ("certificates.a = 1", "1: certificates.a: expected a table"),
    ] {
        let mistakes = File::parse(text).unwrap_err();
        let found: Vec<String> = mistakes.iter().map(|(line, why)| format!("{line}: {why}")).collect();
        assert!(found.len() == 1 && found[0].starts_with(said), "{text:?}: expected {said:?}, found {found:?}");
        assert!(!found[0].contains("s3cret"));
    }
    let twice = format!("[tokens.a]\nsha256 = '{0}'\n[tokens.b]\nsha256 = '{0}'", hex("x"));
    assert!(File::parse(&twice).unwrap_err()[0].1.contains("same sha256 as tokens.a"));
    let stage = Stage::new().with_rights("[roles.a]\nx = 1\n[roles.b]\ny = 1\n");
    let error = Rules::read(&stage.config, us(NOW)).unwrap_err().0;
    assert_eq!(
        error.lines().filter(|line| line.starts_with("--rights ") && line.contains("rights.toml:")).count(),
        2,
        "{error}"
    );
}

#[test]
fn a_hundred_thousand_holders_are_read_and_found() {
    let mut text = String::from("[roles.pro]\nsub = ['q.us.>']\n");
    for n in 0..100_000 {
        text += &format!("[tokens.u{n}]\nsha256 = '{}'\nrole = 'pro'\n", hex(&format!("secret {n}")));
    }
    let rules = Stage::new().with_rights(&text).rules();
    assert_eq!(rules.counts().1, [1, 100_000, 0]);
    for n in [0, 41_234, 99_999] {
        let holder = show(&rules, &format!("secret {n}")).unwrap();
        assert_eq!(holder.name(), Some(format!("u{n}").as_str()));
        assert!(rules.now(&holder, us(NOW)).may_subscribe("q.us.A"));
    }
    assert!(show(&rules, "secret 100000").is_err());
}

#[test]
fn no_secret_is_shown_by_what_is_printed_of_the_rules() {
    let mut stage = Stage::new().with_rights(&rights());
    stage.config.publish_token = Some("hunter2".parse().unwrap());
    let rules = stage.rules();
    let held = token(json!({}));
    let holder = show(&rules, &held).unwrap();
    let printed = format!("{rules:?} {holder:?} {:?}", stage.config);
    let secret: Value = serde_json::from_str(&SIGNERS[4].jwks()).unwrap();
    for secret in ["hunter2", held.rsplit_once('.').unwrap().1, secret["keys"][0]["k"].as_str().unwrap()] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
}

#[test]
fn a_signer_reads_what_it_has_written_and_openssl_too() {
    for algorithm in ALL {
        let (made, text) = Signer::make(algorithm).unwrap();
        let read = Signer::parse(&text, Some(algorithm)).unwrap();
        assert_eq!((made.jwks(), read.algorithm()), (read.jwks(), algorithm));
        if algorithm != Algorithm::HS256 {
            assert!(!made.jwks().contains("\"d\"") && text.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        }
    }
    for wrong in
        ["", "{}", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", r#"{"kty":"oct","k":"c2hvcnQ"}"#]
    {
        assert!(
            Signer::parse(wrong, None).is_err_and(|why| why.starts_with("expected a private key in PEM")),
            "{wrong}"
        );
    }
    let (_, text) = Signer::make(Algorithm::ES256).unwrap();
    assert!(
        Signer::parse(&text, Some(Algorithm::RS256)).is_err_and(|why| why == "the key is for ES256, and not for RS256")
    );
}

#[test]
fn who_is_revoked_without_a_moment_is_so_for_a_day_or_until_the_last_token_that_is_known_expires() {
    let mut stage = Stage::new();
    stage.config.token_cache = 10;
    let rules = stage.rules();
    let long = NOW + 40 * 86_400;
    for (sub, jti, exp) in [("u1", "brief", NOW + 60), ("u1", "long", long), ("u2", "other", NOW + 60)] {
        show(&rules, &token(json!({"sub": sub, "jti": jti, "exp": exp}))).unwrap();
    }
    let until = |json: &str| Revocation::parse_or(json, |whom| rules.revoked_until(whom, us(NOW))).unwrap().until;
    assert_eq!(until(r#"{"jti":"brief"}"#), NOW + 86_400, "another issuer's may have that id");
    assert_eq!(until(r#"{"jti":"long"}"#), long + 300, "its exp, and the longest leeway");
    assert_eq!(until(r#"{"jti":"unknown"}"#), NOW + 86_400);
    assert_eq!(until(r#"{"sub":"u1"}"#), long + 300, "all of its tokens");
    assert_eq!(until(r#"{"sub":"u1","iss":"elsewhere"}"#), NOW + 86_400);
    assert_eq!(until(r#"{"sub":"u2"}"#), NOW + 86_400, "others of that name may be about");
    assert_eq!(until(r#"{"jti":"long","until":7}"#), 7);
    show(&rules, &token(json!({"sub": "u3", "iss": "a", "exp": long}))).unwrap();
    let of = |issuer: &str| until(&json!({"sub": "u3", "iss": issuer}).to_string());
    assert_eq!((until(r#"{"sub":"u3"}"#), of("a"), of("b")), (long + 300, long + 300, NOW + 86_400));
    // What was pushed out isn't known any more.
    (0..20).for_each(|n| drop(show(&rules, &token(json!({"sub": format!("v{n}")}))).unwrap()));
    assert_eq!((until(r#"{"sub":"u1"}"#), until(r#"{"jti":"long"}"#)), (NOW + 86_400, NOW + 86_400));
    assert!(rules.seen().0 <= 10);
}

#[test]
fn an_id_that_two_issuers_use_is_revoked_for_both_of_their_tokens_for_as_long_as_they_may_last() {
    let rules = Stage::new().rules();
    let of = |issuer: &str, exp: u64| token(json!({"iss": issuer, "jti": "42", "exp": exp}));
    show(&rules, &of("a", NOW + 60)).unwrap();
    let other = of("b", NOW + 7200);
    let one = Revocation::parse_or(r#"{"jti":"42"}"#, |whom| rules.revoked_until(whom, us(NOW))).unwrap();
    rules.revoke(&one, us(NOW)).unwrap();
    let later = rules.holder(Some(&Shown::new(&*other)), us(NOW + 7000)).unwrap_err();
    assert_eq!(later, Wrong::Revoked, "the one that was seen is long over");
}

#[test]
fn a_file_of_the_revoked_is_written_anew_without_what_counts_no_more() {
    let stage = Stage::new().with_revoked();
    let path = stage.config.revoked.clone().unwrap();
    let line = |sub: &str, until: u64| format!("{{\"sub\":\"{sub}\",\"until\":{until}}}\n");
    let mut text: String = (0..600).map(|n| line(&format!("gone-{n}"), NOW - 90_000)).collect();
    text += &(0..500).map(|_| line("again", NOW + 50)).collect::<String>();
    text += &line("lifted", NOW + 50);
    text += &line("lifted", 0);
    text += &line("just-past", NOW - 10);
    fs::write(&path, format!("{text}{{\"sub\":\"begun")).unwrap();
    stage.rules().compact_revoked(us(NOW));
    assert!(fs::read_to_string(&path).unwrap().ends_with("begun"), "somebody may be about to write the rest of it");
    fs::write(&path, &text).unwrap();
    let mode =
        |path: &std::path::Path| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions());
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let (mode_before, rules) = (mode(&path), stage.rules());
    rules.compact_revoked(us(NOW));
    let kept = line("again", NOW + 50) + &line("just-past", NOW - 10);
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        kept,
        "a clock may have been set forward by mistake, and is set back"
    );
    assert_eq!(mode(&path), mode_before);
    assert_eq!(fs::read_dir(stage.dir.path()).unwrap().count(), 2, "nothing is left beside it");
    // At a reload as well; what is little, or counts, stays as somebody has written it.
    rules.compact_revoked(us(NOW));
    assert_eq!(fs::read_to_string(&path).unwrap(), kept);
    fs::write(&path, &text).unwrap();
    let again = stage.rules().after(&rules);
    assert_eq!(fs::read_to_string(&path).unwrap(), kept);
    assert_eq!(again.revoked().count().0, 1);
    let counts: String = (0..2000).map(|n| line(&format!("u{n}"), NOW + 50)).collect();
    fs::write(&path, &counts).unwrap();
    rules.compact_revoked(us(NOW));
    assert_eq!(fs::read_to_string(&path).unwrap(), counts);
}

/// Lines that count no more, enough of them for the file to be written anew.
fn over() -> String {
    (0..1000).map(|n| format!("{{\"sub\":\"gone-{n}\",\"until\":{}}}\n", NOW - 90_000)).collect()
}

#[test]
fn a_file_that_is_written_anew_keeps_its_owner_and_nothing_else_is_written_to() {
    let stage = Stage::new().with_revoked();
    let path = stage.config.revoked.clone().unwrap();
    fs::write(&path, over()).unwrap();
    let owner = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (std::os::unix::fs::MetadataExt::uid(&found), std::os::unix::fs::MetadataExt::gid(&found))
    };
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(1234), Some(5678)).unwrap();
    }
    let (before, rules) = (owner(&path), stage.rules());
    // Somebody has put a link there, which leads to what the server may write to.
    let other = stage.write("other", "precious");
    let beside = stage.dir.path().join("revoked.new");
    std::os::unix::fs::symlink(&other, &beside).unwrap();
    rules.compact_revoked(us(NOW));
    assert_eq!(
        (fs::read_to_string(&path).unwrap(), fs::read_to_string(&other).unwrap()),
        ("".into(), "precious".into())
    );
    assert_eq!((owner(&path), beside.exists()), (before, false));
    // While somebody else has its lock it stays as it is.
    fs::write(&path, over()).unwrap();
    let locked = fs::File::open(&path).unwrap();
    rustix::fs::flock(&locked, rustix::fs::FlockOperation::LockExclusive).unwrap();
    rules.compact_revoked(us(NOW));
    assert_eq!(fs::read_to_string(&path).unwrap(), over());
    drop(locked);
    rules.compact_revoked(us(NOW));
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
}

#[test]
fn a_line_that_another_process_appends_is_there_however_often_the_file_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("revoked");
    let one = |n: u64| Revocation { whom: Whom::Id(n.to_string().into()), until: NOW + 60 };
    // Each line but the first is appended while the file is written anew for the one before.
    let (told, written) = std::sync::mpsc::sync_channel(0);
    std::thread::scope(|scope| {
        let (path, one) = (&path, &one);
        scope.spawn(move || {
            for n in 0..50 {
                // While it is written anew somebody else has its lock: then it is tried again.
                while let Err(error) = revoked::append(path, &one(n)) {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                }
                told.send(()).unwrap();
            }
        });
        for () in written {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            // Whoever doesn't ask for the lock may come too late.
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
            io::Write::write_all(&mut file, over().as_bytes()).unwrap();
            drop(file);
            revoked::compact(path, NOW).unwrap();
        }
    });
    let all = revoked::read(&path).unwrap();
    let kept: Vec<u64> = all
        .iter()
        .filter_map(|one| match &one.whom {
            Whom::Id(id) => Some(id.parse().unwrap()),
            Whom::Name { .. } => None,
        })
        .collect();
    assert_eq!(kept, (0..50).collect::<Vec<u64>>());
}

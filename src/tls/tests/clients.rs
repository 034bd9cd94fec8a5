//! Certificates that clients show: whose they are, when they are good, and that no ticket makes one good that isn't any more.

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SanType, SerialNumber, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;

use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::*;
use crate::{certified::Id, config::ClientAuth};

/// An authority of the test's own with an intermediate one, a server's certificate, and what is configured of them.
struct World {
    folder: Folder,
    root: Authority,
    between: Authority,
    server: [PathBuf; 2],
}

/// A certificate for a client with the chain behind it, and its key.
struct Mine {
    chain: Vec<CertificateDer<'static>>,
    key: String,
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

/// So many days from now.
macro_rules! day {
    ($days:expr) => {
        date_time_ymd(1970, 1, 1) + Duration::from_secs(now().checked_add_signed(i64::from($days) * 86_400).unwrap())
    };
}

impl World {
    fn new() -> World {
        let (folder, root) = (Folder::new(), authority());
        let between = intermediate(&root);
        let made = made(&root, &["localhost"]);
        let server = [folder.write("cert", &made.cert), folder.write("key", &made.key)];
        folder.write("ca", &root.pem());
        World { folder, root, between, server }
    }

    fn config(&self, change: impl FnOnce(&mut Config)) -> Config {
        let mut config = config(&[(&self.server[0], &self.server[1])]);
        config.tls_client_ca = Some(self.folder.0.join("ca"));
        change(&mut config);
        config
    }

    fn keys(&self, change: impl FnOnce(&mut Config)) -> Keys {
        Keys::load(&self.config(change)).unwrap().unwrap()
    }

    /// A certificate of the intermediate authority, with these names, this serial number, valid for so many days.
    fn mine(&self, names: &[SanType], serial: u64, days: i32) -> Mine {
        let mut params = params(&[]);
        params.subject_alt_names = names.to_vec();
        params.serial_number = Some(SerialNumber::from(serial));
        (params.not_before, params.not_after) = (day!(-1), day!(days));
        let made = sign(&params, KeyPair::generate().unwrap(), &self.between);
        Mine { chain: vec![der(&made.cert), der(&self.between.pem())], key: made.key }
    }

    /// Lists of both authorities, of which the intermediate one's has these serial numbers, and is to be replaced in so many days.
    fn lists(&self, revoked: &[u64], days: i32) -> String {
        let list = |serials: &[u64], by: &Authority| {
            let revoked = |serial: &u64| RevokedCertParams {
                serial_number: SerialNumber::from(*serial),
                revocation_time: day!(-1),
                reason_code: None,
                invalidity_date: None,
            };
            let params = CertificateRevocationListParams {
                this_update: day!(-10),
                next_update: day!(days),
                crl_number: SerialNumber::from(1u64),
                issuing_distribution_point: None,
                revoked_certs: serials.iter().map(revoked).collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            params.signed_by(by).unwrap().pem().unwrap()
        };
        list(revoked, &self.between) + &list(&[], &self.root)
    }

    fn client(&self, mine: Option<&Mine>, version: &'static SupportedProtocolVersion) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(der(&self.root.pem())).unwrap();
        let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        let config = config.with_root_certificates(roots);
        let config = match mine {
            Some(Mine { chain, key }) => {
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain.clone(), key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        Client { config, name: "localhost".to_owned() }
    }
}

/// Whose certificate a client has shown, and by which handshake; or why it was refused.
fn meet(client: &Client, keys: &Keys) -> Result<(Option<Certified>, HandshakeKind), String> {
    let name = ServerName::try_from(client.name.clone()).unwrap();
    let mut there = ClientConnection::new(Arc::new(client.config.clone()), name).unwrap();
    let terms = keys.terms().get();
    let mut here = ServerConnection::new(Arc::clone(&terms.config)).unwrap();
    let (mut out, mut back) = (Vec::new(), Vec::new());
    while there.is_handshaking() || here.is_handshaking() || there.wants_write() || here.wants_write() {
        there.write_tls(&mut out).unwrap();
        here.read_tls(&mut &*std::mem::take(&mut out)).unwrap();
        here.process_new_packets().map_err(|error| error.to_string())?;
        here.write_tls(&mut back).unwrap();
        there.read_tls(&mut &*std::mem::take(&mut back)).unwrap();
        there.process_new_packets().map_err(|error| format!("the client: {error}"))?;
    }
    let judged = terms.judge(here.peer_certificates()).map_err(|error| error.to_string())?;
    Ok((judged, here.handshake_kind().unwrap()))
}

/// What tells a certificate from all others.
fn id_of(der: &CertificateDer<'_>) -> Id {
    let (_, parsed) = X509Certificate::from_der(der).unwrap();
    Id::of_certificate(parsed.issuer().as_raw(), parsed.raw_serial())
}

/// What an authority is known by.
fn named(authority: &Authority) -> Id {
    let der = der(&authority.pem());
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    Id::of_authority(parsed.subject().as_raw())
}

/// Another authority of this name.
fn stranger(name: &str) -> Authority {
    CertifiedIssuer::self_signed(authority_params(name), KeyPair::generate().unwrap()).unwrap()
}

/// Whether a certificate was refused because a list is out of date.
fn is_old_list(why: &str) -> bool {
    why.to_lowercase().replace(' ', "").contains("revocationlist")
}

fn name(met: &Result<(Option<Certified>, HandshakeKind), String>) -> Option<&str> {
    met.as_ref().unwrap().0.as_ref().map(|certified| certified.name.as_str())
}

#[test]
fn a_certificate_names_its_holder_in_a_full_and_in_a_resumed_handshake_of_either_version() {
    let world = World::new();
    let keys = world.keys(|_| {});
    for version in [&TLS13, &TLS12] {
        for (san, holder) in
            [(dns("Feed.Example.com"), "feed.example.com"), (uri("spiffe://Example/Feed"), "spiffe://Example/Feed")]
        {
            let mine = world.mine(&[san], 7, 30);
            let client = world.client(Some(&mine), version);
            let (first, again) = (meet(&client, &keys), meet(&client, &keys));
            assert_eq!((name(&first), first.as_ref().unwrap().1), (Some(holder), HandshakeKind::Full));
            assert_eq!((name(&again), again.as_ref().unwrap().1), (Some(holder), HandshakeKind::Resumed));
            let expires = first.unwrap().0.unwrap().expires;
            assert!(expires.abs_diff(now() + 30 * 86_400) < 100, "{expires}");
        }
    }
}

#[test]
fn a_certificate_without_one_name_is_refused_in_the_handshake_and_told_why() {
    let world = World::new();
    let keys = world.keys(|_| {});
    let long = "x".repeat(256);
    for (names, said) in [
        (&[][..], "names nobody"),
        (&[SanType::IpAddress("192.0.2.1".parse().unwrap())], "names nobody"),
        (&[dns("a.example"), dns("b.example")], "found 2"),
        (&[dns("a.example"), uri("spiffe://a")], "found 2"),
        (&[dns("a.example"), dns("a.example")], "found 2"),
        (&[uri("spiffe://a/ b")], "visible ASCII"),
        (&[uri(&long)], "visible ASCII"),
    ] {
        let mine = world.mine(names, 7, 30);
        let refused = meet(&world.client(Some(&mine), &TLS13), &keys).unwrap_err();
        assert!(refused.contains("invalid peer certificate"), "{refused}");
        let judge =
            Clients::read(&ClientSources::of(&world.config(|_| {})).unwrap(), &provider(), now()).unwrap().judge;
        let Err(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(why)))) =
            judge.judge(Some(&mine.chain), now())
        else {
            panic!("{names:?} should name nobody");
        };
        assert!(why.to_string().contains(said), "{names:?}: {why}");
    }
    let both = [dns("a.example"), SanType::Rfc822Name("a@b.example".try_into().unwrap())];
    assert_eq!(name(&meet(&world.client(Some(&world.mine(&both, 7, 30)), &TLS13), &keys)), Some("a.example"));
}

#[test]
fn who_shows_none_is_refused_where_one_is_required_and_nobody_where_one_is_asked_for() {
    let world = World::new();
    let (required, asked) = (world.keys(|_| {}), world.keys(|config| config.tls_client_auth = ClientAuth::Request));
    for version in [&TLS13, &TLS12] {
        let client = world.client(None, version);
        assert!(meet(&client, &required).is_err_and(|why| why.contains("no certificates")));
        assert_eq!(name(&meet(&client, &asked)), None);
        let mine = world.mine(&[dns("a.example")], 7, 30);
        assert_eq!(name(&meet(&world.client(Some(&mine), version), &asked)), Some("a.example"));
    }
    // Of an authority that nobody knows, it is refused where none is needed as well.
    let other = World::new();
    let stranger = other.mine(&[dns("a.example")], 7, 30);
    let mut client = world.client(Some(&stranger), &TLS13);
    client.name = "localhost".into();
    for keys in [&required, &asked] {
        assert!(meet(&client, keys).is_err());
    }
}

#[test]
fn what_was_taken_back_is_refused_wherever_in_the_chain_and_a_list_that_is_missing_or_old_says_nothing() {
    let world = World::new();
    let with = |lists: &str| {
        let file = world.folder.write("crl", lists);
        world.keys(|config| config.tls_client_crl = vec![file])
    };
    let mine = world.mine(&[dns("a.example")], 7, 30);
    let met = |keys: &Keys| meet(&world.client(Some(&mine), &TLS13), keys);
    assert_eq!(name(&met(&with(&world.lists(&[8], 10)))), Some("a.example"));
    assert!(met(&with(&world.lists(&[7], 10))).is_err_and(|why| why.contains("Revoked")));
    let old = with(&world.lists(&[8], -1));
    assert!(met(&old).is_err_and(|why| is_old_list(&why)), "{:?}", met(&old));
    assert!(old.lists().iter().any(|(_, next)| *next < now()));
    // Only one of both has a list.
    let all = world.lists(&[], 10);
    let end = "-----END X509 CRL-----\n";
    let first = all.split_inclusive(end).next().unwrap();
    let last = all.split_inclusive(end).nth(1).unwrap();
    for lists in [first, last] {
        assert!(met(&with(lists)).is_err_and(|why| why.contains("UnknownRevocationStatus")), "for the whole chain");
    }
}

#[test]
fn tickets_go_on_while_nothing_changes_by_which_they_were_given_and_not_beyond() {
    let world = World::new();
    let file = world.folder.write("crl", &world.lists(&[], 10));
    let config = world.config(|config| config.tls_client_crl = vec![file.clone()]);
    let keys = Keys::load(&config).unwrap().unwrap();
    for version in [&TLS13, &TLS12] {
        world.folder.write("crl", &world.lists(&[], 10));
        keys.reload(&config).unwrap();
        let mine = world.mine(&[dns("a.example")], 7, 30);
        let client = world.client(Some(&mine), version);
        let kind = |keys: &Keys| meet(&client, keys).map(|(_, kind)| kind);
        assert_eq!(kind(&keys), Ok(HandshakeKind::Full));
        assert_eq!(kind(&keys), Ok(HandshakeKind::Resumed));
        // Another certificate of the server's is no reason.
        let other = made(&world.root, &["localhost"]);
        world.folder.write("cert", &other.cert);
        world.folder.write("key", &other.key);
        keys.reload(&config).unwrap();
        assert_eq!(kind(&keys), Ok(HandshakeKind::Resumed));
        world.folder.write("crl", &world.lists(&[8], 10));
        keys.reload(&config).unwrap();
        assert_eq!(kind(&keys), Ok(HandshakeKind::Full), "another list");
        assert_eq!(kind(&keys), Ok(HandshakeKind::Resumed));
        world.folder.write("crl", &world.lists(&[7], 10));
        keys.reload(&config).unwrap();
        assert!(kind(&keys).is_err_and(|why| why.contains("Revoked")));
        // A mistake leaves what was there.
        world.folder.write("crl", "nothing of the kind");
        let error = keys.reload(&config).unwrap_err().to_string();
        assert!(error.starts_with("--tls-client-crl ") && error.contains("it holds no list"), "{error}");
        assert!(kind(&keys).is_err_and(|why| why.contains("Revoked")));
    }
    // Who isn't asked any more is nobody.
    keys.reload(&Config { tls_client_ca: None, tls_client_crl: Vec::new(), ..config.clone() }).unwrap();
    let mine = world.mine(&[dns("a.example")], 7, 30);
    assert_eq!(name(&meet(&world.client(Some(&mine), &TLS13), &keys)), None);
}

#[test]
fn what_a_resumed_session_has_shown_once_is_judged_by_the_time_and_the_files_of_now() {
    let world = World::new();
    let lists = |revoked: &[u64], days| {
        let file = world.folder.write("crl", &world.lists(revoked, days));
        let sources = ClientSources::of(&world.config(|config| config.tls_client_crl = vec![file])).unwrap();
        Clients::read(&sources, &provider(), now()).unwrap().judge
    };
    let chain = world.mine(&[dns("a.example")], 7, 30).chain;
    let at = |days: u64| now() + days * 86_400;
    let why = |judged: Result<Option<Certified>, rustls::Error>| judged.unwrap_err().to_string();
    let judge = lists(&[], 100);
    assert!(judge.judge(Some(&chain), at(29)).is_ok());
    assert!(why(judge.judge(Some(&chain), at(31))).contains("expired"));
    assert!(is_old_list(&why(lists(&[], 5).judge(Some(&chain), at(6)))));
    assert!(why(lists(&[7], 100).judge(Some(&chain), at(0))).contains("Revoked"));
    assert!(why(judge.judge(None, at(0))).contains("no certificates"));
}

#[test]
fn files_that_are_none_of_these_are_refused_with_what_was_expected() {
    let world = World::new();
    let said = |ca: &str, crl: Option<&str>| {
        world.folder.write("ca", ca);
        let crl = crl.map(|text| world.folder.write("crl", text));
        let config = world.config(|config| config.tls_client_crl = crl.into_iter().collect());
        Keys::load(&config).map(|_| ()).unwrap_err().to_string()
    };
    let (root, key) = (world.root.pem(), fs::read_to_string(&world.server[1]).unwrap());
    for (ca, crl, expected) in [
        ("", None, "--tls-client-ca "),
        (&key[..], None, "it holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None, "number 1 can't be an authority"),
        (&root, Some(""), "it holds no list"),
        (&root, Some(&root), "it holds no list"),
        (&root, Some("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"), "its list number 1 can't be read"),
        (&root, Some("-----BEGIN X509 CRL-----\n"), "it is cut off"),
    ] {
        let error = said(ca, crl);
        let flag = if crl.is_some() { "--tls-client-crl " } else { "--tls-client-ca " };
        assert!(error.starts_with(flag) && error.contains(expected), "{error}");
    }
}

#[test]
fn what_is_unwise_is_said_an_authority_without_a_list_and_a_list_out_of_date() {
    let world = World::new();
    let inspect = |lists: &str| {
        let file = world.folder.write("crl", lists);
        Clients::read(
            &ClientSources::of(&world.config(|config| config.tls_client_crl = vec![file])).unwrap(),
            &provider(),
            now(),
        )
        .unwrap()
    };
    let good = inspect(&world.lists(&[], 10));
    assert_eq!(good.warnings, Vec::<String>::new());
    assert_eq!(
        good.sentence(),
        "TLS clients must show a certificate of one authority, by 2 lists of what was taken back"
    );
    let old = inspect(&world.lists(&[], -1)).warnings.join("\n");
    assert!(old.contains("was to be replaced by"), "{old}");
    let all = world.lists(&[], 10);
    let first = all.split_inclusive("-----END X509 CRL-----\n").next().unwrap();
    let missing = inspect(first).warnings.join("\n");
    assert!(missing.contains("of 1 of its 1 authorities there is no list"), "{missing}");
}

#[test]
fn a_path_ends_at_the_authority_whatever_a_client_sends_from_beyond_it() {
    let world = World::new();
    let read = |ca: &str| {
        world.folder.write("ca", ca);
        Clients::read(&ClientSources::of(&world.config(|_| {})).unwrap(), &provider(), now()).unwrap()
    };
    let [own, between] = <[_; 2]>::try_from(world.mine(&[dns("a.example")], 7, 30).chain).unwrap();
    let root = der(&world.root.pem());
    // The intermediate one is the authority, and its own certificate and the root's are more than anybody needs.
    let clients = read(&world.between.pem());
    for others in [&[][..], &[&between], &[&between, &root], &[&root, &between]] {
        let shown: Vec<_> = [&own].into_iter().chain(others.iter().copied()).cloned().collect();
        let certified = clients.judge.judge(Some(&shown), now()).unwrap().unwrap();
        assert_eq!((&*certified.path, certified.authority), (&[id_of(&own)][..], named(&world.between)));
        assert!(!clients.taken_back.has(&certified.path, &certified.authority), "by the files that it was judged by");
    }
    // Another authority, which nobody here knows, has signed the root's key as well.
    let clients = read(&world.root.pem());
    let crossed = authority_params("the root").signed_by(world.root.key(), &stranger("another root")).unwrap();
    for others in [&[between.clone()][..], &[between.clone(), root], &[between.clone(), crossed.der().clone()]] {
        let shown = [std::slice::from_ref(&own), others].concat();
        let certified = clients.judge.judge(Some(&shown), now()).unwrap().unwrap();
        let path = [id_of(&own), id_of(&between)];
        assert_eq!((&*certified.path, certified.authority), (&path[..], named(&world.root)));
        assert!(!clients.taken_back.has(&certified.path, &certified.authority));
    }
}

#[test]
fn what_is_kept_of_a_path_is_what_was_verified_and_not_what_has_the_same_name() {
    let (world, other) = (World::new(), stranger("another root"));
    let both = world.root.pem() + &other.pem();
    let read = |ca: &str| {
        world.folder.write("ca", ca);
        Clients::read(&ClientSources::of(&world.config(|_| {})).unwrap(), &provider(), now()).unwrap()
    };
    let [own, between] = <[_; 2]>::try_from(world.mine(&[dns("a.example")], 7, 30).chain).unwrap();
    // The client has made it: it names another authority that is known here, which hasn't signed it.
    let mut forged = authority_params("the one between");
    forged.serial_number = Some(SerialNumber::from(99u64));
    let forged = forged.signed_by(&KeyPair::generate().unwrap(), &stranger("another root")).unwrap();
    let clients = read(&both);
    for others in [[forged.der().clone(), between.clone()], [between.clone(), forged.der().clone()]] {
        let shown = [std::slice::from_ref(&own), &others[..]].concat();
        let certified = clients.judge.judge(Some(&shown), now()).unwrap().unwrap();
        assert_eq!(&*certified.path, [id_of(&own), id_of(&between)]);
        // So it ends when what it is good by does.
        let mut taken_back = TakenBack::clone(&clients.taken_back);
        assert!(!taken_back.has(&certified.path, &certified.authority));
        taken_back.certificates.insert(id_of(&between));
        assert!(taken_back.has(&certified.path, &certified.authority));
        assert!(read(&other.pem()).taken_back.has(&certified.path, &certified.authority));
        read(&both);
    }
}

#[test]
fn where_nobody_is_asked_any_more_all_certificates_of_before_are_taken_back() {
    let world = World::new();
    let keys = world.keys(|_| {});
    let certified =
        meet(&world.client(Some(&world.mine(&[dns("a.example")], 7, 30)), &TLS13), &keys).unwrap().0.unwrap();
    let has = || {
        let mut has = None;
        keys.tell_taken_back(|taken_back| has = Some(taken_back.has(&certified.path, &certified.authority)));
        has.unwrap()
    };
    assert!(!has());
    keys.reload(&world.config(|config| config.tls_client_ca = None)).unwrap();
    assert!(has());
    keys.reload(&world.config(|_| {})).unwrap();
    assert!(!has());
}

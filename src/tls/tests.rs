//! Certificates as operators have them: made by an authority of the test's own, replaced, mixed up, out of date; and shown to
//! clients that know that authority, in memory.

mod clients;

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore, ServerConnection,
    SignatureScheme, SupportedProtocolVersion,
    crypto::aws_lc_rs::kx_group,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::*;

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("stentor-tls-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    /// Writes a file that its owner alone may read.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

fn authority() -> Authority {
    CertifiedIssuer::self_signed(authority_params("the root"), KeyPair::generate().unwrap()).unwrap()
}

fn intermediate(root: &Authority) -> Authority {
    CertifiedIssuer::signed_by(authority_params("the one between"), KeyPair::generate().unwrap(), root).unwrap()
}

/// A certificate and a key in PEM.
struct Made {
    cert: String,
    key: String,
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn sign(params: &CertificateParams, key: KeyPair, by: &Issuer<'_, KeyPair>) -> Made {
    Made { cert: params.signed_by(&key, by).unwrap().pem(), key: key.serialize_pem() }
}

fn made(by: &Authority, names: &[&str]) -> Made {
    sign(&params(names), KeyPair::generate().unwrap(), by)
}

/// Valid from and until so many days from now.
fn dated(by: &Authority, from: i64, until: i64) -> Made {
    let day = |days: i64| {
        let seconds = now().checked_add_signed(days * 86_400).unwrap();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    let mut params = params(&["example.com"]);
    (params.not_before, params.not_after) = (day(from), day(until));
    sign(&params, KeyPair::generate().unwrap(), by)
}

/// Settings with these pairs of files.
fn config(pairs: &[(&PathBuf, &PathBuf)]) -> Config {
    Config {
        tls_listen: vec!["127.0.0.1:0".parse().unwrap()],
        tls_cert: pairs.iter().map(|(cert, _)| (*cert).clone()).collect(),
        tls_key: pairs.iter().map(|(_, key)| (*key).clone()).collect(),
        ..Config::default()
    }
}

fn self_signed(dir: PathBuf) -> Config {
    Config { tls_listen: vec!["127.0.0.1:0".parse().unwrap()], tls_self_signed: Some(dir), ..Config::default() }
}

fn loaded(pairs: &[(&PathBuf, &PathBuf)]) -> Keys {
    Keys::load(&config(pairs)).unwrap().unwrap()
}

/// Why one pair, written to files, is not taken.
fn refused(cert: &str, key: &str) -> String {
    let folder = Folder::new();
    let files = [folder.write("cert", cert), folder.write("key", key)];
    let error = Keys::load(&config(&[(&files[0], &files[1])])).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("--tls-"), "{error}");
    error.replace(&folder.0.display().to_string(), "DIR")
}

/// What a client knows and wants.
struct Client {
    config: ClientConfig,
    name: String,
}

/// What it found.
#[derive(Debug)]
struct Met {
    certificate: CertificateDer<'static>,
    version: ProtocolVersion,
    kind: HandshakeKind,
    suite: String,
    /// None where TLS 1.2 has resumed a session.
    group: Option<NamedGroup>,
    alpn: Option<Vec<u8>>,
}

impl Client {
    fn trusting(pem: &str, name: &str) -> Client {
        Client::speaking(pem, name, rustls::ALL_VERSIONS)
    }

    fn speaking(pem: &str, name: &str, versions: &[&'static SupportedProtocolVersion]) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        // Its order is the other way round, and doesn't count.
        let cipher_suites = SUITES.iter().rev().copied().collect();
        let provider = CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() };
        let config = ClientConfig::builder_with_provider(Arc::new(provider));
        let config = config.with_protocol_versions(versions).unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Client { config, name: name.to_owned() }
    }

    /// A handshake, and some words there and back.
    fn meet(&self, keys: &Keys) -> Result<Met, rustls::Error> {
        let name = ServerName::try_from(self.name.clone()).unwrap();
        let mut client = ClientConnection::new(Arc::new(self.config.clone()), name).unwrap();
        let mut server = ServerConnection::new(Arc::clone(&keys.terms().get().config)).unwrap();
        client.writer().write_all(b"ping").unwrap();
        let (mut there, mut back) = (Vec::new(), Vec::new());
        while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
            client.write_tls(&mut there).unwrap();
            server.read_tls(&mut &*std::mem::take(&mut there)).unwrap();
            let judged = server.process_new_packets();
            server.write_tls(&mut back).unwrap();
            client.read_tls(&mut &*std::mem::take(&mut back)).unwrap();
            client.process_new_packets()?;
            judged?;
        }
        let mut word = [0; 4];
        server.reader().read_exact(&mut word).unwrap();
        assert_eq!(&word, b"ping");
        Ok(Met {
            certificate: client.peer_certificates().unwrap()[0].clone().into_owned(),
            version: client.protocol_version().unwrap(),
            kind: client.handshake_kind().unwrap(),
            suite: format!("{:?}", client.negotiated_cipher_suite().unwrap().suite()),
            group: client.negotiated_key_exchange_group().map(|group| group.name()),
            alpn: client.alpn_protocol().map(<[u8]>::to_vec),
        })
    }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn a_client_that_knows_the_authority_is_served_by_either_version_in_the_servers_order() {
    let (root, folder) = (authority(), Folder::new());
    let made = made(&root, &["example.com"]);
    let files = [folder.write("cert", &made.cert), folder.write("key", &made.key)];
    let keys = loaded(&[(&files[0], &files[1])]);
    for (version, name, suite) in [
        (&TLS13, ProtocolVersion::TLSv1_3, "TLS13_AES_128_GCM_SHA256"),
        (&TLS12, ProtocolVersion::TLSv1_2, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ] {
        let client = Client::speaking(&root.pem(), "example.com", &[version]);
        let met = client.meet(&keys).unwrap();
        assert_eq!((met.version, met.suite.as_str()), (name, suite));
        assert_eq!((met.alpn.as_deref(), met.kind), (Some(&b"http/1.1"[..]), HandshakeKind::Full));
        assert_eq!(client.meet(&keys).unwrap().kind, HandshakeKind::Resumed, "{name:?}");
    }
    let config = Arc::clone(&keys.terms().get().config);
    assert_eq!((config.max_early_data_size, config.send_half_rtt_data), (0, false));
}

#[test]
fn keys_are_exchanged_by_what_the_client_would_rather_have() {
    let (root, folder) = (authority(), Folder::new());
    let made = made(&root, &["example.com"]);
    let files = [folder.write("cert", &made.cert), folder.write("key", &made.key)];
    let keys = loaded(&[(&files[0], &files[1])]);
    // The first as browsers have it, the last as who wants nothing else.
    let (hybrid, classic) = (kx_group::X25519MLKEM768, kx_group::X25519);
    for groups in [vec![hybrid, classic], vec![classic, hybrid], vec![kx_group::SECP256R1, classic], vec![hybrid]] {
        let first = groups[0].name();
        let provider = CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
        let mut client = Client::trusting(&root.pem(), "example.com");
        let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&TLS13]);
        let mut roots = RootCertStore::empty();
        roots.add(der(&root.pem())).unwrap();
        client.config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        assert_eq!(client.meet(&keys).unwrap().group, Some(first));
    }
}

#[test]
fn a_name_leads_to_the_certificate_that_has_it_or_to_one_for_all_names_a_level_above() {
    let (root, folder) = (authority(), Folder::new());
    let all = [&["first.example"][..], &["Example.com", "*.example.com"], &["special.example.com"]];
    let all: Vec<(Made, [PathBuf; 2])> = all
        .iter()
        .enumerate()
        .map(|(n, names)| {
            let made = made(&root, names);
            let files = [folder.write(&format!("cert{n}"), &made.cert), folder.write(&format!("key{n}"), &made.key)];
            (made, files)
        })
        .collect();
    let pairs: Vec<_> = all.iter().map(|(_, [cert, key])| (cert, key)).collect();
    let keys = loaded(&pairs);
    for (name, nth) in
        [("first.example", 0), ("example.com", 1), ("EXAMPLE.com", 1), ("a.example.com", 1), ("special.example.com", 2)]
    {
        let met = Client::trusting(&root.pem(), name).meet(&keys).unwrap();
        assert_eq!(met.certificate, der(&all[nth].0.cert), "{name}");
    }
    let table = keys.table.get();
    let schemes = &[SignatureScheme::ECDSA_NISTP256_SHA256];
    let first = &table.pairs()[0].key;
    for name in [None, Some("a.b.example.com"), Some("other.example"), Some("com"), Some("")] {
        assert!(Arc::ptr_eq(table.choose(name, schemes).unwrap(), first), "{name:?}");
    }
}

#[test]
fn of_two_certificates_for_one_name_the_client_is_shown_the_kind_that_it_can_verify() {
    let (root, folder) = (authority(), Folder::new());
    let rsa = sign(&params(&["example.com"]), KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(), &root);
    let ecdsa = made(&root, &["example.com"]);
    let [a, b] = [folder.write("rsa", &rsa.cert), folder.write("rsa-key", &rsa.key)];
    let [c, d] = [folder.write("ecdsa", &ecdsa.cert), folder.write("ecdsa-key", &ecdsa.key)];
    let table = loaded(&[(&a, &b), (&c, &d)]).table.get();
    let shown = |name, schemes: &[SignatureScheme]| table.choose(name, schemes).unwrap().cert[0].clone();
    let (both, name) = ([SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256], Some("example.com"));
    assert_eq!(shown(name, &both), der(&ecdsa.cert), "the cheaper one");
    assert_eq!(shown(name, &both[..1]), der(&rsa.cert));
    assert_eq!(shown(name, &both[1..]), der(&ecdsa.cert));
    assert_eq!(shown(None, &both), der(&rsa.cert), "the first");
    assert_eq!(shown(None, &both[1..]), der(&ecdsa.cert), "the first that it can verify");
}

#[test]
fn what_clients_would_refuse_is_refused_with_the_file_and_what_is_wrong() {
    let root = authority();
    let (good, other) = (made(&root, &["example.com"]), made(&root, &["example.com"]));
    let between = intermediate(&root);
    let leaf = made(&between, &["example.com"]);
    let (expired, early) = (dated(&root, -10, -1), dated(&root, 1, 10));
    let cut = &good.cert[..good.cert.len() - 40];
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (cert, key, said) in [
        (&good.cert[..], &other.key[..], "--tls-key DIR/key: it is not the key of the certificate in DIR/cert"),
        (&good.key, &good.key, "--tls-cert DIR/cert: it holds a private key and no certificate"),
        (&good.cert, &good.cert, "--tls-key DIR/key: it holds a certificate and no private key"),
        ("", &good.key, "--tls-cert DIR/cert: it holds no certificate: expected PEM"),
        (&good.cert, "x", "--tls-key DIR/key: it holds no private key: expected PEM"),
        (cut, &good.key, "--tls-cert DIR/cert: it is cut off"),
        (
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
            &good.key,
            "--tls-cert DIR/cert: it is not PEM: what is between",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &good.key,
            "--tls-cert DIR/cert: its certificate can't be used",
        ),
        (&good.cert, encrypted, "--tls-key DIR/key: its key is encrypted with a passphrase"),
        (
            &good.cert,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "--tls-key DIR/key: its key is of no kind that TLS has here",
        ),
        (
            &expired.cert,
            &expired.key,
            "--tls-cert DIR/cert: its first certificate (CN=rcgen self signed cert) has expired on 2",
        ),
        (
            &early.cert,
            &early.key,
            "--tls-cert DIR/cert: its first certificate (CN=rcgen self signed cert) is not valid before 2",
        ),
        (
            &format!("{}{}", leaf.cert, root.pem()),
            &leaf.key,
            "--tls-cert DIR/cert: its first certificate was signed by CN=the one between, and the one behind it is CN=the root",
        ),
        (
            &format!("{}{}{}", leaf.cert, root.pem(), between.pem()),
            &leaf.key,
            "--tls-cert DIR/cert: its first certificate was signed by CN=the one between",
        ),
        (
            &format!("{}{}", between.pem(), leaf.cert),
            &leaf.key,
            "--tls-cert DIR/cert: the key in DIR/key is that of its second certificate: expected the server's own first",
        ),
    ] {
        let error = refused(cert, key);
        assert!(error.starts_with(said), "{error}\n{said}");
    }
    let folder = Folder::new();
    let (cert, missing) = (folder.write("cert", &good.cert), folder.0.join("missing"));
    for (cert, key, said) in [
        (&missing, &missing, "--tls-cert DIR/missing: No such file"),
        (&cert, &missing, "--tls-key DIR/missing: No such file"),
        (&folder.0, &cert, "--tls-cert DIR: it is no file"),
    ] {
        let error = Keys::load(&config(&[(cert, key)])).map(|_| ()).unwrap_err().to_string();
        let error = error.replace(&folder.0.display().to_string(), "DIR");
        assert!(error.starts_with(said), "{error}\n{said}");
    }
    let large = folder.write("large", &"x".repeat(2 << 20));
    let error = Keys::load(&config(&[(&large, &large)])).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("at most 1048576 bytes"), "{error}");
}

#[test]
fn a_chain_in_order_is_taken_and_expires_with_the_first_of_it() {
    let (root, folder) = (authority(), Folder::new());
    let between = intermediate(&root);
    let leaf = dated(&between, -1, 10);
    for chain in [format!("{}{}", leaf.cert, between.pem()), format!("{}{}{}", leaf.cert, between.pem(), root.pem())] {
        let files = [folder.write("cert", &chain), folder.write("key", &leaf.key)];
        let keys = loaded(&[(&files[0], &files[1])]);
        let met = Client::trusting(&root.pem(), "example.com").meet(&keys).unwrap();
        assert_eq!(met.certificate, der(&leaf.cert));
        let shown = &keys.shown()[0];
        assert_eq!((shown.name.as_str(), shown.file.as_str()), ("example.com", files[0].to_str().unwrap()));
        assert!((now() + 9 * 86_400..=now() + 10 * 86_400).contains(&shown.expires), "{shown:?}");
    }
}

#[test]
fn a_key_that_everybody_can_read_is_warned_of_and_so_is_a_certificate_without_a_name() {
    let (root, folder) = (authority(), Folder::new());
    let nameless = made(&root, &[]);
    let files = [folder.write("cert", &nameless.cert), folder.write("key", &nameless.key)];
    for (mode, is_warned) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
        fs::set_permissions(&files[1], fs::Permissions::from_mode(mode)).unwrap();
        let keys = loaded(&[(&files[0], &files[1])]);
        let table = keys.table.get();
        let warnings = &table.pairs()[0].warnings;
        let said = format!("everybody on this machine can read or change the key (mode {mode:04o})");
        assert_eq!(warnings.iter().any(|warning| warning.contains(&said)), is_warned, "{warnings:?}");
        assert!(warnings.last().unwrap().contains("it names no host"), "{warnings:?}");
    }
}

#[test]
fn without_a_listener_for_tls_there_is_nothing_to_read() {
    assert!(Keys::load(&Config::default()).unwrap().is_none());
}

#[test]
fn a_new_certificate_is_shown_from_the_second_look_on_and_tickets_of_before_are_taken() {
    let (root, folder) = (authority(), Folder::new());
    let (old, new) = (made(&root, &["example.com"]), made(&root, &["example.com"]));
    let files = [folder.write("cert", &old.cert), folder.write("key", &old.key)];
    let keys = loaded(&[(&files[0], &files[1])]);
    let returning = Client::trusting(&root.pem(), "example.com");
    let met = returning.meet(&keys).unwrap();
    assert_eq!((met.kind, met.certificate), (HandshakeKind::Full, der(&old.cert)));
    let shown = || Client::trusting(&root.pem(), "example.com").meet(&keys).unwrap().certificate;
    folder.write("cert", &new.cert);
    keys.look(now());
    assert_eq!(shown(), der(&old.cert), "its key may be on its way");
    folder.write("key", &new.key);
    keys.look(now());
    assert_eq!(shown(), der(&old.cert), "something has changed again");
    keys.look(now());
    assert_eq!(shown(), der(&new.cert));
    assert_eq!(returning.meet(&keys).unwrap().kind, HandshakeKind::Resumed);
    assert_eq!((keys.reloads.get(), keys.failures.get()), (1, 0));
    keys.look(now());
    assert_eq!(keys.reloads.get(), 1, "nothing has changed");
}

#[test]
fn after_a_mistake_the_old_certificate_stays_and_it_is_not_tried_again_until_something_changes() {
    let (root, folder) = (authority(), Folder::new());
    let (old, new) = (made(&root, &["example.com"]), made(&root, &["example.com"]));
    let files = [folder.write("cert", &old.cert), folder.write("key", &old.key)];
    let settings = config(&[(&files[0], &files[1])]);
    let keys = Keys::load(&settings).unwrap().unwrap();
    let shown = || Client::trusting(&root.pem(), "example.com").meet(&keys).unwrap().certificate;
    folder.write("cert", &new.cert);
    for _ in 0..5 {
        keys.look(now());
    }
    assert_eq!((shown(), keys.failures.get()), (der(&old.cert), 1));
    assert!(keys.reload(&settings).is_err_and(|error| error.flag == "--tls-key"));
    assert_eq!(shown(), der(&old.cert));
    fs::remove_file(&files[1]).unwrap();
    keys.look(now());
    keys.look(now());
    assert_eq!((shown(), keys.failures.get()), (der(&old.cert), 3));
    folder.write("key", &new.key);
    keys.look(now());
    keys.look(now());
    assert_eq!(shown(), der(&new.cert));
}

#[test]
fn a_folder_that_is_swapped_by_a_link_is_noticed_as_kubernetes_does_it() {
    let (root, folder) = (authority(), Folder::new());
    let mades = [made(&root, &["example.com"]), made(&root, &["example.com"])];
    for (n, made) in mades.iter().enumerate() {
        fs::create_dir(folder.0.join(format!("..{n}"))).unwrap();
        folder.write(&format!("..{n}/tls.crt"), &made.cert);
        folder.write(&format!("..{n}/tls.key"), &made.key);
    }
    symlink("..0", folder.0.join("..data")).unwrap();
    let files = ["tls.crt", "tls.key"].map(|name| {
        symlink(format!("..data/{name}"), folder.0.join(name)).unwrap();
        folder.0.join(name)
    });
    let keys = loaded(&[(&files[0], &files[1])]);
    let shown = || Client::trusting(&root.pem(), "example.com").meet(&keys).unwrap().certificate;
    assert_eq!(shown(), der(&mades[0].cert));
    symlink("..1", folder.0.join("..data_tmp")).unwrap();
    fs::rename(folder.0.join("..data_tmp"), folder.0.join("..data")).unwrap();
    keys.look(now());
    keys.look(now());
    assert_eq!(shown(), der(&mades[1].cert));
}

#[test]
fn a_reload_takes_the_files_that_are_named_then() {
    let (root, folder) = (authority(), Folder::new());
    let (old, new) = (made(&root, &["example.com"]), made(&root, &["example.com"]));
    let [a, b] = [folder.write("a", &old.cert), folder.write("b", &old.key)];
    let [c, d] = [folder.write("c", &new.cert), folder.write("d", &new.key)];
    let keys = loaded(&[(&a, &b)]);
    keys.reload(&config(&[(&c, &d)])).unwrap();
    let shown = || Client::trusting(&root.pem(), "example.com").meet(&keys).unwrap().certificate;
    assert_eq!(shown(), der(&new.cert));
    // From now on these are looked at, and not the others.
    folder.write("a", "");
    folder.write("c", &old.cert);
    folder.write("d", &old.key);
    keys.look(now());
    keys.look(now());
    assert_eq!(shown(), der(&old.cert));
}

#[test]
fn a_certificate_for_trying_out_is_made_once_and_again_when_it_has_expired() {
    let folder = Folder::new();
    let dir = folder.0.join("new/one");
    let settings = self_signed(dir.clone());
    let keys = Keys::load(&settings).unwrap().unwrap();
    let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("key.pem"), 0o600);
    let pem = fs::read_to_string(dir.join("certificate.pem")).unwrap();
    for name in ["localhost", "127.0.0.1", "::1"] {
        let met = Client::trusting(&pem, name).meet(&keys).unwrap();
        assert_eq!(met.certificate, der(&pem), "{name}");
    }
    let table = keys.table.get();
    assert!(table.pairs()[0].warnings.is_empty());
    assert!(table.pairs()[0].names.starts_with(&["localhost".into(), "127.0.0.1".into(), "::1".into()]));
    let again = Keys::load(&settings).unwrap().unwrap();
    assert_eq!(again.table.get().pairs()[0].fingerprint, keys.table.get().pairs()[0].fingerprint);

    let later = keys.shown()[0].expires;
    keys.look(later - 1);
    assert_eq!(fs::read_to_string(dir.join("certificate.pem")).unwrap(), pem);
    keys.look(later);
    let renewed = fs::read_to_string(dir.join("certificate.pem")).unwrap();
    assert_ne!(renewed, pem);
    assert_eq!(keys.table.get().pairs()[0].key.cert[0], der(&renewed));
    assert!(keys.shown()[0].expires > later);
    // Whoever was to make it ended in between: one is of no use without the other.
    fs::remove_file(dir.join("certificate.pem")).unwrap();
    Keys::load(&settings).unwrap();
    assert_ne!(fs::read_to_string(dir.join("certificate.pem")).unwrap(), renewed);
}

#[test]
fn what_is_no_certificate_for_trying_out_is_not_overwritten() {
    let folder = Folder::new();
    folder.write("certificate.pem", "mine");
    folder.write("key.pem", "mine, too");
    let error = Keys::load(&self_signed(folder.0.clone())).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.starts_with("--tls-self-signed ") && error.contains("certificate.pem: it holds no certificate"),
        "{error}"
    );
    let error = Keys::load(&self_signed("/dev/null/folder".into())).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("--tls-self-signed /dev/null/folder: Not a directory"), "{error}");
}

#[test]
fn fingerprints_are_those_that_other_programs_show() {
    // Of the empty string, as `sha256sum` has it.
    let text = pair::fingerprint(b"");
    assert!(
        text.starts_with("E3:B0:C4:42:98:FC:1C:14:") && text.ends_with(":78:52:B8:55") && text.len() == 95,
        "{text}"
    );
    assert_eq!(pair::date(1_764_430_201), "2025-11-29T15:30:01Z");
}

//! Makes keys and tokens, for trying out and for whoever has no issuer: `stentor token`. A server never signs.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
        RsaKeyPair, RsaPublicKeyComponents,
    },
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::Algorithm;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};

use super::keys::{name, sha256};

/// A key that signs, and what a server needs to know of it.
pub struct Signer {
    pair: Pair,
    algorithm: Algorithm,
    /// The public key, as it stands in a JWKS; for HS256 it is the secret.
    jwk: Value,
}

enum Pair {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
    Mac(Box<hmac::Key>),
}

impl Signer {
    /// Makes a new key. Returns it with the text of a file to keep it in.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn make(algorithm: Algorithm) -> Result<(Signer, String), String> {
        let failed = |_| "no key could be made: the system has no randomness".to_owned();
        let random = SystemRandom::new();
        let text = match algorithm {
            Algorithm::ES256 => {
                let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(failed)?;
                pem(der.as_ref())
            }
            Algorithm::RS256 | Algorithm::PS256 => {
                use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                pem(der.as_ref())
            }
            Algorithm::HS256 => {
                let mut secret = [0; 32];
                aws_lc_rs::rand::fill(&mut secret).map_err(failed)?;
                format!("{:#}\n", json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(secret) }))
            }
            _ => pem(Ed25519KeyPair::generate_pkcs8(&random).map_err(failed)?.as_ref()),
        };
        Ok((Signer::parse(&text, Some(algorithm))?, text))
    }

    /// Reads a private key: PEM (PKCS#8, as `openssl genpkey` writes it, PKCS#1 or SEC1), or for HS256 a JWK with `k`. An RSA key is for RS256, unless
    /// another algorithm is named.
    ///
    /// # Errors
    /// It is none of these; nothing of it is shown.
    pub fn parse(text: &str, algorithm: Option<Algorithm>) -> Result<Signer, String> {
        let signer = match text.trim_start().starts_with('{') {
            true => Signer::of_secret(text)?,
            false => Signer::of_pem(text, algorithm)?,
        };
        match algorithm {
            Some(wanted) if wanted != signer.algorithm => {
                Err(format!("the key is for {}, and not for {}", name(signer.algorithm), name(wanted)))
            }
            _ => Ok(signer),
        }
    }

    fn of_secret(text: &str) -> Result<Signer, String> {
        let expected =
            "expected a private key in PEM, or {\"kty\":\"oct\",\"k\":\"…\"} with at least 32 bytes in base64url";
        let jwk: Value = serde_json::from_str(text).map_err(|_| expected)?;
        let secret = jwk.get("k").and_then(Value::as_str).and_then(|k| URL_SAFE_NO_PAD.decode(k).ok());
        let secret = secret.filter(|secret| secret.len() >= 32).ok_or(expected)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let jwk = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(&secret) });
        // What it is called must tell nothing of it, and a hash of a good secret doesn't.
        Ok(Signer::new(Pair::Mac(Box::new(key)), Algorithm::HS256, jwk))
    }

    fn of_pem(text: &str, algorithm: Option<Algorithm>) -> Result<Signer, String> {
        let expected = "expected a private key in PEM: Ed25519, EC P-256, or RSA of 2048 bits or more";
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| expected)?;
        let of_rsa = || match algorithm {
            Some(Algorithm::PS256) => Algorithm::PS256,
            _ => Algorithm::RS256,
        };
        let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let signer = match &der {
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
                    Signer::of_ed(pair)
                } else if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve, der) {
                    Signer::of_ec(pair)
                } else {
                    Signer::of_rsa(RsaKeyPair::from_pkcs8(der).map_err(|_| expected)?, of_rsa())
                }
            }
            PrivateKeyDer::Pkcs1(der) => {
                Signer::of_rsa(RsaKeyPair::from_der(der.secret_pkcs1_der()).map_err(|_| expected)?, of_rsa())
            }
            PrivateKeyDer::Sec1(der) => {
                Signer::of_ec(EcdsaKeyPair::from_private_key_der(curve, der.secret_sec1_der()).map_err(|_| expected)?)
            }
            _ => return Err(expected.into()),
        };
        Ok(signer)
    }

    fn of_ed(pair: Ed25519KeyPair) -> Signer {
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        Signer::new(Pair::Ed(pair), Algorithm::EdDSA, json!({ "kty": "OKP", "crv": "Ed25519", "x": x }))
    }

    fn of_ec(pair: EcdsaKeyPair) -> Signer {
        // A byte that says that both follow, then x and y.
        let point = pair.public_key().as_ref();
        let [x, y] = [1..33, 33..65].map(|part| URL_SAFE_NO_PAD.encode(point.get(part).unwrap_or_default()));
        Signer::new(Pair::Ec(pair), Algorithm::ES256, json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y }))
    }

    fn of_rsa(pair: RsaKeyPair, algorithm: Algorithm) -> Signer {
        let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let [n, e] = [public.n, public.e].map(|part| URL_SAFE_NO_PAD.encode(part));
        Signer::new(Pair::Rsa(Box::new(pair)), algorithm, json!({ "kty": "RSA", "n": n, "e": e }))
    }

    /// Calls it by its thumbprint (RFC 7638: SHA-256 of its members, by name, without blanks), so that the same key has the same name everywhere.
    fn new(pair: Pair, algorithm: Algorithm, mut jwk: Value) -> Signer {
        // The members of a `Value` are sorted.
        let kid = URL_SAFE_NO_PAD.encode(sha256(jwk.to_string().as_bytes()));
        jwk["kid"] = kid.into();
        jwk["alg"] = name(algorithm).into();
        jwk["use"] = "sig".into();
        Signer { pair, algorithm, jwk }
    }

    /// What it signs with.
    #[cfg(test)]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The JWKS for a server that is to take its tokens.
    pub fn jwks(&self) -> String {
        format!("{:#}\n", json!({ "keys": [self.jwk] }))
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn sign(&self, claims: &Value) -> Result<String, String> {
        let head = json!({ "alg": name(self.algorithm), "typ": "JWT", "kid": self.jwk["kid"] });
        self.sign_texts(&head.to_string(), &claims.to_string())
    }

    /// The same with any head.
    #[cfg(test)]
    pub(super) fn sign_as(&self, head: &Value, claims: &Value) -> Result<String, String> {
        self.sign_texts(&head.to_string(), &claims.to_string())
    }

    /// The same with anything at all: for what looks for faults.
    #[cfg(fuzzing)]
    pub fn sign_text(&self, head: &str, claims: &str) -> String {
        self.sign_texts(head, claims).unwrap_or_default()
    }

    fn sign_texts(&self, head: &str, claims: &str) -> Result<String, String> {
        let [head, claims] = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        let message = format!("{head}.{claims}");
        let (bytes, random) = (message.as_bytes(), SystemRandom::new());
        let failed = |_| "no token could be made: the system has no randomness".to_owned();
        let signature = match &self.pair {
            Pair::Ed(pair) => pair.sign(bytes).as_ref().to_vec(),
            Pair::Ec(pair) => pair.sign(&random, bytes).map_err(failed)?.as_ref().to_vec(),
            Pair::Mac(key) => hmac::sign(key, bytes).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let done = match self.algorithm {
                    Algorithm::PS256 => pair.sign(&RSA_PSS_SHA256, &random, bytes, &mut signature),
                    _ => pair.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature),
                };
                done.map_err(failed)?;
                signature
            }
        };
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n");
    format!("-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n")
}

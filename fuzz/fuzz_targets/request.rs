//! Request heads, handshakes and bodies: what a head is doesn't depend on how much of it has been read when, what we let
//! pass tungstenite lets pass with the same answer, and any chunking of a body gives the same data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stentor::internals::{
    access::{Holder, Rules, Wrong, shown_token},
    http::{
        body::{BodyDecoder, BodyEvent},
        head::{self, Body, Request},
    },
    lane::Address,
    websocket::{client, handshake},
};
use tungstenite::{
    Error,
    error::ProtocolError::{MissingConnectionUpgradeHeader, MissingUpgradeWebSocketHeader},
    handshake::{machine::TryParse, server},
};

const HEAD_MAX: usize = 2048;
const BODY_MAX: u64 = 1000;

/// How many bytes the head has, or none while it is incomplete, or the status of the refusal.
fn outcome(bytes: &[u8]) -> Result<Option<usize>, u16> {
    head::parse(bytes, HEAD_MAX).map(|head| head.map(|(_, len)| len)).map_err(|refusal| refusal.status)
}

/// A head that is cut off is not yet known, or refused as the whole is.
fn prefixes_agree(bytes: &[u8]) {
    let whole = outcome(bytes);
    for cut in (0..bytes.len()).step_by(1 + bytes.len() / 64) {
        match (outcome(&bytes[..cut]), whole) {
            (Ok(None), Ok(Some(len))) => assert!(cut < len, "whole at {len}, unknown at {cut}"),
            (Ok(Some(before)), whole) => assert_eq!(Ok(Some(before)), whole),
            (Ok(None), _) => {}
            (Err(_), whole) => assert!(whole.is_err(), "refused at {cut}, then {whole:?}"),
        }
    }
}

/// Whoever reads a request reads all of this.
fn look(request: &Request<'_>) {
    assert!((request.path().starts_with('/') || request.path() == "*") && request.path().bytes().all(|byte| byte.is_ascii_graphic()));
    if let Some(Ok(path)) = request.topic_behind("/raw/") {
        assert!(path.len() <= request.path().len());
    }
    request.query().for_each(drop);
    request.list("Sec-WebSocket-Protocol").for_each(|element| assert!(!element.is_empty()));
    for address in [Address::Ws, Address::Raw] {
        if let Ok((lane, Some(chosen))) = address.choose(handshake::offered(request)) {
            assert!(lane.words().address() == address && handshake::offered(request).any(|name| name == chosen));
        }
    }
    judge(request);
}

/// What a request may do hangs on the token that it shows and the page that it comes from, and on nothing else.
fn judge(request: &Request<'_>) {
    let rules = Rules::new("secret".parse().ok(), vec!["https://example.com".parse().unwrap()], false);
    let shown = shown_token(request);
    let text = shown.as_ref().map(|shown| shown.as_ref().map(|shown| &*shown.text));
    if let Ok(shown) = &shown {
        let found = rules.holder(shown.as_ref(), 0);
        assert!(match text {
            Ok(None) => matches!(found, Ok(Holder::Anonymous)),
            Ok(Some("secret")) => matches!(found, Ok(Holder::Publisher { generation: 0 })),
            _ => matches!(found, Err(Wrong::Unknown | Wrong::TooLong { .. })),
        });
    }
    let publishes = rules.check_page(request).is_ok() && matches!(text, Ok(Some("secret")));
    assert_eq!(rules.publisher(request, 0).is_ok(), publishes);
    // Who may see clients has shown the token, and more: it asks this machine, by a name of its own.
    let inspects = rules.may_inspect(request, (([127, 0, 0, 1], 9).into(), &Holder::Anonymous), 0);
    assert!(publishes || inspects.is_err());
}

fn tungstenite_agrees(request: &Request<'_>, head: &[u8]) {
    let Ok(accept) = handshake::check(request) else { return };
    // It reads fewer targets than browsers send.
    let Ok(Some((len, theirs))) = server::Request::try_parse(head) else { return };
    assert_eq!(len, head.len());
    let response = match server::create_response(&theirs) {
        // It reads one Upgrade header and takes no list; and so with Connection.
        Err(Error::Protocol(MissingUpgradeWebSocketHeader | MissingConnectionUpgradeHeader)) => return,
        response => response.expect("what we accept is a handshake"),
    };
    assert_eq!(response.headers()["Sec-WebSocket-Accept"].as_bytes(), accept);
}

fn body(kind: Body, bytes: &[u8], size: usize) -> (Vec<u8>, Option<Result<(), u16>>) {
    let (mut decoder, mut data) = (BodyDecoder::new(kind, BODY_MAX), Vec::new());
    for mut input in bytes.chunks(size) {
        loop {
            match decoder.next(&mut input) {
                Ok(None) => break assert!(input.is_empty()),
                Ok(Some(BodyEvent::Data(part))) => {
                    assert!(!part.is_empty());
                    data.extend_from_slice(part);
                    assert!(data.len() as u64 <= BODY_MAX);
                }
                Ok(Some(BodyEvent::End)) => return (data, Some(Ok(()))),
                Err(refusal) => return (data, Some(Err(refusal.status))),
            }
        }
    }
    (data, None)
}

fuzz_target!(|bytes: &[u8]| {
    prefixes_agree(bytes);
    let _ = client::check_response(bytes, "dGhlIHNhbXBsZSBub25jZQ==");
    let rest = match head::parse(bytes, HEAD_MAX) {
        Ok(Some((request, len))) => {
            look(&request);
            tungstenite_agrees(&request, &bytes[..len]);
            let rest = &bytes[len..];
            assert_eq!(body(request.body, rest, 1), body(request.body, rest, usize::MAX));
            rest
        }
        _ => bytes,
    };
    assert_eq!(body(Body::Chunked, rest, 1), body(Body::Chunked, rest, usize::MAX));
});

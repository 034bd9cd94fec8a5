//! A broadcast server as it is usually written on tokio: one task a connection, a broadcast channel per topic.
//!
//! `/sub/TOPIC` subscribes, what is sent on `/pub/TOPIC` is published. Usage: `peer-tungstenite PORT [CERT KEY]`. Received messages
//! that are already there go out with one flush, as a careful author would do it. With a certificate it speaks TLS, by tokio-rustls as its documentation has it.
//!
//! One core is given, so tokio's scheduler of one thread is taken, which its documentation has for that ("Multi-threaded and current-thread runtimes").
//! Reading buffers are 4 KiB, as tungstenite's documentation advises for many connections that say little (`WebSocketConfig::read_buffer_size`);
//! those for writing stay at 128 KiB, which are only taken where there is so much to write.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpSocket,
    sync::broadcast::{self, error::RecvError},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tokio_tungstenite::{
    accept_hdr_async_with_config,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        protocol::WebSocketConfig,
    },
};

type Topics = Arc<Mutex<HashMap<String, broadcast::Sender<Message>>>>;

/// Publications that a slow subscriber may be behind.
const CAPACITY: usize = 65_536;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().and_then(|port| port.parse().ok()).expect("usage: peer-tungstenite PORT [CERT KEY]");
    let tls = arguments.next().zip(arguments.next()).map(|(certificate, key)| acceptor(&certificate, &key));
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("its options");
    socket.bind(([127, 0, 0, 1], port).into()).expect("the port");
    let listener = socket.listen(4096).expect("listening");
    let topics = Topics::default();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let topics = Arc::clone(&topics);
            match tls.clone() {
                None => drop(tokio::spawn(client(stream, topics))),
                Some(tls) => drop(tokio::spawn(async move {
                    if let Ok(stream) = tls.accept(stream).await {
                        client(stream, topics).await;
                    }
                })),
            }
        }
    }
}

fn acceptor(certificate: &str, key: &str) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(certificate).expect("the certificate").map(|one| one.expect("a certificate"));
    let key = PrivateKeyDer::from_pem_file(key).expect("the key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain.collect(), key);
    TlsAcceptor::from(Arc::new(config.expect("a certificate and its key")))
}

#[allow(clippy::result_large_err)]
async fn client(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, topics: Topics) {
    let mut path = String::new();
    let note = |request: &Request, response: Response| {
        path = request.uri().path().to_owned();
        Ok(response)
    };
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let Ok(mut socket) = accept_hdr_async_with_config(stream, note, Some(config)).await else { return };
    let mut parts = path.split('/').skip(1);
    let (role, topic) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let channel =
        topics.lock().unwrap().entry(topic.to_owned()).or_insert_with(|| broadcast::channel(CAPACITY).0).clone();
    if role == "pub" {
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                let _ = channel.send(message);
            }
        }
        return;
    }
    let (mut sink, mut source) = socket.split();
    let mut from = channel.subscribe();
    drop(channel);
    // Reading has a task of its own, so that no delivery polls the socket for what the subscriber might say.
    let mut reading = tokio::spawn(async move { while let Some(Ok(_)) = source.next().await {} });
    loop {
        tokio::select! {
            biased;
            message = from.recv() => {
                let Ok(message) = message else {
                    if matches!(message, Err(RecvError::Lagged(_))) { continue }
                    return;
                };
                if sink.feed(message).await.is_err() { return }
                while let Ok(message) = from.try_recv() {
                    if sink.feed(message).await.is_err() { return }
                }
                if sink.flush().await.is_err() { return }
            }
            _ = &mut reading => return,
        }
    }
}

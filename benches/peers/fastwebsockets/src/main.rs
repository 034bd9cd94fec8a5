//! A broadcast server on fastwebsockets, Deno's WebSocket library, with hyper and tokio: one task a connection, a broadcast channel per topic.
//!
//! `/sub/TOPIC` subscribes, what is sent on `/pub/TOPIC` is published. Usage: `peer-fastwebsockets PORT`.
//!
//! The library gives frames into the author's hands, and so a careful one writes each publication's frame once (`Frame::write`) and gives its bytes to
//! everybody; those that are already there go out in one write. The upgrade is the library's own (`upgrade::upgrade`), behind which a subscriber is
//! left with its bare socket, as `WebSocket::into_inner` allows. One core is given, so tokio's scheduler of one thread is taken, as in the library's examples.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use bytes::{Bytes, BytesMut};
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, WebSocket, upgrade};
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::broadcast::{self, error::RecvError},
};

type Topics = Arc<Mutex<HashMap<String, broadcast::Sender<Bytes>>>>;
type Socket = WebSocket<TokioIo<Upgraded>>;

/// Publications that a slow subscriber may be behind.
const CAPACITY: usize = 65_536;

/// Bytes that are put together for one write.
const BATCH: usize = 128 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let port: u16 =
        std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("usage: peer-fastwebsockets PORT");
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("its options");
    socket.bind((Ipv4Addr::LOCALHOST, port).into()).expect("the port");
    let listener = socket.listen(4096).expect("listening");
    let topics = Topics::default();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let topics = Arc::clone(&topics);
            let service = service_fn(move |request| answer(request, Arc::clone(&topics)));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
        }
    }
}

async fn answer(mut request: Request<Incoming>, topics: Topics) -> Result<Response<Empty<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let Ok((response, upgraded)) = upgrade::upgrade(&mut request) else {
        let mut refused = Response::new(Empty::new());
        *refused.status_mut() = hyper::StatusCode::BAD_REQUEST;
        return Ok(refused);
    };
    tokio::spawn(async move {
        let Ok(socket) = upgraded.await else { return };
        let mut parts = path.split('/').skip(1);
        let (role, topic) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let channel =
            topics.lock().unwrap().entry(topic.to_owned()).or_insert_with(|| broadcast::channel(CAPACITY).0).clone();
        if role == "pub" { publish(socket, &channel).await } else { subscribe(socket, channel.subscribe()).await }
    });
    Ok(response)
}

async fn publish(socket: Socket, channel: &broadcast::Sender<Bytes>) {
    let mut messages = FragmentCollector::new(socket);
    let mut buffer = Vec::new();
    while let Ok(frame) = messages.read_frame().await {
        match frame.opcode {
            OpCode::Text | OpCode::Binary => {
                let mut framed = Frame::new(true, frame.opcode, None, Payload::Borrowed(&frame.payload));
                let _ = channel.send(Bytes::copy_from_slice(framed.write(&mut buffer)));
            }
            OpCode::Close => return,
            _ => {}
        }
    }
}

async fn subscribe(socket: Socket, mut from: broadcast::Receiver<Bytes>) {
    let Ok(parts) = socket.into_inner().into_inner().downcast::<TokioIo<TcpStream>>() else { return };
    let (mut source, mut sink) = parts.io.into_inner().into_split();
    // What it says is of no interest but for its end; reading has a task of its own, so that no delivery polls for it.
    let mut reading = tokio::spawn(async move { while matches!(source.read(&mut [0; 1024]).await, Ok(1..)) {} });
    let mut batch = BytesMut::new();
    loop {
        tokio::select! {
            biased;
            frame = from.recv() => {
                let Ok(frame) = frame else {
                    if matches!(frame, Err(RecvError::Lagged(_))) { continue }
                    return;
                };
                batch.clear();
                batch.extend_from_slice(&frame);
                while batch.len() < BATCH && let Ok(frame) = from.try_recv() {
                    batch.extend_from_slice(&frame);
                }
                if sink.write_all(&batch).await.is_err() { return }
            }
            _ = &mut reading => return,
        }
    }
}

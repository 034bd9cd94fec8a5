//! A link to a server that can be stalled: what a client has when the network between goes bad and nobody says so.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
};

/// Forwards TCP connections, until it is dropped with the test.
pub struct Link {
    pub address: SocketAddr,
    gate: Arc<Gate>,
}

/// What bytes towards the client pass through.
#[derive(Default)]
struct Gate {
    stalled: Mutex<bool>,
    opened: Condvar,
    /// Both ends of everything that passes.
    ends: Mutex<Vec<TcpStream>>,
}

impl Link {
    pub fn to(server: SocketAddr) -> Link {
        Link::below(server, "")
    }

    /// A link that is a proxy: it has the server below this path, and nothing else.
    pub fn below(server: SocketAddr, prefix: &'static str) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(Gate::default());
        let link = Link { address, gate: Arc::clone(&gate) };
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(server) else { continue };
                let (from, to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                let gate = Arc::clone(&gate);
                gate.ends.lock().unwrap().extend([&near, &far].map(|end| end.try_clone().unwrap()));
                std::thread::spawn(move || {
                    forward(from, to, |bytes| {
                        gate.pass();
                        Some(bytes.to_vec())
                    })
                });
                std::thread::spawn(move || forward(near, far, |bytes| without(prefix, bytes)));
            }
        });
        link
    }

    /// Ends every connection that there is.
    pub fn cut(&self) {
        for end in self.gate.ends.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Keeps back what the server says, or lets it go on.
    pub fn stall(&self, is: bool) {
        *self.gate.stalled.lock().unwrap() = is;
        self.gate.opened.notify_all();
    }
}

impl Gate {
    fn pass(&self) {
        drop(self.opened.wait_while(self.stalled.lock().unwrap(), |stalled| *stalled).unwrap());
    }
}

/// What a client sends, without the prefix of a request's path; none for a request elsewhere. Browsers send a head in one piece.
fn without(prefix: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let method = [&b"GET "[..], b"POST "].into_iter().find(|method| bytes.starts_with(method));
    let Some(method) = method else { return Some(bytes.to_vec()) };
    let path = bytes[method.len()..].strip_prefix(prefix.as_bytes())?;
    Some([method, path].concat())
}

/// Moves bytes until an end closes, or nothing passes.
fn forward(mut from: TcpStream, mut to: TcpStream, pass: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        let Some(passed) = pass(&bytes[..len]) else { break };
        if to.write_all(&passed).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

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
}

impl Link {
    pub fn to(server: SocketAddr) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(Gate::default());
        let link = Link { address, gate: Arc::clone(&gate) };
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(server) else { continue };
                let (from, to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                let gate = Arc::clone(&gate);
                std::thread::spawn(move || forward(from, to, || gate.pass()));
                std::thread::spawn(move || forward(near, far, || ()));
            }
        });
        link
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

/// Moves bytes until an end closes.
fn forward(mut from: TcpStream, mut to: TcpStream, pass: impl Fn()) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        pass();
        if to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

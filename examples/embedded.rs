//! A server inside a program of one's own: `cargo run --example embedded`, then open the address that it prints.

use std::{error::Error, io::Read, thread, time::Duration};

use crossbeam_channel::RecvTimeoutError;
use stentor::{Payload, server::Server};

fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::builder().listen("127.0.0.1:0".parse()?).workers(1).start()?;
    println!("open http://{}/ and press Enter here to stop", server.addresses()[0]);

    let publisher = server.publisher();
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    let clock = thread::spawn(move || {
        let mut ticks = 0u64;
        while stopped.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
            ticks += 1;
            let data = format!("{{\"ticks\":{ticks}}}");
            publisher.publish("clock.ticks", Payload::Json(data.as_bytes())).expect("a topic and a small payload");
        }
    });

    std::io::stdin().read_exact(&mut [0])?;
    drop(stop);
    clock.join().expect("the clock does not panic");
    server.stop();
    Ok(())
}

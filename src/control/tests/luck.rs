//! Clients that send anything.

use super::*;

#[test]
fn whatever_clients_send_the_next_one_is_served() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let pieces: [&[u8]; 16] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /publish HTTP/1.1\r\nHost: x\r\n",
        b"POST /publish/a HTTP/1.1\r\nHost: x\r\n",
        b"Content-Length: 30\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"Expect: 100-continue\r\n",
        b"5\r\n12345\r\n",
        b"0\r\n\r\n",
        b"{\"topic\":\"a\",\"data\":1}\n",
        b"{\"topic\":\"a\",",
        b"\r\n",
        b"\n",
        b"\xff\x00\x16\x03",
        b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /topics HTTP/1.0\r\n\r\n",
        b"GET /raw/a HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    let server = Server::with(|config| config.close_timeout = Span::new(SOON), |_| {});
    for _ in 0..300 {
        let mut client = server.connect();
        for _ in 0..random.usize(1..8) {
            // An error means that the server has ended a connection that it can't use.
            if client.0.get_mut().write_all(random.choice(pieces).unwrap()).is_err() {
                break;
            }
        }
        if random.bool() {
            let _ = client.0.get_ref().shutdown(Shutdown::Write);
            // Those for a worker wait in its inbox; here they are turned away.
            while let Ok(Message::Take(arrival)) = server.worker.try_recv() {
                drop(arrival);
            }
        }
    }
    assert_eq!(server.connect().get("/healthz").status, 200);
}

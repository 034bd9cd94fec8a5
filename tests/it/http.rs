//! A client of plain HTTP that keeps its connection, and knows nothing of the server's code.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use crate::client::tcp;

/// A connection.
pub struct Http {
    stream: BufReader<TcpStream>,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    /// As it came.
    pub body: Vec<u8>,
}

impl Http {
    pub fn connect(address: SocketAddr) -> Http {
        Http { stream: BufReader::new(tcp(address)) }
    }

    /// Asks for a path, with these header lines.
    pub fn ask(&mut self, path: &str, headers: &[&str]) {
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        self.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes());
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Ends its own side.
    pub fn end(&self) {
        self.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Reads the next answer.
    pub fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let len = answer.header("Content-Length").expect("a length").parse().unwrap();
        answer.body = vec![0; len];
        self.stream.read_exact(&mut answer.body).unwrap();
        answer
    }

    /// Reads the next answer's head.
    pub fn head(&mut self) -> Answer {
        let mut lines = std::iter::from_fn(|| {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "the connection ended");
            Some(line.trim_end().to_owned()).filter(|line| !line.is_empty())
        });
        let status = lines.next().unwrap();
        let status = status.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").map(|(key, value)| (key.into(), value.into())).unwrap());
        Answer { status, headers: headers.collect(), body: Vec::new() }
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.ask(path, &[]);
        self.answer()
    }

    /// Whether the server has ended the connection, which is waited for.
    pub fn is_ended(&mut self) -> bool {
        self.stream.read(&mut [0]).is_ok_and(|n| n == 0)
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// The body, as it was before it was compressed.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.header("Content-Encoding") {
            Some("gzip") => drop(flate2::read::GzDecoder::new(&self.body[..]).read_to_end(&mut bytes).unwrap()),
            Some(other) => panic!("{other}"),
            None => bytes.clone_from(&self.body),
        }
        bytes
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes()).unwrap()
    }

    /// The lines, each an object.
    pub fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

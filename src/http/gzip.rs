//! Answers in gzip (RFC 1952), for clients that take it.
//!
//! A body is compressed a piece at a time, so that nobody waits for a long one, and each piece with nothing of those before: then
//! whoever compresses many bodies by turns needs one compressor for all of them, of some 300 KiB, and not one for each.
//!
//! ```text
//!   1f 8b 08 …   | blocks of piece 0 | blocks of piece 1 | … | 03 00     | crc32  length
//!   the header     each ends at a byte                        the last     the trailer
//!                                                             block
//! ```

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::Request;

/// A body of fewer bytes isn't compressed: it would save no packet.
pub const LEAST: usize = 1400;

/// Bytes of a piece: twice what a reference reaches back, so that little is lost where one begins; some 150 microseconds.
pub const PIECE: usize = 64 * 1024;

/// The header: deflate, no name, no time, made fast, on no system in particular.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff];

/// The last block: empty.
const END: [u8; 2] = [3, 0];

/// Whether the client takes gzip (RFC 9110 section 12.5.3): it names it, or anything, with a weight other than nought.
pub fn is_taken(head: &Request<'_>) -> bool {
    let mut any = false;
    for element in head.list("Accept-Encoding") {
        let mut parts = element.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let is_wanted = weight.is_none_or(|weight| weight.parse() != Ok(0.0));
        if ["gzip", "x-gzip"].iter().any(|name| coding.eq_ignore_ascii_case(name)) {
            return is_wanted;
        }
        any |= coding == "*" && is_wanted;
    }
    any
}

/// What compresses, for one body after the other, or for several by turns.
pub struct Compressor(Compress);

/// A body that is being compressed.
pub struct Gzip {
    out: Vec<u8>,
    crc: Crc,
}

impl Compressor {
    /// With room for one body after another.
    pub fn new() -> Compressor {
        // Of what the server sends, higher levels leave two thirds of the bytes for five times the work.
        Compressor(Compress::new(Compression::fast(), false))
    }

    /// A whole body.
    pub fn whole(&mut self, body: &[u8]) -> Vec<u8> {
        let mut gzip = Gzip::new();
        body.chunks(PIECE).for_each(|piece| gzip.push(self, piece));
        gzip.finish()
    }
}

impl Gzip {
    /// Of nothing yet.
    pub fn new() -> Gzip {
        Gzip { out: HEADER.to_vec(), crc: Crc::new() }
    }

    /// Adds a piece.
    pub fn push(&mut self, compressor: &mut Compressor, piece: &[u8]) {
        let Compressor(compress) = compressor;
        self.crc.update(piece);
        compress.reset();
        loop {
            let done = compress.total_in() as usize;
            self.out.reserve((piece.len() - done) / 4 + 64);
            // A flush is over when there is room left behind it.
            let status = compress.compress_vec(&piece[done..], &mut self.out, FlushCompress::Sync);
            debug_assert!(matches!(status, Ok(Status::Ok | Status::BufError)), "{status:?}");
            let is_over = compress.total_in() as usize == piece.len() && self.out.len() < self.out.capacity();
            if is_over || status.is_err() {
                return;
            }
        }
    }

    /// Bytes of memory that it takes.
    pub fn held(&self) -> usize {
        self.out.capacity()
    }

    /// All of it.
    pub fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(&END);
        self.out.extend_from_slice(&self.crc.sum().to_le_bytes());
        self.out.extend_from_slice(&self.crc.amount().to_le_bytes());
        self.out
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn taken(header: &str) -> bool {
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {header}\r\n\r\n");
        is_taken(&super::super::head::parse(head.as_bytes(), 8192).unwrap().unwrap().0)
    }

    #[test]
    fn gzip_is_taken_where_it_is_named_or_anything_is_and_not_with_a_weight_of_nought() {
        for header in ["gzip", "br, GZIP;q=0.2", "x-gzip", "*", "deflate , gzip ; q=1.0", "*;q=0, gzip"] {
            assert!(taken(header), "{header}");
        }
        for header in ["", "br", "gzip;q=0", "gzip; q=0.000, *", "*;q=0", "gzipped"] {
            assert!(!taken(header), "{header}");
        }
    }

    #[test]
    fn what_is_compressed_in_pieces_by_turns_comes_out_whole() {
        let mut compressor = Compressor::new();
        for seed in 0..60 {
            let mut random = fastrand::Rng::with_seed(seed);
            let body = |random: &mut fastrand::Rng| -> Vec<u8> {
                let alphabet = random.u8(1..=255);
                (0..random.usize(..3 * PIECE)).map(|_| random.u8(..alphabet)).collect()
            };
            let bodies = [body(&mut random), body(&mut random)];
            let mut gzips = [Gzip::new(), Gzip::new()];
            let mut at = [0; 2];
            while at != [bodies[0].len(), bodies[1].len()] {
                let n = random.usize(..2);
                let len = random.usize(..=PIECE).min(bodies[n].len() - at[n]);
                gzips[n].push(&mut compressor, &bodies[n][at[n]..at[n] + len]);
                at[n] += len;
            }
            for (gzip, body) in gzips.into_iter().zip(bodies) {
                let mut found = Vec::new();
                GzDecoder::new(&gzip.finish()[..]).read_to_end(&mut found).unwrap();
                assert!(found == body, "seed {seed}");
            }
        }
    }

    #[test]
    fn rows_that_are_alike_come_to_a_fraction() {
        let body: Vec<u8> =
            (0..20_000).flat_map(|n| format!("{{\"topic\":\"q.us.{n}\",\"seq\":{n}}}\n").into_bytes()).collect();
        let packed = Compressor::new().whole(&body);
        assert!(packed.len() * 3 < body.len(), "{} of {}", packed.len(), body.len());
    }
}

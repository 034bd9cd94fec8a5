//! The lines of a file, plain or gzip, in bounded memory.
//!
//! Gzip is known by its first two bytes, not by the file's name; several members behind each other are one file. Memory is
//! the two read buffers, zlib's window and one line of at most the length allowed. A longer line is passed over to its end
//! and reported with its full length, so that the lines behind it keep their numbers.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

/// An open file, read line by line.
pub struct Lines {
    source: Source,
    line_max: usize,
    number: u64,
    line: Vec<u8>,
}

/// What the next line is.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Its bytes, without the line break.
    Bytes(&'a [u8]),
    /// It has so many bytes, which is more than allowed.
    TooLong(u64),
    /// There is none.
    End,
}

enum Source {
    Plain(BufReader<Counted>),
    Gzip(Box<BufReader<MultiGzDecoder<BufReader<Counted>>>>),
}

/// A file that knows how much of it was read.
struct Counted {
    file: File,
    taken: u64,
}

/// One read brings this much: large enough that reads cost little beside parsing.
const BUFFER: usize = 128 << 10;

impl Lines {
    /// Opens the file and reads its beginning. A line may have `line_max` bytes.
    ///
    /// # Errors
    /// It cannot be opened or read, or begins like gzip and isn't.
    pub fn open(path: &Path, line_max: usize) -> io::Result<Lines> {
        let mut raw = BufReader::with_capacity(BUFFER, Counted { file: File::open(path)?, taken: 0 });
        let mut source = if raw.fill_buf()?.starts_with(&GZIP_MAGIC) {
            Source::Gzip(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw))))
        } else {
            Source::Plain(raw)
        };
        source.buffered().fill_buf()?;
        Ok(Lines { source, line_max, number: 0, line: Vec::new() })
    }

    /// Reads the next line. A last line needs no line break.
    ///
    /// # Errors
    /// The file cannot be read on, or its compression is damaged.
    pub fn read(&mut self) -> io::Result<Line<'_>> {
        self.line.clear();
        let reader = self.source.buffered();
        let mut len = 0;
        loop {
            let chunk = match reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() && len == 0 {
                return Ok(Line::End);
            }
            let end = memchr::memchr(b'\n', chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            len += part.len() as u64;
            if len <= self.line_max as u64 {
                self.line.extend_from_slice(part);
            }
            let done = end.is_some() || chunk.is_empty();
            let taken = part.len() + usize::from(end.is_some());
            reader.consume(taken);
            if done {
                break;
            }
        }
        self.number += 1;
        if len > self.line_max as u64 {
            return Ok(Line::TooLong(len));
        }
        Ok(Line::Bytes(self.line.strip_suffix(b"\r").unwrap_or(&self.line)))
    }

    /// The number of the line that was read last, counted from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the next line is here already: if not, reading it may block where the file is a pipe.
    pub fn is_ready(&self) -> bool {
        let buffered = match &self.source {
            Source::Plain(reader) => reader.buffer(),
            Source::Gzip(reader) => reader.buffer(),
        };
        memchr::memchr(b'\n', buffered).is_some()
    }

    /// Bytes of the file taken so far, before decompression.
    pub fn taken(&self) -> u64 {
        match &self.source {
            Source::Plain(reader) => reader.get_ref().taken,
            Source::Gzip(reader) => reader.get_ref().get_ref().get_ref().taken,
        }
    }

    /// Bytes of the whole file; 0 where that isn't known.
    pub fn file_len(&self) -> u64 {
        let counted = match &self.source {
            Source::Plain(reader) => reader.get_ref(),
            Source::Gzip(reader) => reader.get_ref().get_ref().get_ref(),
        };
        counted.file.metadata().map_or(0, |metadata| metadata.len())
    }
}

impl Source {
    fn buffered(&mut self) -> &mut dyn BufRead {
        match self {
            Source::Plain(reader) => reader,
            Source::Gzip(reader) => reader,
        }
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.file.read(buffer)?;
        self.taken += taken as u64;
        Ok(taken)
    }
}

/// RFC 1952, section 2.3.1: ID1 and ID2.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::{
        io::Write,
        path::PathBuf,
        sync::atomic::{AtomicU64, Ordering},
    };

    /// A file of its own for each test, removed at the end.
    pub(crate) struct Scratch(pub(crate) PathBuf);

    impl Scratch {
        pub(crate) fn new(content: &[u8]) -> Self {
            static NEXT: AtomicU64 = AtomicU64::new(0);
            // Relaxed: only has to be unique.
            let name = format!("stentor-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, content).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn all(content: &[u8], line_max: usize) -> io::Result<Vec<Result<Vec<u8>, u64>>> {
        let scratch = Scratch::new(content);
        let mut lines = Lines::open(&scratch.0, line_max)?;
        let mut found = Vec::new();
        loop {
            match lines.read()? {
                Line::Bytes(bytes) => found.push(Ok(bytes.to_vec())),
                Line::TooLong(len) => found.push(Err(len)),
                Line::End => break,
            }
            assert_eq!(lines.number(), found.len() as u64);
        }
        assert_eq!((lines.taken(), lines.file_len()), (content.len() as u64, content.len() as u64));
        Ok(found)
    }

    #[test]
    fn plain_and_compressed_files_have_the_same_lines() {
        let content = b"one\r\n\ntwo\nlast";
        let expected = [Ok(b"one".to_vec()), Ok(vec![]), Ok(b"two".to_vec()), Ok(b"last".to_vec())];
        assert_eq!(all(content, 10).unwrap(), expected);
        assert_eq!(all(&gzip(content), 10).unwrap(), expected);
        let members = [gzip(&content[..7]), gzip(&content[7..])].concat();
        assert_eq!(all(&members, 10).unwrap(), expected);
        assert_eq!(all(b"", 10).unwrap(), []);
    }

    #[test]
    fn a_long_line_is_measured_and_not_kept() {
        let mut content = b"short\n".to_vec();
        content.resize(content.len() + 3 * BUFFER, b'x');
        content.extend_from_slice(b"\nshort\n");
        let found = all(&gzip(&content), 10).unwrap();
        assert_eq!(found, [Ok(b"short".to_vec()), Err(3 * BUFFER as u64), Ok(b"short".to_vec())]);
        assert_eq!(all(b"12345678901", 10).unwrap(), [Err(11)]);
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        assert!(all(b"\x1f\x8bnot gzip at all", 10).is_err());
        // What does not compress does not fit into the first buffer, so that the damage is found later.
        let noise: Vec<u8> = (0..BUFFER * 2).map(|_| fastrand::u8(..)).collect();
        let cut = gzip(&noise);
        assert!(all(&cut[..cut.len() - 20], BUFFER).is_err());
        assert!(Lines::open(&std::env::temp_dir(), 10).is_err());
    }
}

//! The lines of a file, plain, gzip or zstd, in bounded memory.
//!
//! How a file is packed is known by its first bytes, not by its name; several members (gzip) or frames (zstd) behind each other are one
//! file, and other packings are refused by name. Memory is the two read buffers, the decoder's window (at most 128 MiB with zstd, which
//! is what its own program takes) and one line of at most the length allowed. Of a longer line what is kept is its outline, some KiB
//! (`outline.rs`); it is reported with its full length, and the lines behind it keep their numbers.
//!
//! What disks, editors and tapes leave in files is no part of a line: a byte order mark at its beginning, and zeros at either end, as
//! of a file that was given its room before it was written. Zeros behind packed data are passed over as well.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use super::outline::Outline;

use flate2::bufread::GzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

/// An open file, read line by line.
pub struct Lines {
    source: Source,
    line_max: usize,
    number: u64,
    line: Vec<u8>,
    outline: Outline,
    /// The line that was read last has a line break.
    has_end: bool,
}

/// What the next line is.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Its bytes, without the line break.
    Bytes(&'a [u8]),
    /// It has more bytes than allowed.
    TooLong {
        /// How many.
        len: u64,
        /// The line without what makes objects long; nothing if it isn't one. Bytes that may be JSON, or not.
        outline: &'a [u8],
    },
    /// There is none.
    End,
}

enum Source {
    Plain(BufReader<Counted>),
    Packed(Box<BufReader<Members>>),
}

/// Packed members, one behind the other; what follows one begins the next, or is padding.
struct Members {
    packing: Packing,
    /// None only between two members, and at the end.
    member: Option<Member>,
    rest: Option<BufReader<Counted>>,
}

enum Member {
    Gzip(Box<GzDecoder<BufReader<Counted>>>),
    Zstd(ZstdDecoder<'static, BufReader<Counted>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zstd,
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
    /// It cannot be opened or read, begins like gzip or zstd and isn't, or is packed in another way.
    pub fn open(path: &Path, line_max: usize) -> io::Result<Lines> {
        let mut raw = BufReader::with_capacity(BUFFER, Counted { file: File::open(path)?, taken: 0 });
        let mut source = match Packing::of(raw.fill_buf()?)? {
            Some(packing) => Source::Packed(Box::new(BufReader::with_capacity(BUFFER, Members::new(packing, raw)?))),
            None => Source::Plain(raw),
        };
        source.buffered().fill_buf()?;
        Ok(Lines { source, line_max, number: 0, line: Vec::new(), outline: Outline::default(), has_end: true })
    }

    /// Reads the next line. A last line needs no line break.
    ///
    /// # Errors
    /// The file cannot be read on, or its compression is damaged.
    pub fn read(&mut self) -> io::Result<Line<'_>> {
        self.line.clear();
        let reader = self.source.buffered();
        let mut len = 0;
        // Zeros that end the line, unless something follows.
        let mut zeros: u64 = 0;
        let mut is_end = true;
        loop {
            let chunk = match reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() && is_end {
                return Ok(Line::End);
            }
            is_end = false;
            let end = memchr::memchr(b'\n', chunk);
            self.has_end = end.is_some();
            let part = &chunk[..end.unwrap_or(chunk.len())];
            let kept = part.len() - part.iter().rev().take_while(|byte| **byte == 0).count();
            if kept > 0 {
                let begin = if len == 0 { part.iter().take_while(|byte| **byte == 0).count() } else { 0 };
                let before = if len == 0 { 0 } else { zeros };
                let was_long = len > self.line_max as u64;
                len += before + (kept - begin) as u64;
                if len <= self.line_max as u64 {
                    self.line.resize(self.line.len() + before as usize, 0);
                    self.line.extend_from_slice(&part[begin..kept]);
                } else {
                    if !was_long {
                        self.outline.begin(self.line.strip_prefix(&BYTE_ORDER_MARK).unwrap_or(&self.line));
                    }
                    self.outline.zeros(before);
                    self.outline.add(&part[begin..kept]);
                }
                zeros = 0;
            }
            zeros += (part.len() - kept) as u64;
            let done = end.is_some() || chunk.is_empty();
            let taken = part.len() + usize::from(end.is_some());
            reader.consume(taken);
            if done {
                break;
            }
        }
        self.number += 1;
        if len > self.line_max as u64 {
            return Ok(Line::TooLong { len, outline: self.outline.bytes() });
        }
        let line = self.line.strip_prefix(&BYTE_ORDER_MARK).unwrap_or(&self.line);
        Ok(Line::Bytes(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// The number of the line that was read last, counted from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the line that was read last ends with the file and not with a line break: it may not be all of it.
    pub fn is_open(&self) -> bool {
        !self.has_end
    }

    /// Whether the next line is here already: if not, reading it may block where the file is a pipe.
    pub fn is_ready(&self) -> bool {
        let buffered = match &self.source {
            Source::Plain(reader) => reader.buffer(),
            Source::Packed(reader) => reader.buffer(),
        };
        memchr::memchr(b'\n', buffered).is_some()
    }

    /// Bytes of the file taken so far, before decompression.
    pub fn taken(&self) -> u64 {
        self.source.counted().map_or(0, |counted| counted.taken)
    }

    /// Bytes of the whole file; 0 where that isn't known.
    pub fn file_len(&self) -> u64 {
        let metadata = self.source.counted().and_then(|counted| counted.file.metadata().ok());
        metadata.map_or(0, |metadata| metadata.len())
    }
}

impl Source {
    fn buffered(&mut self) -> &mut dyn BufRead {
        match self {
            Source::Plain(reader) => reader,
            Source::Packed(reader) => reader,
        }
    }

    fn counted(&self) -> Option<&Counted> {
        match self {
            Source::Plain(reader) => Some(reader.get_ref()),
            Source::Packed(reader) => reader.get_ref().file().map(BufReader::get_ref),
        }
    }
}

impl Packing {
    /// How a file is packed that begins like this; none if it isn't.
    fn of(begin: &[u8]) -> io::Result<Option<Packing>> {
        let found = MAGICS.iter().find(|(magic, ..)| begin.starts_with(magic));
        match found {
            None => Ok(None),
            Some((_, _, Some(packing))) => Ok(Some(*packing)),
            Some((_, name, None)) => {
                Err(io::Error::other(format!("it is packed by {name}: unpack it, or pack it by gzip or zstd")))
            }
        }
    }

    fn begin(self, file: BufReader<Counted>) -> io::Result<Member> {
        Ok(match self {
            Packing::Gzip => Member::Gzip(Box::new(GzDecoder::new(file))),
            Packing::Zstd => Member::Zstd(ZstdDecoder::with_buffer(file)?.single_frame()),
        })
    }
}

impl Members {
    fn new(packing: Packing, file: BufReader<Counted>) -> io::Result<Members> {
        Ok(Members { packing, member: Some(packing.begin(file)?), rest: None })
    }

    fn file(&self) -> Option<&BufReader<Counted>> {
        match &self.member {
            Some(Member::Gzip(decoder)) => Some(decoder.get_ref()),
            Some(Member::Zstd(decoder)) => Some(decoder.get_ref()),
            None => self.rest.as_ref(),
        }
    }

    /// Goes on behind a member that has ended: with the next one, if there is more than padding.
    fn next(&mut self) -> io::Result<()> {
        let mut file = match self.member.take() {
            Some(Member::Gzip(decoder)) => decoder.into_inner(),
            Some(Member::Zstd(decoder)) => decoder.finish(),
            None => return Ok(()),
        };
        let is_more = pass_zeros(&mut file)?;
        match is_more {
            true => self.member = Some(self.packing.begin(file)?),
            false => self.rest = Some(file),
        }
        Ok(())
    }
}

/// Passes over zeros; whether something else follows.
fn pass_zeros(file: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let chunk = file.fill_buf()?;
        let (len, zeros) = (chunk.len(), chunk.iter().take_while(|byte| **byte == 0).count());
        file.consume(zeros);
        if zeros < len || len == 0 {
            return Ok(len > 0);
        }
    }
}

impl Read for Members {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = match member {
                Member::Gzip(decoder) => decoder.read(buffer)?,
                Member::Zstd(decoder) => decoder.read(buffer)?,
            };
            if read > 0 {
                return Ok(read);
            }
            self.next()?;
        }
        Ok(0)
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.file.read(buffer)?;
        self.taken += taken as u64;
        Ok(taken)
    }
}

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// How packed files begin: gzip (RFC 1952, section 2.3.1: ID1 and ID2), zstd (RFC 8878, section 3.1.1: the magic number of a frame), and
/// those that would otherwise look like lines without a meaning.
const MAGICS: [(&[u8], &str, Option<Packing>); 7] = [
    (&[0x1f, 0x8b], "gzip", Some(Packing::Gzip)),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", Some(Packing::Zstd)),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz", None),
    (b"BZh", "bzip2", None),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4", None),
    (b"PK\x03\x04", "zip", None),
    (&[0x1f, 0x9d], "compress", None),
];

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
                Line::TooLong { len, .. } => found.push(Err(len)),
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
    fn the_last_line_is_open_if_nothing_ends_it() {
        for (content, open) in
            [("one\ntwo", true), ("one\ntwo\n", false), ("one\ntwo\0\0", true), ("one\ntwothree", true)]
        {
            let scratch = Scratch::new(content.as_bytes());
            let mut lines = Lines::open(&scratch.0, 5).unwrap();
            lines.read().unwrap();
            assert!(!lines.is_open(), "{content:?}");
            lines.read().unwrap();
            assert_eq!(lines.is_open(), open, "{content:?}");
        }
    }

    #[test]
    fn zstd_is_read_as_well_and_other_packings_are_refused_by_name() {
        let content = b"one\r\n\ntwo\nlast";
        let pack = |content: &[u8]| zstd::encode_all(content, 1).unwrap();
        let expected = [Ok(b"one".to_vec()), Ok(vec![]), Ok(b"two".to_vec()), Ok(b"last".to_vec())];
        assert_eq!(all(&pack(content), 10).unwrap(), expected);
        assert_eq!(all(&[pack(&content[..7]), pack(&content[7..])].concat(), 10).unwrap(), expected);
        let cut = pack(&content.repeat(1000));
        assert!(all(&cut[..cut.len() - 5], 20).is_err());
        for (magic, name, packing) in MAGICS {
            if packing.is_none() {
                let error = all(&[magic, &b"and more"[..]].concat(), 10).unwrap_err().to_string();
                assert_eq!(error, format!("it is packed by {name}: unpack it, or pack it by gzip or zstd"));
            }
        }
    }

    #[test]
    fn padding_and_byte_order_marks_are_no_part_of_a_line() {
        let zeros = vec![0; 3 * BUFFER];
        let expected = [Ok(b"one".to_vec()), Ok(b"t\0wo".to_vec())];
        let padded = [b"\xef\xbb\xbfone\n\0\0\xef\xbb\xbft\0wo", &zeros[..]].concat();
        let none = [b"\xef\xbb\xbfone\n\0\0t\0wo\n", &zeros[..]].concat();
        assert_eq!(all(&none, 10).unwrap(), [&expected[..], &[Ok(vec![])]].concat());
        assert_eq!(all(&[&zeros[..], b"one\nt\0wo\0"].concat(), 10).unwrap(), expected);
        let found = all(&padded, 10).unwrap();
        assert_eq!(found, expected);
        // Zeros within a line are its own, however many.
        let long = [b"a", &zeros[..], b"b"].concat();
        assert_eq!(all(&long, 10).unwrap(), [Err(long.len() as u64)]);
        for packed in [gzip(b"one\nt\0wo"), zstd::encode_all(&b"one\nt\0wo"[..], 1).unwrap()] {
            assert_eq!(all(&[&packed[..], &zeros].concat(), 10).unwrap(), expected);
            assert_eq!(all(&[&packed[..], &zeros, &packed].concat(), 10).unwrap()[2], expected[1]);
            assert!(all(&[&packed[..], b"\0garbage"].concat(), 10).is_err());
        }
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

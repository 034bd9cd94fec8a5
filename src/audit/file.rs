//! The file: appended to, moved aside when it is full, and looked for where it was.
//!
//! ```text
//!   FILE   ─ full ─►  FILE.1  ─►  FILE.2  ─►  …  ─►  FILE.N  ─►  gone
//! ```
//!
//! Somebody else may move or remove it at any time (`logrotate`, `rm`), or the folder it is in, and what is written to a file without
//! a name is lost. So before each write it is looked whether the name still stands for the file that is open ([`AuditFile::is_there`]).
//! Another process may append to the same file; each write is whole lines, as far as the disk takes them.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Who may read it: the server's own user, and its group.
const MODE: u32 = 0o640;

/// See the module's description.
pub(super) struct AuditFile {
    path: PathBuf,
    file: File,
    /// How long it is, as far as this process knows.
    len: u64,
    /// Device and number: what the name stood for when it was opened.
    id: (u64, u64),
}

impl AuditFile {
    /// Opens it, and makes it if it isn't there. A line that the last process has not finished is ended.
    ///
    /// # Errors
    /// What the system says, or that it is no file.
    pub fn open(path: &Path) -> io::Result<AuditFile> {
        match fs::metadata(path) {
            // A pipe that nobody reads would wait to be opened.
            Ok(found) if !found.is_file() => return Err(no_file()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(no_file());
        }
        let mut len = about.len();
        let mut last = *b"\n";
        if len > 0 {
            file.read_exact_at(&mut last, len - 1)?;
        }
        if last != *b"\n" {
            file.write_all(b"\n")?;
            len += 1;
        }
        Ok(AuditFile { path: path.to_owned(), file, len, id: (about.dev(), about.ino()) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long it is, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether its name still stands for it.
    pub fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.id)
    }

    /// Opens what its name stands for now.
    ///
    /// # Errors
    /// As [`AuditFile::open`]; then it is as it was.
    pub fn reopen(&mut self) -> io::Result<()> {
        *self = AuditFile::open(&self.path)?;
        Ok(())
    }

    /// Appends as much of `bytes` as the disk takes; returns how much that was.
    ///
    /// # Errors
    /// It takes nothing.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.file.write(bytes)?;
        if len == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.len += len as u64;
        Ok(len)
    }

    /// Sees to it that what was written survives a loss of power.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Moves it aside, keeps so many that were, and begins a new one.
    ///
    /// # Errors
    /// What the system says: it may not be in its place any more, which [`AuditFile::is_there`] tells.
    pub fn rotate(&mut self, keep: u64) -> io::Result<()> {
        self.sync()?;
        for n in (1..keep).rev() {
            match fs::rename(self.numbered(n), self.numbered(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))?;
        self.reopen()
    }

    /// `FILE.N`
    fn numbered(&self, n: u64) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{n}"));
        name.into()
    }
}

fn no_file() -> io::Error {
    io::Error::other("expected a file to append to, found a folder, a pipe or a device")
}

/// Whether the file could be appended to, or made. Changes nothing.
///
/// # Errors
/// Why not.
#[cfg(feature = "cli")]
pub(crate) fn inspect(path: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(no_file()),
        Ok(_) => Ok(access(path, Access::READ_OK | Access::WRITE_OK)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
        }
        Err(error) => Err(error),
    }
}

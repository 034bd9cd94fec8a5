//! Whether a file is another one than before, by what its path leads to.
//!
//! Asked of the path, each time anew: so it is noticed as well when a folder on the way, or a link, leads elsewhere, as Kubernetes
//! replaces secrets (`..data` is renamed, no file is touched), and certbot (`live/` is links into `archive/`). `inotify(7)` would have to
//! watch every folder and link on the way, and sees nothing on network file systems.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// What a path leads to. Of two that are alike the contents are, too, as far as anybody can tell without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<[i64; 7]>);

impl Stamp {
    /// As the path is now.
    pub fn of(path: &Path) -> Stamp {
        // The time of change is there, too, for a file that couldn't be read and now can.
        Stamp(fs::metadata(path).ok().map(|it| {
            let file = [it.dev().cast_signed(), it.ino().cast_signed(), it.size().cast_signed()];
            let [device, inode, size] = file;
            [device, inode, size, it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()]
        }))
    }
}

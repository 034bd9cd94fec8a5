//! Whose certificate a client has shown.

/// A certificate that was judged to be good, by the handshake that it was shown in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Its name: the one DNS name, in lower case, or the one URI.
    pub name: String,
    /// When it expires, or another of its path, in seconds since the Unix epoch.
    pub expires: u64,
}

//! What benches and fuzz targets drive, and nobody else: the server's rooms, as far as they are public within the library.
//!
//! There only with the feature `bench` or `cfg(fuzzing)`. Without them the compiler sees what nobody uses.
#![allow(missing_docs)]

#[cfg(all(feature = "bench", not(loom)))]
pub mod bench {
    pub use crate::bench::{Bench, Client};
}
pub mod access {
    pub use crate::access::*;
}
#[cfg(fuzzing)]
pub mod feeds {
    pub use crate::{feeds::*, metrics::Skipped};
}
#[cfg(fuzzing)]
pub mod http {
    pub use crate::http::*;
}
pub mod io {
    pub use crate::io::*;
}
pub mod lane {
    pub use crate::lane::*;
}
pub mod protocol {
    pub use crate::protocol::*;
}
pub mod publication {
    pub use crate::publication::*;
}
pub mod publish {
    pub use crate::publish::*;
}
#[cfg(fuzzing)]
pub mod stream {
    pub use crate::stream::script;
}
pub mod tape {
    pub use crate::tape::*;
}
#[cfg(fuzzing)]
pub mod topic {
    pub use crate::topic::script;
}
pub mod websocket {
    pub use crate::websocket::*;
}
/// The worker's tables, as their tests drive them.
#[cfg(fuzzing)]
pub mod worker {
    pub use crate::worker::{reload_script as reload, script, work_script as work};
}

//! A client of Stentor that blocks: one thread asks for what comes next, and is told when that is something else than the next publication.
//!
//! ```no_run
//! use stentor_client::{Client, Event, How, Options};
//!
//! let mut md = Client::new(Options::new(["wss://md.example/ws"]))?;
//! md.subscribe(["t.us.*"], How::default());
//! md.subscribe(["q.us.*"], How::latest().rate(4.0));
//! loop {
//!     match md.next()? {
//!         Event::Update(update) => println!("{} {} {}", update.topic, update.seq, update.raw()),
//!         Event::Gap(gap) => println!("{}: {} to {} are not coming ({})", gap.topic, gap.first, gap.last, gap.why),
//!         Event::Reset(reset) => println!("{} begins anew", reset.topic),
//!         _ => {}
//!     }
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), stentor_client::Error>(())
//! ```
//!
//! It connects, comes back after every loss, and goes on where each topic was left: at the cursor that the server gave last, or by each topic's own
//! number. Nothing is lost in silence: what doesn't come is a [`Gap`], what can't be continued a [`Reset`], and a restart of the server is a reset and never a gap.
//!
//! There is no thread inside, and no queue but for what one message of the server came to. A program that doesn't ask leaves what comes to the network, and in the end to the server, which sends it
//! no more than it takes: in mode `latest` the newest, in mode `all` from its own memory, as far as that goes. Who doesn't ask for a minute is taken for gone, and comes back when
//! it asks again.
//!
//! | file | what |
//! | --- | --- |
//! | [`event`] | what a program is told |
//! | `names` | names, patterns, and commands of bounded size |
//! | `subscription` | what a program asks for |
//! | `topics` | where each topic stands |
//! | `messages` | publications, taken apart where they lie |
//! | `core` | the protocol, without sockets or clocks |
//! | `wire` | a WebSocket, with TLS or without |
//! | [`tls`] | whom one trusts |
//! | `client` | staying connected |

/// The page about it, whose code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod client;
mod core;
pub mod event;
mod messages;
mod names;
mod subscription;
pub mod tls;
mod topics;
mod wire;

pub use self::{
    client::{Client, Options, Token},
    event::{Error, Event, Gap, Receipt, Reset, Status, Update},
    names::{Point, is_pattern, matches},
    subscription::{From, How, Mode},
    wire::address,
};

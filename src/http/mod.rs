//! HTTP/1.1, as much as one port shared with WebSocket needs; bytes and values: no socket, thread, lock or clock.
//!
//! | file | what |
//! | --- | --- |
//! | [`head`] | a request's head, read strictly: whatever two readers could understand differently is refused |
//! | [`body`] | a request's body, by length or in chunks, as it arrives |
//! | [`gzip`] | the body of an answer, compressed |
//! | [`response`] | answers, and refusals with one plain sentence |

pub mod body;
pub mod gzip;
pub mod head;
pub mod response;

pub use body::{BodyDecoder, BodyEvent};
pub use head::{Body, Request};
pub use response::{Refusal, Response};

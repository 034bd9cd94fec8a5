//! How a peer can break the protocol.
//!
//! Each way has exactly one close code (`close`); the sentence is for the log and for the reason in the close frame.

use thiserror::Error;

/// How the peer broke the protocol. The connection is to be closed with [`Violation::code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// A reserved bit is set, though no extension was negotiated that has a meaning for it.
    #[error("a reserved bit is set and no extension was negotiated")]
    ReservedBits,
    /// A control frame or a continuation says that it begins a compressed message.
    #[error("a frame that begins no message is marked as compressed")]
    DeflatedWithin,
    /// A compressed message that can't be inflated.
    #[error("a compressed message is not in the deflate format")]
    BadDeflate,
    /// An opcode that means nothing.
    #[error("the opcode is reserved")]
    ReservedOpcode,
    /// A control frame without FIN.
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A control frame with more than 125 bytes.
    #[error("a control frame is longer than 125 bytes")]
    LongControl,
    /// A length that would fit a shorter form.
    #[error("a length is not in its shortest form")]
    LengthNotMinimal,
    /// A length of 2^63 or more.
    #[error("a length has its most significant bit set")]
    LengthOverflow,
    /// A client's frame without a mask.
    #[error("a client's frame is not masked")]
    Unmasked,
    /// A server's frame with a mask.
    #[error("a server's frame is masked")]
    Masked,
    /// A continuation while no message is unfinished.
    #[error("a continuation frame continues nothing")]
    LoneContinuation,
    /// A new message while another is unfinished.
    #[error("a new message begins inside an unfinished one")]
    InterruptedMessage,
    /// A message larger than the limit.
    #[error("a message is larger than accepted here")]
    TooBig,
    /// Text that isn't UTF-8.
    #[error("a text message is not valid UTF-8")]
    BadText,
    /// A close frame with half a code.
    #[error("a close frame has a payload of one byte")]
    CloseTruncated,
    /// A close frame with a code that no frame may carry.
    #[error("a close frame carries the code {0}, which may not be sent")]
    CloseCode(u16),
    /// A close reason that isn't UTF-8.
    #[error("the reason in a close frame is not valid UTF-8")]
    CloseReason,
}

//! PE-ARP messages: a view of the bytes ([`Packet`]) and their meaning ([`Message`]).
//!
//! The format is this project's own (docs/protocol.md §3): ARP with a protocol address space `{IPv4, port}` of
//! its own, so that every plain ARP implementation ignores it.

mod message;
mod packet;

pub use message::{Claim, Kind, Lifetime, Message, PeAddress, Record};
pub use packet::{Packet, ParseError, RecordError};

/// The default ar$pro: IEEE 802 local experimental EtherType 1.
pub const DEFAULT_PRO: u16 = 0x88B5;

/// The protocol version, in the high 4 bits of octet 36.
pub const VERSION: u8 = 1;

/// Bytes of a message without records.
pub const HEADER_LEN: usize = 38;

/// Bytes of one record.
pub const RECORD_LEN: usize = 8;

/// The most records that a message for a link of 1500 bytes MTU may carry.
pub const MAX_RECORDS: usize = (1500 - HEADER_LEN) / RECORD_LEN;

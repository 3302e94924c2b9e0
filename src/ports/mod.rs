//! Port values: ranges, PSIDs, sets of both, what has no port, and the source-port allocator.
//!
//! A *port set* is what one host owns of a shared address. It is written as a PSID under the sharing scheme
//! `(a, k)` of the address (RFC 7597 §5.1) or as plain ranges. Everything here is a value: no clock, no I/O.

mod allocator;
mod bitmap;
mod portless;
mod psid;
mod range;
mod set;

pub use allocator::Allocator;
pub use bitmap::PortBitmap;
pub use portless::{Portless, PortlessError};
pub use psid::{Psid, PsidError, Scheme};
pub use range::{ParseRangeError, PortRange};
pub use set::{ParseSetError, PortSet};

/// Ports below are system ports (RFC 6335 §6): nobody is given them with a set (PE-ARP rule 71).
pub const FIRST_USER_PORT: u16 = 1024;

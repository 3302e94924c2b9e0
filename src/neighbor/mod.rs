//! The port-aware ARP table of one link: who owns `{IPv4, protocol, port}`, and how to find out.
//!
//! ```text
//!   packet ──> next_hop ──found──> MAC            ANNOUNCE, REPLY, plain ARP ──> learn ──> table
//!                 │ miss                                                          │
//!                 └──> enqueue ──> question per port block ──RESOLVE──> REPLY ────┘──> queued packets leave
//! ```
//!
//! [`Neighbors`] is the engine, sans-IO: the caller gives messages, packets and the time, then drains
//! [`Neighbors::poll_transmit`] and [`Neighbors::poll_event`]. States and constants are those of RFC 4861 §7.3
//! and §10; rules are those of docs/protocol.md.

mod api;
mod binding;
mod claim;
mod engine;
mod learn;
mod limit;
mod look;
mod own;
mod questions;
mod receive;
mod store;
mod table;
#[cfg(test)]
mod tests;

pub use api::{Config, Entry, Event, Output, Refused, Target};
pub use binding::{Source, State};
pub use claim::{ClaimPhase, OwnSet};
pub use engine::Neighbors;
pub use limit::TokenBucket;
pub use look::Look;
pub use own::OwnId;

use smoltcp::time::Duration;

/// How long a confirmation holds, before a factor of 0.5 to 1.5 at random (RFC 4861 §10 REACHABLE_TIME).
pub const REACHABLE_TIME: Duration = Duration::from_secs(30);
/// From the use of a stale binding to its first probe (RFC 4861 §10 DELAY_FIRST_PROBE_TIME).
pub const DELAY_FIRST_PROBE_TIME: Duration = Duration::from_secs(5);
/// Between two questions (RFC 4861 §10 RETRANS_TIMER).
pub const RETRANS_TIMER: Duration = Duration::from_secs(1);
/// Unicast probes before a binding is dropped (RFC 4861 §10 MAX_UNICAST_SOLICIT).
pub const MAX_UNICAST_SOLICIT: u8 = 3;
/// Broadcast questions before a miss has failed (RFC 4861 §10 MAX_MULTICAST_SOLICIT).
pub const MAX_MULTICAST_SOLICIT: u8 = 3;

/// How long a failed question is not asked again, the first time; it doubles up to [`FAILED_TIME_MAX`].
pub const FAILED_TIME: Duration = Duration::from_secs(3);
/// The longest time that a failed question is not asked again.
pub const FAILED_TIME_MAX: Duration = Duration::from_secs(60);

/// Packets that may wait for one answer; the oldest makes room.
pub const MAX_PENDING_PER_QUESTION: usize = 16;
/// Bytes that may wait for answers about one address.
pub const MAX_PENDING_BYTES_PER_ADDRESS: usize = 64 * 1024;
/// Questions of one link, failed ones included.
pub const MAX_QUESTIONS: usize = 16_384;
/// Sharers of an address whose records are looked at for its scheme.
pub const MAX_SCHEME_WITNESSES: usize = 8;
/// Ports of one question where no sharing scheme is known.
pub const QUESTION_BLOCK: u16 = 64;

/// Broadcast questions about one address per second, after a burst of one per PSID.
pub const ADDRESS_QUESTIONS_PER_SECOND: u32 = 20;
/// The burst where no sharing scheme is known.
pub const ADDRESS_QUESTIONS_BURST: u32 = 64;
/// Broadcast questions on one link per second.
pub const LINK_QUESTIONS_PER_SECOND: u32 = 200;

/// How long an address is known to be shared after the last claim to it (PE-ARP rule 26).
pub const SHARED_TIME: Duration = Duration::from_secs(240);
/// Addresses of one link that are remembered as shared because a claim said so.
pub const MAX_LEARNED_SHARED: usize = 16_384;
/// Between two looks for those that may be forgotten.
pub const SHARED_SWEEP_TIME: Duration = Duration::from_secs(1);
/// Claims that are looked at for conflicts to report, and conflicts reported, per second and at once (PE-ARP rule 52).
pub const CONFLICT_REPORTS_PER_SECOND: u32 = 100;
/// How long a binding of which nothing is heard and that nobody uses is kept (PE-ARP rule 32).
pub const IDLE_TIME: Duration = Duration::from_secs(3600);
/// Learned bindings of one link-layer address.
pub const MAX_BINDINGS_PER_HARDWARE: usize = 16;
/// Learned bindings of one IPv4 address.
pub const MAX_BINDINGS_PER_ADDRESS: usize = 4096;
/// Learned bindings of one link.
pub const MAX_BINDINGS: usize = 65_536;
/// Bindings that one answer may take the place of.
pub const MAX_EVICTIONS: usize = 8;
/// Port blocks of all bindings of one link; a ragged range is up to 30 blocks.
pub const MAX_BLOCKS: usize = 262_144;
/// NAKed ranges remembered for one address.
pub const MAX_GAPS: usize = 64;

/// Wait for objections to the one probe of a set that an operator or a lease gave (PE-ARP rule 5).
pub const PROBE_WAIT_AUTHORITATIVE: Duration = Duration::from_millis(200);
/// Probes of a set that nobody gave (RFC 5227 §1.1 PROBE_NUM).
pub const PROBE_NUM: u8 = 3;
/// Longest random wait before the first of them (RFC 5227 §1.1 PROBE_WAIT).
pub const PROBE_WAIT: Duration = Duration::from_secs(1);
/// Shortest time between two of them (RFC 5227 §1.1 PROBE_MIN).
pub const PROBE_MIN: Duration = Duration::from_secs(1);
/// Longest time between two of them (RFC 5227 §1.1 PROBE_MAX).
pub const PROBE_MAX: Duration = Duration::from_secs(2);
/// From the last of them to the first announcement (RFC 5227 §1.1 ANNOUNCE_WAIT).
pub const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
/// Announcements of a new set (RFC 5227 §1.1 ANNOUNCE_NUM).
pub const ANNOUNCE_NUM: u8 = 2;
/// Between two announcements (RFC 5227 §1.1 ANNOUNCE_INTERVAL).
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// Between two defences of a set (RFC 5227 §1.1 DEFEND_INTERVAL).
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// Before a given set that was in use by another host is probed again (RFC 5227 §1.1 RATE_LIMIT_INTERVAL).
pub const RATE_LIMIT_INTERVAL: Duration = Duration::from_secs(60);
/// How long a NAK without a lifetime holds.
pub const GAP_TIME: Duration = Duration::from_secs(60);
/// The longest time that a NAK holds.
pub const GAP_TIME_MAX: Duration = Duration::from_secs(3600);
/// The longest random wait before an answer to SOLICIT-ALL, in microseconds.
pub const SOLICIT_JITTER_MICROS: u64 = 1_000_000;
/// Shortest time between two answered SOLICIT-ALL.
pub const SOLICIT_INTERVAL: Duration = Duration::from_secs(1);
/// Routers that may wait for such an answer at a time.
pub const MAX_SOLICITORS: usize = 16;
/// Nodes that are believed when they speak for others.
pub const MAX_AUTHORITIES: usize = 16;
/// How long after a SOLICIT-ALL its answers are welcome: the jitter, and room for a slow link (PE-ARP rule 20).
pub const SOLICIT_WINDOW: Duration = Duration::from_secs(2);

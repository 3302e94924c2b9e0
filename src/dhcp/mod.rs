//! The DHCP server: leases of whole addresses, and of port sets of shared ones (PE-ARP §15; RFC 2131, RFC 7618).
//!
//! [`Server`] is an engine as the others: messages and the time go in, replies and events come out. What it must not
//! forget it asks to have written down ([`Event::Commit`]), and an acknowledgement leaves only when that is done
//! ([`Server::committed`]), so that no client has a lease of which a server that was killed knows nothing.
//!
//! ```text
//!           DISCOVER            REQUEST                  RELEASE, expiry
//!   (free) ─────────▶ offered ─────────▶ bound (commit) ────────────────▶ released ──▶ (free) after the rest
//!                        │                 │
//!                        └──── DECLINE ────┴─▶ quarantined ──▶ (free)
//! ```

pub mod client;
mod codec;
mod file;
mod lease;
mod limit;
mod pool;
mod server;
#[cfg(test)]
mod tests;

pub use codec::{ClientId, Invalid};
pub use lease::{Lease, LeaseState};
pub use pool::{Pool, PoolKind, Reservation, Who};
pub use server::{Arrival, Config, Destination, Event, Refused, Reply, Server, ServerLink};

//! The same nodes on simulated segments and a virtual clock: deterministic by seed.
//!
//! ```text
//!   programs ── TUN ── [Host] ──┐
//!   programs ── TUN ── [Host] ──┤ lan ── [Router] ── outside ── inet
//!   programs ──────── [Legacy] ─┘
//! ```
//!
//! A [`Scenario`] says what there is, what goes wrong and what is sent. [`run`] plays it for one seed: events in the
//! order of (time, sequence number), every random choice from generators of that seed. Each datagram carries a number
//! of its own, so that the checker knows whose it was and where it ended. A port set can go from host to host; its
//! owner is whoever has it at the moment. The first broken invariant ends the run as a [`Violation`]:
//!
//! - a datagram, and an ICMP error about one, reaches its owner unchanged or nobody, and so do the bytes of a stream
//! - a host sends from no port that is not its own
//! - every frame and packet ends once: what each node counted is what it was given and what it sent, and between
//!   nodes every copy arrives, is lost, or is under way
//! - after `handle_timeout(now)` the next deadline is later than `now`, and an instant has a bounded number of events
//! - no plain ARP has a shared address as sender but the router's (PE-ARP rule 3), no PE-ARP is outside
//! - when all faults are over and time has passed, every flow is answered, every frame goes to the owner of its port
//!   or to a router, and in the end nothing waits

mod checker;
mod frames;
mod legacy;
mod life;
mod packet;
mod programs;
mod queue;
mod report;
mod scenario;
mod segment;
mod station;
mod world;

pub use checker::Violation;
pub use report::Report;
pub use scenario::{
    Action, Chaos, Fault, Faults, Flow, HostSpec, NodeId, NodeKind, NodeSpec, Party, RouterSpec, Scenario,
    SegmentId, SegmentSpec, Service, SetId, SetSpec, Wiring,
};

/// Plays `scenario` with the random choices of `seed`; `capture` also records every frame, as a pcap file.
pub fn run(scenario: &Scenario, seed: u64, capture: bool) -> Report {
    world::World::new(scenario, seed, capture).run()
}

//! Nodes: a sharing host, one that leases what it has, a swarm of hosts, the edge router and a DHCP server beside another
//! router, composed of engines and still sans-IO.
//!
//! A runtime, or the simulation, gives a [`Node`] frames and the time and drains what it wants to send. Every
//! frame ends as exactly one [`Verdict`], and [`Counters`] add up: received + originated = delivered + forwarded +
//! pending + dropped.

mod counters;
mod dhcpd;
mod echo_map;
mod ethernet;
mod explain;
mod host;
#[cfg(test)]
mod hostile;
mod ident_map;
mod leak_map;
mod leased;
mod leasing;
mod router;
mod services;
mod stack;
#[cfg(test)]
pub(crate) mod support;
mod swarm;

pub use counters::{Counters, DropReason};
pub use dhcpd::{Dhcpd, DhcpdConfig};
pub use explain::{Explanation, Fate, Step};
pub use host::{
    Host, HostAddress, HostConfig, HostLinks, HostOptions, Leak, LeakPolicy, SetConfig, SetError,
};
pub use leak_map::MappedLeak;
pub use leased::{LeaseEvent, LeasedConfig, LeasedHost, MAX_LEASES};
pub use leasing::Lessor;
pub use router::{EchoAnswer, Role, Route, Router, RouterConfig, RouterLink, Tally, Traffic};
pub use services::ServicePorts;
pub use stack::{EchoPort, StackError, StreamId, StreamState};
pub use swarm::{MAX_SWARM_HOSTS, Swarm, SwarmConfig, SwarmError, SwarmHost};

use smoltcp::time::Instant;

use crate::neighbor::Entry;
use crate::wire::{Frame, Medium};

/// A link of a node: an index into its links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub usize);

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The frame, rewritten in place, leaves by this link.
    Forward(LinkId),
    /// It was for this node.
    Delivered,
    /// A copy waits until its next hop is resolved.
    Pending,
    /// It ends here.
    Dropped(DropReason),
}

impl<E: Into<DropReason>> From<E> for Verdict {
    fn from(reason: E) -> Self {
        Self::Dropped(reason.into())
    }
}

/// What runs a protocol on links: frames in, verdicts and frames out.
pub trait Node {
    /// Name and medium of each link, in the order of [`LinkId`].
    fn links(&self) -> Vec<(String, Medium)>;

    /// Takes in a frame from a link. With [`Verdict::Forward`] the frame has been rewritten and is to be sent.
    fn handle_frame(&mut self, link: LinkId, frame: &mut Frame, now: Instant) -> Verdict;

    /// The next frame that the node sends by itself.
    fn poll_transmit(&mut self, now: Instant) -> Option<(LinkId, Frame)>;

    /// When [`Node::handle_timeout`] is due next.
    fn poll_timeout(&mut self, now: Instant) -> Option<Instant>;

    /// Does what is due; afterwards the next deadline is later than `now`.
    fn handle_timeout(&mut self, now: Instant);

    /// A link did not take a frame that the node had sent.
    fn send_failed(&mut self, link: LinkId, frame: &Frame);

    /// What was counted so far.
    fn counters(&self) -> &Counters;

    /// The ARP table, with the name of each entry's link.
    fn neighbors(&self, now: Instant) -> Vec<(String, Entry)>;
}

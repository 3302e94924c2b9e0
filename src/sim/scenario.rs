//! What is on the segments, what goes wrong and when, and what is sent.

mod file;

use core::net::Ipv4Addr;

use serde::Deserialize;
use smoltcp::time::Duration;
use smoltcp::wire::Ipv4Cidr;

use crate::node::{Role, Route};
use crate::ports::{PortSet, Scheme};

/// A node: an index into [`Scenario::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// A segment: an index into [`Scenario::segments`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentId(pub usize);

/// A port set: an index into [`Scenario::sets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetId(pub usize);

/// How the nodes of a segment are wired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wiring {
    /// Every node gets every frame.
    Hub,
    /// A unicast frame goes to its receiver, once it is known where that is.
    #[default]
    Switch,
}

/// What goes wrong with a frame on its way to one receiver.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Probability that it is lost.
    pub loss: f64,
    /// Probability that it comes twice.
    pub duplicate: f64,
    /// Probability that later ones may overtake it.
    pub reorder: f64,
    /// Shortest and longest delay.
    pub delay: (Duration, Duration),
}

impl Default for Faults {
    fn default() -> Self {
        let delay = (Duration::from_micros(50), Duration::from_micros(500));
        Self { loss: 0.0, duplicate: 0.0, reorder: 0.0, delay }
    }
}

/// An Ethernet segment.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentSpec {
    /// Its name.
    pub name: String,
    /// The addresses on it.
    pub prefix: Ipv4Cidr,
    /// Whether PE-ARP is spoken there.
    pub role: Role,
    /// How it is wired.
    pub wiring: Wiring,
    /// What goes wrong on it, until the duration is over.
    pub faults: Faults,
}

/// A node and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: NodeKind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// An edge router.
    Router(RouterSpec),
    /// A host that speaks PE-ARP.
    Host(HostSpec),
    /// A host that speaks plain ARP only.
    Legacy {
        /// Where it is.
        segment: SegmentId,
        /// Its address.
        address: Ipv4Addr,
        /// Its router.
        gateway: Ipv4Addr,
    },
}

/// An edge router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterSpec {
    /// Its links, and its address on each.
    pub links: Vec<(SegmentId, Ipv4Addr)>,
    /// Its routes beside those of the links.
    pub routes: Vec<Route>,
    /// It was given every set and its owner, and decides by that (PE-ARP rule 5).
    pub authority: bool,
}

/// A host that speaks PE-ARP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSpec {
    /// Where it is.
    pub segment: SegmentId,
    /// Its router.
    pub gateway: Ipv4Addr,
    /// The set that it has at the start, if any; that of a thief is another host's.
    pub set: Option<SetId>,
    /// It claims a set that is another host's.
    pub thief: bool,
    /// How long it may use a set that was not given to it anew.
    pub lease: Option<Duration>,
}

/// A port set of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSpec {
    /// The address.
    pub address: Ipv4Addr,
    /// The ports.
    pub ports: PortSet,
    /// Who has it at the start.
    pub holder: NodeId,
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It stops, and forgets everything. At time 0 it has never been there.
    Crash,
    /// It starts again, with nothing but its configuration.
    Restart,
    /// Its cables are cut, or that to one segment.
    Partition,
    /// Its cables are mended, or that to one segment.
    Heal,
    /// It gives its set back with a RELEASE, and stops.
    Leave,
    /// Its set goes to another host, with a RELEASE; the set that this one had comes back.
    Move,
    /// Its set goes to another host without a RELEASE: as soon as its lease is over, or, without a lease, with a crash.
    Takeover,
}

/// Something that happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Since the start.
    pub at: Duration,
    /// What happens.
    pub action: Action,
    /// To whom.
    pub node: NodeId,
    /// Which cable; `None` for all.
    pub segment: Option<SegmentId>,
    /// Who gets the set.
    pub to: Option<NodeId>,
}

/// Things that happen at random times to random nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Chaos {
    /// Longest time between two of them.
    pub every: Duration,
    /// Shortest and longest time until a crash, a partition or a leave is made good.
    pub outage: (Duration, Duration),
    /// What may happen: no [`Action::Restart`], no [`Action::Heal`].
    pub actions: Vec<Action>,
    /// To whom.
    pub nodes: Vec<NodeId>,
}

/// What the receiver of a flow offers, and so what answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// A program, which answers with a datagram of its own.
    #[default]
    Program,
    /// The echo service of a sharing host's own stack.
    Stack,
    /// The same by TCP, from the own stack of the sender: a new connection each time.
    Stream,
    /// Nothing: ICMP port unreachable answers.
    Closed,
    /// ICMP echo.
    Ping,
    /// No host at all: random ports of the first shared address that nobody owns. Nothing needs to answer.
    Nobody,
}

/// Who sends or receives: a node, or whoever has a set. Programs move with their set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// A node that stays what it is.
    Node(NodeId),
    /// The holder of a set.
    Set(SetId),
}

/// Datagrams or connections from a program to a service, at equal intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who sends.
    pub from: Party,
    /// Who owns the destination; `None` with [`Service::Nobody`].
    pub to: Option<Party>,
    /// What is there.
    pub service: Service,
    /// The interval.
    pub every: Duration,
}

/// A checked scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// What it is about, in one line.
    pub about: String,
    /// How long things go wrong.
    pub duration: Duration,
    /// How long it may take after that until every flow must be answered.
    pub settle: Duration,
    /// The segments.
    pub segments: Vec<SegmentSpec>,
    /// The shared addresses and their schemes.
    pub shared: Vec<(Ipv4Addr, Scheme)>,
    /// The nodes.
    pub nodes: Vec<NodeSpec>,
    /// The sets of all hosts.
    pub sets: Vec<SetSpec>,
    /// What happens when.
    pub events: Vec<Fault>,
    /// What happens at random.
    pub chaos: Option<Chaos>,
    /// What is sent.
    pub flows: Vec<Flow>,
}

impl Scenario {
    /// The names of all nodes, in the order of [`NodeId`].
    pub fn names(&self) -> Vec<&str> {
        self.nodes.iter().map(|node| node.name.as_str()).collect()
    }

    /// The host behind a node, if it is one.
    pub(super) fn host(&self, node: NodeId) -> Option<&HostSpec> {
        match &self.nodes[node.0].kind {
            NodeKind::Host(host) => Some(host),
            NodeKind::Router(_) | NodeKind::Legacy { .. } => None,
        }
    }

    pub(super) fn is_shared(&self, address: Ipv4Addr) -> bool {
        self.shared.iter().any(|(shared, _)| *shared == address)
    }

    /// The set that has a port of an address.
    pub(super) fn set_of(&self, address: Ipv4Addr, port: u16) -> Option<SetId> {
        let has = |set: &SetSpec| set.address == address && set.ports.contains(port);
        self.sets.iter().position(has).map(SetId)
    }

    /// The segment on which an address is.
    pub(super) fn segment_of(&self, address: Ipv4Addr) -> Option<SegmentId> {
        self.segments.iter().position(|segment| segment.prefix.contains_addr(&address)).map(SegmentId)
    }
}

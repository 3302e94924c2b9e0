//! What is on the links, what goes wrong and when, and what is sent.

mod file;

use core::net::Ipv4Addr;

use serde::Deserialize;
use smoltcp::time::Duration;

use crate::ports::{PortSet, Scheme};

/// A node: the router is 0, then come the hosts, the legacy hosts and `inet`, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub usize);

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

/// A host that speaks PE-ARP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSpec {
    /// Its name.
    pub name: String,
    /// Its address, on the LAN.
    pub address: Ipv4Addr,
    /// Its ports of the address.
    pub set: PortSet,
    /// Claims a set that is another's. The set stays the other's.
    pub thief: bool,
}

/// A host that speaks plain ARP only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacySpec {
    /// Its name.
    pub name: String,
    /// Its address, on the LAN.
    pub address: Ipv4Addr,
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It stops, and forgets everything. At time 0 it has never been there.
    Crash,
    /// It starts again, with nothing but its configuration.
    Restart,
    /// Its cables are cut.
    Partition,
    /// Its cables are mended.
    Heal,
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
    /// Nothing: ICMP port unreachable answers.
    Closed,
    /// ICMP echo.
    Ping,
    /// No host at all: random ports of the first shared address that nobody owns. Nothing needs to answer.
    Nobody,
}

/// Datagrams from a program to a service, at equal intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who sends.
    pub from: NodeId,
    /// Who owns the destination; `None` with [`Service::Nobody`].
    pub to: Option<NodeId>,
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
    /// How the LAN is wired.
    pub wiring: Wiring,
    /// What goes wrong on both segments, until the duration is over.
    pub faults: Faults,
    /// The shared addresses and their schemes.
    pub shared: Vec<(Ipv4Addr, Scheme)>,
    /// The hosts.
    pub hosts: Vec<HostSpec>,
    /// The legacy hosts on the LAN.
    pub legacy: Vec<LegacySpec>,
    /// What happens when.
    pub events: Vec<Fault>,
    /// What is sent.
    pub flows: Vec<Flow>,
}

/// Why a file is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Not TOML, or a field that is unknown, missing or of another type; the message has line and field.
    #[error("{}", .0.to_string().trim_end())]
    Toml(Box<toml::de::Error>),
    /// A value that does not fit.
    #[error("line {line}: {field}: {message}")]
    Value {
        /// Where it is, from 1.
        line: usize,
        /// The field, with its table.
        field: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
}

impl Scenario {
    /// The names of all nodes, in the order of [`NodeId`].
    pub fn names(&self) -> Vec<&str> {
        let hosts = self.hosts.iter().map(|host| host.name.as_str());
        let legacy = self.legacy.iter().map(|legacy| legacy.name.as_str());
        ["router"].into_iter().chain(hosts).chain(legacy).chain(["inet"]).collect()
    }

    /// The host behind a node, if it is one.
    pub(super) fn host(&self, node: NodeId) -> Option<&HostSpec> {
        self.hosts.get(node.0.checked_sub(1)?)
    }
}

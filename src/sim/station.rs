//! A node and its place: what is started, restarted, and attached to the segments.

use core::net::Ipv4Addr;
use std::collections::BTreeSet;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use super::legacy::{Legacy, LegacyConfig};
use super::programs::Conversation;
use super::queue::Key;
use super::scenario::{HostSpec, NodeId, NodeKind, RouterSpec, Scenario, SegmentId, SetId};
use crate::node::{
    EchoAnswer, EchoPort, Host, HostConfig, HostLinks, HostOptions, LeakPolicy, LinkId, Node, Role, Router,
    RouterConfig, RouterLink, SetConfig, StackError,
};
use crate::ports::Portless;
use crate::wire::{Frame, pe_arp};

/// The largest IP packet of every link, in bytes.
const MTU: usize = 1500;

/// A host's link to its programs.
pub(super) const TUN: LinkId = LinkId(1);

/// What runs.
#[derive(Debug)]
pub(super) enum Machine {
    Host(Box<Host>),
    Router(Box<Router>),
    Legacy(Box<Legacy>),
}

/// What went into a machine and came out of it, counted from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Frames and packets that it was given.
    pub(super) given: u64,
    /// Frames and packets that it sent.
    pub(super) sent: u64,
}

/// A cable from a link to a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cable {
    pub(super) segment: SegmentId,
    /// The segment's socket.
    pub(super) socket: usize,
    /// The link-layer address at its end.
    pub(super) hardware: EthernetAddress,
}

/// A node of the scenario, running or not.
#[derive(Debug)]
pub(super) struct Station {
    kind: Kind,
    /// The cable of each link.
    pub(super) cables: Vec<Cable>,
    /// The set that it claims.
    pub(super) set: Option<SetId>,
    /// It is meant to run; without a set, a host does not.
    pub(super) up: bool,
    /// `None` while it is down.
    pub(super) machine: Option<Machine>,
    pub(super) ledger: Ledger,
    /// Where its timer is in the queue.
    pub(super) timer: Option<Key>,
    /// TCP connections of its stack.
    pub(super) conversations: Vec<Conversation>,
}

#[derive(Clone, Debug)]
enum Kind {
    Router(RouterConfig),
    Host(HostSpec),
    Legacy(LegacyConfig),
}

/// The link-layer address of a node's link.
pub(super) const fn hardware(node: NodeId, link: usize) -> EthernetAddress {
    EthernetAddress([2, 0, 0, 0, link as u8, node.0 as u8 + 1])
}

/// The stations of a scenario, in the order of their numbers, not yet attached.
pub(super) fn stations(scenario: &Scenario) -> Vec<Station> {
    let kinds = scenario.nodes.iter().enumerate().map(|(index, node)| {
        let id = NodeId(index);
        match &node.kind {
            NodeKind::Router(spec) => (Kind::Router(router_config(scenario, id, spec)), None),
            NodeKind::Host(spec) => (Kind::Host(spec.clone()), spec.set),
            NodeKind::Legacy { segment, address, gateway } => {
                let address = Ipv4Cidr::new(*address, scenario.segments[segment.0].prefix.prefix_len());
                let config = LegacyConfig { hardware: hardware(id, 0), address, gateway: *gateway, seed: 0 };
                (Kind::Legacy(config), None)
            }
        }
    });
    kinds.map(|(kind, set)| Station::new(kind, set)).collect()
}

fn router_config(scenario: &Scenario, node: NodeId, spec: &RouterSpec) -> RouterConfig {
    let links = spec.links.iter().enumerate().map(|(link, (segment, address))| {
        let segment = &scenario.segments[segment.0];
        RouterLink {
            name: segment.name.clone(),
            role: segment.role,
            hardware: hardware(node, link),
            address: Ipv4Cidr::new(*address, segment.prefix.prefix_len()),
            mtu: MTU,
        }
    });
    RouterConfig {
        links: links.collect(),
        shared: scenario.shared.clone(),
        authority: spec.authority,
        echo: EchoAnswer::Router,
        routes: spec.routes.clone(),
        pro: pe_arp::DEFAULT_PRO,
        seed: 0,
    }
}

/// The configuration of a host with a set.
pub(super) fn host_config(scenario: &Scenario, node: NodeId, spec: &HostSpec, set: SetId) -> HostConfig {
    let segment = &scenario.segments[spec.segment.0];
    let set = &scenario.sets[set.0];
    // Who may answer for others on its link.
    let authorities = scenario.nodes.iter().enumerate().filter_map(|(index, node)| {
        let NodeKind::Router(router) = &node.kind else { return None };
        let link = router.links.iter().position(|(id, _)| *id == spec.segment)?;
        router.authority.then(|| hardware(NodeId(index), link))
    });
    HostConfig {
        options: HostOptions {
            links: HostLinks { lan: segment.name.clone(), tun: "tun".to_owned() },
            hardware: hardware(node, 0),
            stack_ports: None,
            echo: EchoPort::Lowest,
            leaks: LeakPolicy::Reject,
            authorities: authorities.collect(),
            mtu: MTU,
            pro: pe_arp::DEFAULT_PRO,
            seed: 0,
        },
        first: SetConfig {
            address: Ipv4Cidr::new(set.address, segment.prefix.prefix_len()),
            gateway: Some(spec.gateway),
            set: set.ports.clone(),
            portless: Portless::default(),
            lease: None,
        },
    }
}

impl Station {
    fn new(kind: Kind, set: Option<SetId>) -> Self {
        Self {
            kind,
            cables: Vec::new(),
            set,
            up: false,
            machine: None,
            ledger: Ledger::default(),
            timer: None,
            conversations: Vec::new(),
        }
    }

    /// The segments that the links are on.
    pub(super) fn segments(&self, scenario: &Scenario) -> Vec<SegmentId> {
        match &self.kind {
            Kind::Router(config) => {
                let addresses = config.links.iter().map(|link| link.address.address());
                addresses.filter_map(|address| scenario.segment_of(address)).collect()
            }
            Kind::Legacy(config) => scenario.segment_of(config.address.address()).into_iter().collect(),
            Kind::Host(spec) => vec![spec.segment],
        }
    }

    /// Whether it may send plain ARP with a shared address as sender (PE-ARP rule 3).
    pub(super) fn answers_for_shared(&self) -> bool {
        matches!(self.kind, Kind::Router(_))
    }

    pub(super) fn host(&self) -> Option<&HostSpec> {
        match &self.kind {
            Kind::Host(spec) => Some(spec),
            Kind::Router(_) | Kind::Legacy(_) => None,
        }
    }

    pub(super) fn running_host(&mut self) -> Option<&mut Host> {
        match &mut self.machine {
            Some(Machine::Host(host)) => Some(host),
            _ => None,
        }
    }

    /// The addresses of which it is told every owner.
    pub(super) fn authority_for(&self) -> Vec<SegmentId> {
        match &self.kind {
            Kind::Router(config) if config.authority => self
                .cables
                .iter()
                .zip(&config.links)
                .filter(|(_, link)| link.role == Role::Lan)
                .map(|(cable, _)| cable.segment)
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Starts it with nothing but its configuration, and the time that its lease has left.
    pub(super) fn start(
        &mut self,
        scenario: &Scenario,
        node: NodeId,
        lease: Option<Duration>,
        seed: u64,
        now: Instant,
    ) -> Result<(), StackError> {
        self.ledger = Ledger::default();
        self.conversations.clear();
        self.machine = match (&self.kind, self.set) {
            (Kind::Router(config), _) => {
                Some(Machine::Router(Box::new(Router::new(RouterConfig { seed, ..config.clone() }, now))))
            }
            (Kind::Host(_), None) => None,
            (Kind::Host(spec), Some(set)) => {
                let mut config = host_config(scenario, node, spec, set);
                config.first.lease = lease;
                config.options.seed = seed;
                Some(Machine::Host(Box::new(Host::new(config, now)?)))
            }
            (Kind::Legacy(config), _) => {
                Some(Machine::Legacy(Box::new(Legacy::new(LegacyConfig { seed, ..config.clone() }))))
            }
        };
        Ok(())
    }
}

impl Machine {
    /// The node, where it is one.
    pub(super) fn node(&mut self) -> Option<&mut dyn Node> {
        match self {
            Self::Host(host) => Some(&mut **host),
            Self::Router(router) => Some(&mut **router),
            Self::Legacy(_) => None,
        }
    }

    pub(super) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        match self {
            Self::Host(host) => host.poll_timeout(now),
            Self::Router(router) => router.poll_timeout(now),
            Self::Legacy(legacy) => legacy.poll_timeout(),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Host(host) => host.handle_timeout(now),
            Self::Router(router) => router.handle_timeout(now),
            Self::Legacy(legacy) => legacy.handle_timeout(now),
        }
    }

    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<(LinkId, Frame)> {
        match self {
            Self::Host(host) => host.poll_transmit(now),
            Self::Router(router) => router.poll_transmit(now),
            Self::Legacy(legacy) => Some((LinkId(0), legacy.poll_transmit()?)),
        }
    }

    /// Whether what it counted is what went in and came out; the counters, if not.
    pub(super) fn audit(&mut self, ledger: Ledger) -> Result<(), String> {
        match self {
            Self::Legacy(legacy) => {
                let counters = legacy.counters;
                let given = counters.ended() + legacy.waiting();
                let counted = Ledger { given, sent: counters.forwarded + counters.arp_sent };
                if counted == ledger {
                    Ok(())
                } else {
                    Err(format!("{counters:?}, and from outside {ledger:?}"))
                }
            }
            Self::Host(_) | Self::Router(_) => {
                let Some(node) = self.node() else { return Ok(()) };
                let counters = node.counters();
                let counted =
                    Ledger { given: counters.received, sent: counters.forwarded + counters.arp_sent };
                if counters.is_balanced() && counted == ledger {
                    Ok(())
                } else {
                    Err(format!("{counters:?}, and from outside {ledger:?}"))
                }
            }
        }
    }

    /// Packets that wait for an answer.
    pub(super) fn pending(&mut self) -> u64 {
        match self {
            Self::Legacy(legacy) => legacy.waiting(),
            Self::Host(_) | Self::Router(_) => self.node().map_or(0, |node| node.counters().pending),
        }
    }
}

/// What a host's set offers to its programs: the ports of the program part, and the port of the echo service.
pub(super) fn ports_of(scenario: &Scenario, set: SetId) -> Option<(Vec<u16>, Option<u16>)> {
    let node = scenario.sets[set.0].holder;
    // Only a host knows how it divides its set.
    let host = Host::new(host_config(scenario, node, scenario.host(node)?, set), Instant::ZERO).ok()?;
    let ports: BTreeSet<u16> = host.program_part().ports().filter(|port| *port > 0).collect();
    Some((ports.into_iter().collect(), host.stack_use().1))
}

/// The address of a node that is no host.
pub(super) fn address_of(scenario: &Scenario, node: NodeId) -> Option<Ipv4Addr> {
    match &scenario.nodes[node.0].kind {
        NodeKind::Router(router) => router.links.first().map(|(_, address)| *address),
        NodeKind::Legacy { address, .. } => Some(*address),
        NodeKind::Host(_) => None,
    }
}

//! A node with its programs: what is started, restarted, and attached to the segments.

use core::net::Ipv4Addr;
use core::ops::RangeInclusive;
use std::collections::BTreeSet;

use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use super::legacy::{Legacy, LegacyConfig};
use super::queue::Key;
use super::scenario::{HostSpec, Scenario};
use crate::node::{
    EchoPort, Host, HostConfig, HostLinks, LinkId, Node, Role, Router, RouterConfig, RouterLink, StackError,
};
use crate::wire::{Frame, pe_arp};

/// The hosts' prefix (TEST-NET-2).
pub(super) const LAN: Ipv4Cidr = Ipv4Cidr::new(Ipv4Addr::new(198, 51, 100, 0), 24);
/// The router on it.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The router on the outside (TEST-NET-3).
const OUTSIDE_GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The host on the outside.
pub(super) const INET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// Length of the prefixes.
const PREFIX_LEN: u8 = 24;
/// The largest IP packet of every link, in bytes.
const MTU: usize = 1500;

/// The ports of programs of legacy hosts (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// The segments.
pub(super) const LAN_SEGMENT: usize = 0;
pub(super) const OUTSIDE_SEGMENT: usize = 1;

/// A host's link to its programs.
pub(super) const TUN: LinkId = LinkId(1);

/// The link-layer address of the router on the LAN.
pub(super) const ROUTER_HARDWARE: EthernetAddress = hardware(0, 1);
const ROUTER_OUTSIDE_HARDWARE: EthernetAddress = hardware(1, 1);

const fn hardware(kind: u8, number: u8) -> EthernetAddress {
    EthernetAddress([2, 0, 0, 0, kind, number])
}

/// What runs.
#[derive(Debug)]
pub(super) enum Machine {
    Host(Box<Host>),
    Router(Box<Router>),
    Legacy(Box<Legacy>),
}

/// A node of the scenario, running or not.
#[derive(Debug)]
pub(super) struct Station {
    kind: Kind,
    /// Its own address; the router's on the LAN.
    pub(super) address: Ipv4Addr,
    /// The ports that its programs may use, ascending.
    pub(super) program_ports: Vec<u16>,
    /// The port of the echo service of a host's own stack.
    pub(super) echo_port: Option<u16>,
    /// UDP ports with a program.
    pub(super) open: BTreeSet<u16>,
    /// Segment and socket of each link.
    pub(super) sockets: Vec<(usize, usize)>,
    /// `None` while it is down.
    pub(super) machine: Option<Machine>,
    /// Where its timer is in the queue.
    pub(super) timer: Option<Key>,
}

#[derive(Clone, Debug)]
enum Kind {
    Router(RouterConfig),
    Host(HostConfig),
    Legacy(LegacyConfig),
}

/// The stations of a scenario, in the order of their numbers.
pub(super) fn stations(scenario: &Scenario) -> Vec<Station> {
    let links = [
        ("lan", Role::Lan, ROUTER_HARDWARE, GATEWAY),
        ("outside", Role::Outside, ROUTER_OUTSIDE_HARDWARE, OUTSIDE_GATEWAY),
    ];
    let router = RouterConfig {
        links: links
            .map(|(name, role, hardware, address)| RouterLink {
                name: name.to_owned(),
                role,
                hardware,
                address: Ipv4Cidr::new(address, PREFIX_LEN),
                mtu: MTU,
            })
            .into(),
        shared: scenario.shared.clone(),
        routes: Vec::new(),
        pro: pe_arp::DEFAULT_PRO,
        seed: 0,
    };
    let mut stations = vec![Station::new(Kind::Router(router), GATEWAY)];
    for (number, spec) in (1..).zip(&scenario.hosts) {
        stations.push(Station::new(Kind::Host(host_config(spec, number)), spec.address));
    }
    for (number, spec) in (1..).zip(&scenario.legacy) {
        let config = legacy_config(hardware(3, number), spec.address, GATEWAY);
        stations.push(Station::new(Kind::Legacy(config), spec.address));
    }
    let inet = legacy_config(hardware(4, 1), INET, OUTSIDE_GATEWAY);
    stations.push(Station::new(Kind::Legacy(inet), INET));
    stations
}

fn host_config(spec: &HostSpec, number: u8) -> HostConfig {
    HostConfig {
        links: HostLinks { lan: "lan".to_owned(), tun: "tun".to_owned() },
        hardware: hardware(2, number),
        address: Ipv4Cidr::new(spec.address, PREFIX_LEN),
        gateway: Some(GATEWAY),
        set: spec.set.clone(),
        stack_ports: None,
        echo: EchoPort::Lowest,
        authorities: Vec::new(),
        mtu: MTU,
        pro: pe_arp::DEFAULT_PRO,
        seed: 0,
    }
}

fn legacy_config(hardware: EthernetAddress, address: Ipv4Addr, gateway: Ipv4Addr) -> LegacyConfig {
    let address = Ipv4Cidr::new(address, PREFIX_LEN);
    LegacyConfig { hardware, address, gateway, seed: 0 }
}

impl Station {
    fn new(kind: Kind, address: Ipv4Addr) -> Self {
        let (program_ports, echo_port) = match &kind {
            // Only a host knows how it divides its set; one that does not start has no ports.
            Kind::Host(config) => {
                Host::new(config.clone(), Instant::ZERO).map_or((Vec::new(), None), |host| {
                    let ports = host.program_part().ports().filter(|port| *port > 0).collect();
                    (ports, host.stack_use().1)
                })
            }
            Kind::Router(_) | Kind::Legacy(_) => (EPHEMERAL.collect(), None),
        };
        let (open, sockets) = (BTreeSet::new(), Vec::new());
        Self { kind, address, program_ports, echo_port, open, sockets, machine: None, timer: None }
    }

    /// The segments that the links are on.
    pub(super) fn segments(&self) -> &'static [usize] {
        match &self.kind {
            Kind::Router(_) => &[LAN_SEGMENT, OUTSIDE_SEGMENT],
            Kind::Legacy(config) if config.address.address() == INET => &[OUTSIDE_SEGMENT],
            Kind::Host(_) | Kind::Legacy(_) => &[LAN_SEGMENT],
        }
    }

    /// Whether it may send plain ARP with a shared address as sender (PE-ARP rule 3).
    pub(super) fn answers_for_shared(&self) -> bool {
        matches!(self.kind, Kind::Router(_))
    }

    /// Starts it with nothing but its configuration.
    pub(super) fn start(&mut self, seed: u64, now: Instant) -> Result<(), StackError> {
        self.machine = Some(match &self.kind {
            Kind::Router(config) => {
                Machine::Router(Box::new(Router::new(RouterConfig { seed, ..config.clone() }, now)))
            }
            Kind::Host(config) => {
                Machine::Host(Box::new(Host::new(HostConfig { seed, ..config.clone() }, now)?))
            }
            Kind::Legacy(config) => {
                Machine::Legacy(Box::new(Legacy::new(LegacyConfig { seed, ..config.clone() })))
            }
        });
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
}

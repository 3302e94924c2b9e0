//! The one topology of all captures, and the nodes in it that are given frames.
//!
//! ```text
//!   server 203.0.113.80 ── outside 203.0.113.0/24 ── router ── lan 198.51.100.0/24 ── h1, h2, h3: 198.51.100.2 and .3
//!                                                                                   └ legacy: 198.51.100.50, whole
//! ```

use core::fmt;
use std::net::Ipv4Addr;

use pearp::node::{
    EchoAnswer, EchoPort, Host, HostConfig, HostLinks, HostOptions, LeakPolicy, Node, Role, Router,
    RouterConfig, RouterLink, SetConfig,
};
use pearp::ports::{PortSet, Portless, Psid, Scheme};
use pearp::wire::pe_arp::{DEFAULT_PRO, Record};
use pearp::wire::{EthernetAddress, Frame, Medium};
use smoltcp::time::Instant;

use crate::packets::{FULL, announce, arp_request, psid};

/// The router on the LAN.
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// A shared address of scheme (0, 4): the ports of h1 are 4096 to 8191, of h2 8192 to 12287, of h3 12288 to 16383.
pub(crate) const SHARED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// A shared address of scheme (6, 6): h1 has 1040 to 1055, 2064 to 2079 …, h2 has 1056 to 1071, 2080 to 2095 …
pub(crate) const SCATTERED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
/// The whole address of a legacy host.
pub(crate) const LEGACY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 50);
/// On the LAN; nobody knows whether there is such a host.
pub(crate) const UNKNOWN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
/// All hosts of the LAN.
pub(crate) const LAN_BROADCAST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 255);
/// The router outside.
pub(crate) const OUTSIDE_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// A server outside.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// On no link, and the router has no route to it.
pub(crate) const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

/// The router's on the LAN.
pub(crate) const ROUTER_MAC: EthernetAddress = mac(0x01);
/// The router's outside.
pub(crate) const OUTSIDE_MAC: EthernetAddress = mac(0x03);
/// An authority on the LAN, beside the router; hosts believe it.
pub(crate) const AUTHORITY: EthernetAddress = mac(0x05);
/// Has PSID 1 of both shared addresses.
pub(crate) const H1: EthernetAddress = mac(0x11);
/// Has PSID 2 of both shared addresses.
pub(crate) const H2: EthernetAddress = mac(0x12);
/// Has PSID 3 of 198.51.100.2; no router knows that.
pub(crate) const H3: EthernetAddress = mac(0x13);
/// The legacy host's.
pub(crate) const LEGACY_MAC: EthernetAddress = mac(0x50);
/// The server's.
pub(crate) const SERVER_MAC: EthernetAddress = mac(0x80);
/// Nobody's.
pub(crate) const STRANGER: EthernetAddress = mac(0x66);
/// Not known yet.
pub(crate) const NO_MAC: EthernetAddress = EthernetAddress([0; 6]);
/// All of a link.
pub(crate) const EVERYBODY: EthernetAddress = EthernetAddress::BROADCAST;

const fn mac(last: u8) -> EthernetAddress {
    EthernetAddress([2, 0, 0, 0, 0, last])
}

/// The largest IP packet of a link, in bytes, and of a narrow one.
const MTU: usize = 1500;
pub(crate) const NARROW: u16 = 1400;

/// A link of the node under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Link {
    /// Of a router and of a host.
    Lan,
    /// Of a router.
    Outside,
    /// To the programs of a host.
    Tun,
}

impl Link {
    pub(crate) const ALL: [Self; 3] = [Self::Lan, Self::Outside, Self::Tun];

    /// As the node names it, and in the names of files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Outside => "outside",
            Self::Tun => "tun",
        }
    }

    pub(crate) const fn medium(self) -> Medium {
        match self {
            Self::Lan | Self::Outside => Medium::Ethernet,
            Self::Tun => Medium::Ip,
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A node, and what it knows when a capture begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    /// Was granted the leases of h1 and h2; knows the legacy host and the server by plain ARP.
    Router,
    /// The same, and it is the authority.
    Authority,
    /// The same as the first, with a LAN of MTU 1400.
    NarrowLan,
    /// The same as the first, with an outside of MTU 1400.
    NarrowOutside,
    /// Knows nobody.
    NewRouter,
    /// As it starts, at time 0.
    StartingRouter,
    /// h1 with PSID 1 of 198.51.100.2; knows its gateway and h2. Its stack part is 8191, which leaks and echo
    /// identifiers get.
    Host,
    /// The same, but what leaks is rejected.
    StrictHost,
    /// h1, whose stack part is 7680 to 8191, with the echo service on 7680.
    EchoHost,
    /// h1, which knows nobody.
    NewHost,
    /// h1 as it starts, at time 0.
    StartingHost,
    /// A host whose whole address is 198.51.100.2; knows its gateway.
    WholeHost,
    /// The same as it starts, at time 0.
    StartingWholeHost,
}

/// Bindings are learned before this time, when a capture begins.
const START: Instant = Instant::from_micros_const(10_000_000);

impl Setup {
    /// In words, for the description of a case.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Router => {
                "router that was granted the leases of h1 and h2, and knows the legacy host and the server"
            }
            Self::Authority => "router that is the authority, with the leases of h1 and h2",
            Self::NarrowLan => "router whose LAN has an MTU of 1400",
            Self::NarrowOutside => "router whose outside has an MTU of 1400",
            Self::NewRouter => "router that knows nobody",
            Self::StartingRouter => "router that starts at time 0",
            Self::Host => "h1 with PSID 1 of 198.51.100.2, of which its own stack has 8191; knows h2",
            Self::StrictHost => "h1, which rejects what leaks",
            Self::EchoHost => "h1, whose stack has 7680 to 8191 and serves echo on 7680",
            Self::NewHost => "h1, which knows nobody",
            Self::StartingHost => "h1, which starts at time 0",
            Self::WholeHost => "host whose whole address is 198.51.100.2",
            Self::StartingWholeHost => "host whose whole address is 198.51.100.2, which starts at time 0",
        }
    }

    /// When the capture begins.
    pub(crate) const fn start(self) -> Instant {
        match self {
            Self::StartingRouter | Self::StartingHost | Self::StartingWholeHost => Instant::ZERO,
            _ => START,
        }
    }

    /// The node at time 0.
    pub(crate) fn build(self) -> Box<dyn Node> {
        match self {
            Self::Router => Box::new(router(false, MTU, MTU, true)),
            Self::Authority => Box::new(router(true, MTU, MTU, true)),
            Self::NarrowLan => Box::new(router(false, NARROW.into(), MTU, true)),
            Self::NarrowOutside => Box::new(router(false, MTU, NARROW.into(), true)),
            Self::NewRouter | Self::StartingRouter => Box::new(router(false, MTU, MTU, false)),
            Self::Host => Box::new(host(PSID_1, Some(1), EchoPort::Off, LeakPolicy::Map)),
            Self::StrictHost => Box::new(host(PSID_1, Some(1), EchoPort::Off, LeakPolicy::Reject)),
            Self::EchoHost => Box::new(host(PSID_1, None, EchoPort::Lowest, LeakPolicy::Map)),
            Self::NewHost | Self::StartingHost => {
                Box::new(host(PSID_1, Some(1), EchoPort::Off, LeakPolicy::Map))
            }
            Self::WholeHost | Self::StartingWholeHost => {
                Box::new(host("0-65535", Some(1), EchoPort::Off, LeakPolicy::Map))
            }
        }
    }

    /// What it hears from its neighbors before the capture begins.
    pub(crate) fn before(self) -> Vec<(Link, Vec<u8>)> {
        match self {
            Self::Router | Self::Authority | Self::NarrowLan | Self::NarrowOutside => vec![
                (Link::Lan, arp_request((LEGACY_MAC, LEGACY), ROUTER)),
                (Link::Outside, arp_request((SERVER_MAC, SERVER), OUTSIDE_ROUTER)),
            ],
            Self::Host | Self::StrictHost | Self::EchoHost => vec![
                (Link::Lan, announce(ROUTER_MAC, ROUTER, FULL)),
                (Link::Lan, announce(H2, SHARED, psid("0,4,2"))),
            ],
            Self::WholeHost => vec![(Link::Lan, announce(ROUTER_MAC, ROUTER, FULL))],
            Self::NewRouter
            | Self::StartingRouter
            | Self::NewHost
            | Self::StartingHost
            | Self::StartingWholeHost => Vec::new(),
        }
    }
}

const PSID_1: &str = "0,4,1";

fn router(authority: bool, lan: usize, outside: usize, granted: bool) -> Router {
    let link = |name: Link, role, hardware, address: Ipv4Addr, mtu| RouterLink {
        name: name.name().to_owned(),
        role,
        hardware,
        address: smoltcp::wire::Ipv4Cidr::new(address, 24),
        mtu,
    };
    let scheme = |offset, length| Scheme::new(offset, length).unwrap();
    let config = RouterConfig {
        links: vec![
            link(Link::Lan, Role::Lan, ROUTER_MAC, ROUTER, lan),
            link(Link::Outside, Role::Outside, OUTSIDE_MAC, OUTSIDE_ROUTER, outside),
        ],
        shared: vec![(SHARED, scheme(0, 4)), (SCATTERED, scheme(6, 6))],
        authority,
        echo: EchoAnswer::Router,
        routes: Vec::new(),
        pro: DEFAULT_PRO,
        seed: 7,
    };
    let mut router = Router::new(config, Instant::ZERO);
    if granted {
        let mut grant = |ip, hardware, record: Record| {
            router.grant(ip, hardware, &[record], Instant::ZERO).expect("both are on the LAN");
        };
        grant(SHARED, H1, psid("0,4,1"));
        grant(SHARED, H2, psid("0,4,2"));
        grant(SCATTERED, H1, psid("6,6,1"));
        grant(SCATTERED, H2, psid("6,6,2"));
    }
    router
}

fn host(set: &str, stack_ports: Option<u32>, echo: EchoPort, leaks: LeakPolicy) -> Host {
    let config = HostConfig {
        options: HostOptions {
            links: HostLinks { lan: Link::Lan.name().to_owned(), tun: Link::Tun.name().to_owned() },
            hardware: H1,
            stack_ports,
            echo,
            leaks,
            authorities: vec![AUTHORITY],
            mtu: MTU,
            pro: DEFAULT_PRO,
            seed: 7,
        },
        first: SetConfig {
            address: smoltcp::wire::Ipv4Cidr::new(SHARED, 24),
            gateway: Some(ROUTER),
            set: set.parse::<Psid>().map_or(PortSet::FULL, PortSet::Psid),
            portless: Portless::default(),
            lease: None,
        },
    };
    Host::new(config, Instant::ZERO).unwrap()
}

/// A frame as a link of this kind gives it to a node.
pub(crate) fn as_frame(link: Link, bytes: &[u8]) -> Frame {
    match link.medium() {
        Medium::Ethernet => Frame::from_ethernet(bytes),
        Medium::Ip => Frame::from_packet(bytes),
    }
}

//! DHCP on the links of a node: packets to messages and back, leases to bindings (PE-ARP §15).

use core::net::Ipv4Addr;

use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Ipv4Packet};

use super::ethernet::Interface;
use super::leased::{CLIENT_PORT, SERVER_PORT, dhcp_message, is_udp_to};
use super::{DropReason, LinkId, Node, Verdict};
use crate::dhcp::{Arrival, Destination, Event, Lease, Refused, Reply, Server};
use crate::neighbor;
use crate::ports::Psid;
use crate::wire::pe_arp::{Claim, Lifetime, Record};
use crate::wire::{Frame, ipv4};

/// A node that gives leases. Nobody is told of one before it is stored.
pub trait Lessor: Node {
    /// The leases; none without a server.
    fn leases(&self) -> impl Iterator<Item = &Lease> + Clone;

    /// Leases to be stored before anybody is told of them; [`Lessor::committed`] is to follow.
    fn take_commits(&mut self) -> Vec<Lease>;

    /// What was taken is stored, or cannot be.
    fn committed(&mut self, stored: bool, now: Instant);
}

/// The server of a node, and what it wants stored.
#[derive(Debug)]
pub(super) struct Leasing {
    server: Server,
    commits: Vec<Lease>,
}

/// All that a host has leased of an address.
pub(super) struct Granted {
    pub(super) ip: Ipv4Addr,
    pub(super) hardware: EthernetAddress,
    pub(super) records: Vec<Record>,
}

/// A reply of the server.
pub(super) enum Outgoing {
    /// To clients on the link. Nobody could be asked who has port 68 (PE-ARP rule 100).
    Frame(Frame),
    /// To a relay, by the routing table.
    Packet(Vec<u8>),
}

impl From<Refused> for DropReason {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid(_) | Refused::Source => Self::DhcpInvalid,
            Refused::Network => Self::NoService,
            Refused::Limit => Self::DhcpLimit,
        }
    }
}

/// Whether an IP packet that came by this link is one for the DHCP server of the node.
pub(super) fn is_for_server(interface: &Interface, packet: &[u8]) -> bool {
    let Ok(packet) = Ipv4Packet::new_checked(packet) else { return false };
    let to = packet.dst_addr();
    let own = interface.neighbors.whole_address();
    let ours = to.is_broadcast() || interface.broadcast == Some(to) || own == Some(to);
    ours && is_udp_to(&packet, SERVER_PORT)
}

impl Leasing {
    pub(super) fn new(server: Server) -> Self {
        Self { server, commits: Vec::new() }
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> + Clone {
        self.server.leases()
    }

    pub(super) fn take_commits(&mut self) -> Vec<Lease> {
        core::mem::take(&mut self.commits)
    }

    pub(super) fn committed(&mut self, stored: bool, now: Instant) {
        self.server.committed(stored, now);
    }

    /// Takes in a packet for the server, from this Ethernet source.
    pub(super) fn receive(
        &mut self,
        link: LinkId,
        source: EthernetAddress,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let message = dhcp_message(frame)?;
        self.server.handle_message(Arrival { link: link.0, source }, message, now)?;
        Ok(Verdict::Delivered)
    }

    /// The leases of an address that a host has.
    pub(super) fn granted(
        &self,
        ip: Ipv4Addr,
        hardware: EthernetAddress,
        now: Instant,
    ) -> impl Iterator<Item = &Lease> {
        self.server.granted(ip, hardware, now)
    }

    /// The next host whose leases are others than before.
    pub(super) fn poll_granted(&mut self, now: Instant) -> Option<Granted> {
        loop {
            match self.server.poll_event()? {
                Event::Commit(lease) => self.commits.push(lease),
                Event::Bindings { ip, hardware } => {
                    let leased = self.server.granted(ip, hardware, now);
                    // PE-ARP rule 4: who has a whole address answers plain ARP for it.
                    let shared = leased.filter(|lease| lease.set != Psid::FULL);
                    let records = |lease| {
                        let portless = self.server.portless(lease).into_iter().flat_map(Claim::portless);
                        // The server ends the lease.
                        let lifetime = Lifetime::at_least(lease.until - now);
                        let claims = core::iter::once(Claim::Psid(lease.set)).chain(portless);
                        claims.map(move |claim| Record::new(claim, lifetime))
                    };
                    return Some(Granted { ip, hardware, records: shared.flat_map(records).collect() });
                }
            }
        }
    }

    /// The next reply; all that was granted has become bindings before.
    pub(super) fn poll_transmit(&mut self) -> Option<Reply> {
        self.server.poll_transmit()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.server.poll_timeout()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.server.handle_timeout(now);
    }
}

impl Granted {
    /// Tells of a lease that did not become a binding.
    pub(super) fn report(&self, result: Result<(), neighbor::Refused>) {
        match result {
            // Behind a relay there is another router that delivers.
            Ok(()) | Err(neighbor::Refused::OffLink) => {}
            Err(error) => {
                tracing::warn!(ip = %self.ip, hardware = %self.hardware, %error, "a lease has no binding");
            }
        }
    }
}

impl Outgoing {
    /// A reply as it leaves by its link.
    pub(super) fn new(reply: &Reply, interface: &Interface) -> Self {
        let config = interface.neighbors.config();
        // A node that serves has an address of its own.
        let own = interface.neighbors.whole_address().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let from = (own, SERVER_PORT);
        let (hardware, to) = match reply.destination {
            Destination::Relay(relay) => {
                return Self::Packet(ipv4::udp(from, (relay, SERVER_PORT), &reply.message));
            }
            Destination::Broadcast => (EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST),
            Destination::Client(hardware, ip) => (hardware, ip),
        };
        let mut frame = Frame::from_packet(&ipv4::udp(from, (to, CLIENT_PORT), &reply.message));
        frame.push_ethernet_header(config.hardware, hardware);
        Self::Frame(frame)
    }
}

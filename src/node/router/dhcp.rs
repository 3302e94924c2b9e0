//! The DHCP server of a router: packets to messages and back, leases to bindings (PE-ARP §15).

use core::net::Ipv4Addr;

use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Ipv4Packet};

use super::Router;
use crate::dhcp::{Arrival, Destination, Event, Lease, Refused, Reply, Server};
use crate::neighbor;
use crate::node::leased::{CLIENT_PORT, SERVER_PORT, dhcp_message, is_udp_to};
use crate::node::{DropReason, LinkId, Verdict};
use crate::ports::Psid;
use crate::wire::pe_arp::{Claim, Lifetime, Record};
use crate::wire::{Frame, ipv4};

/// The server, and what it wants stored.
#[derive(Debug)]
pub(super) struct Dhcp {
    pub(super) server: Server,
    commits: Vec<Lease>,
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

impl Router {
    /// Serves DHCP on the links of the server's configuration. Leases of shared addresses become bindings.
    pub fn serve_dhcp(&mut self, server: Server, now: Instant) {
        self.dhcp = Some(Dhcp { server, commits: Vec::new() });
        self.drain(now);
    }

    /// The leases; none without a server.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> + Clone {
        self.dhcp.iter().flat_map(|dhcp| dhcp.server.leases())
    }

    /// Leases to be stored before anybody is told of them; [`Router::committed`] is to follow.
    pub fn take_commits(&mut self) -> Vec<Lease> {
        self.dhcp.as_mut().map(|dhcp| core::mem::take(&mut dhcp.commits)).unwrap_or_default()
    }

    /// What was taken is stored, or cannot be.
    pub fn committed(&mut self, stored: bool, now: Instant) {
        if let Some(dhcp) = &mut self.dhcp {
            dhcp.server.committed(stored, now);
            self.drain(now);
        }
    }

    /// Whether an IP packet from a LAN is one for the DHCP server.
    pub(super) fn is_dhcp(&self, link: LinkId, packet: &[u8]) -> bool {
        let attached = &self.links[link.0];
        if self.dhcp.is_none() || !attached.pe {
            return false;
        }
        let Ok(packet) = Ipv4Packet::new_checked(packet) else { return false };
        let to = packet.dst_addr();
        let ours = to.is_broadcast() || attached.prefix.broadcast() == Some(to) || attached.address == to;
        ours && is_udp_to(&packet, SERVER_PORT)
    }

    pub(super) fn receive_dhcp(
        &mut self,
        link: LinkId,
        source: EthernetAddress,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let message = dhcp_message(frame)?;
        let Some(dhcp) = &mut self.dhcp else { return Err(DropReason::NoService) };
        let arrival = Arrival { link: link.0, source };
        dhcp.server.handle_message(arrival, message, now)?;
        Ok(Verdict::Delivered)
    }

    /// Does what the server wants.
    pub(super) fn drain_dhcp(&mut self, now: Instant) {
        while let Some(dhcp) = &mut self.dhcp
            && let Some(event) = dhcp.server.poll_event()
        {
            match event {
                Event::Commit(lease) => dhcp.commits.push(lease),
                Event::Bindings { ip, hardware } => {
                    let leased = dhcp.server.leased(ip, hardware, now);
                    // PE-ARP rule 4: who has a whole address answers plain ARP for it.
                    let shared = leased.filter(|(set, _)| *set != Psid::FULL);
                    // The server ends the lease.
                    let record = |(set, left)| Record::new(Claim::Psid(set), Lifetime::at_least(left));
                    let records: Vec<_> = shared.map(record).collect();
                    match self.bind(ip, hardware, &records, now) {
                        // Behind a relay there is another router that delivers.
                        Ok(()) | Err(neighbor::Refused::OffLink) => {}
                        Err(error) => tracing::warn!(%ip, %hardware, %error, "a lease has no binding"),
                    }
                }
            }
        }
        while let Some(dhcp) = &mut self.dhcp
            && let Some(reply) = dhcp.server.poll_transmit()
        {
            self.send_dhcp(&reply, now);
        }
    }

    fn send_dhcp(&mut self, reply: &Reply, now: Instant) {
        let link = LinkId(reply.link);
        let Some(attached) = self.links.get(reply.link) else { return };
        let own_hardware = attached.interface.neighbors.config().hardware;
        let from = (attached.address, SERVER_PORT);
        let (hardware, to) = match reply.destination {
            Destination::Relay(relay) => {
                self.originate(&ipv4::udp(from, (relay, SERVER_PORT), &reply.message), now);
                return;
            }
            Destination::Broadcast => (EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST),
            Destination::Client(hardware, ip) => (hardware, ip),
        };
        let mut frame = Frame::from_packet(&ipv4::udp(from, (to, CLIENT_PORT), &reply.message));
        frame.push_ethernet_header(own_hardware, hardware);
        self.counters.originated += 1;
        self.counters.count(Verdict::Forward(link));
        self.transmits.push_back((link, frame));
    }
}

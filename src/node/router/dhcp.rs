//! The DHCP server of a router (PE-ARP §15).

use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use super::Router;
use super::accounts::Accounts;
use crate::dhcp::{Lease, Server};
use crate::node::ethernet::transmit_own;
use crate::node::leasing::{Leasing, Lessor, Outgoing, is_for_server};
use crate::node::{DropReason, LinkId, Verdict};
use crate::wire::Frame;

impl Router {
    /// Serves DHCP on the links of the server's configuration. Leases of shared addresses become bindings.
    pub fn serve_dhcp(&mut self, server: Server, now: Instant) {
        self.dhcp = Some(Leasing::new(server));
        self.accounts = Some(Accounts::new(self.links.len()));
        self.drain(now);
    }

    /// Whether an IP packet from a LAN is one for the DHCP server.
    pub(super) fn is_dhcp(&self, link: LinkId, packet: &[u8]) -> bool {
        let attached = &self.links[link.0];
        self.dhcp.is_some() && attached.pe && is_for_server(&attached.interface, packet)
    }

    pub(super) fn receive_dhcp(
        &mut self,
        link: LinkId,
        source: EthernetAddress,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let Some(dhcp) = &mut self.dhcp else { return Err(DropReason::NoService) };
        dhcp.receive(link, source, frame, now)
    }

    /// Does what the server wants.
    pub(super) fn drain_dhcp(&mut self, now: Instant) {
        while let Some(granted) = self.dhcp.as_mut().and_then(|dhcp| dhcp.poll_granted(now)) {
            let result = self.bind(granted.ip, granted.hardware, &granted.records, now);
            if result.is_ok() {
                self.open_accounts(granted.ip, granted.hardware, now);
            }
            granted.report(result);
        }
        while let Some(reply) = self.dhcp.as_mut().and_then(Leasing::poll_transmit) {
            let Some(attached) = self.links.get(reply.link) else { continue };
            match Outgoing::new(&reply, &attached.interface) {
                Outgoing::Packet(packet) => self.originate(&packet, now),
                Outgoing::Frame(frame) => {
                    let verdict = Verdict::Forward(LinkId(reply.link));
                    transmit_own(&mut self.counters, &mut self.transmits, frame, verdict);
                }
            }
        }
    }
}

impl Lessor for Router {
    fn leases(&self) -> impl Iterator<Item = &Lease> + Clone {
        self.dhcp.iter().flat_map(Leasing::leases)
    }

    fn take_commits(&mut self) -> Vec<Lease> {
        self.dhcp.as_mut().map(Leasing::take_commits).unwrap_or_default()
    }

    fn committed(&mut self, stored: bool, now: Instant) {
        if let Some(dhcp) = &mut self.dhcp {
            dhcp.committed(stored, now);
            self.drain(now);
        }
    }
}

//! What every frame on a segment, and every packet to a program, must keep to.

use smoltcp::wire::{ArpPacket, EthernetAddress, EthernetFrame};

use super::checker::Violation;
use super::scenario::{NodeId, SegmentId};
use super::world::World;
use crate::node::Role;
use crate::wire::{ETHERNET_HEADER, EthernetProtocol, FlowKey, FlowKind, ipv4};

impl World<'_> {
    /// A node sends a frame on a segment.
    pub(super) fn check_frame(
        &self,
        node: NodeId,
        segment: SegmentId,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        if bytes.len() < ETHERNET_HEADER {
            return Ok(());
        }
        let ethernet = EthernetFrame::new_unchecked(bytes);
        match ethernet.ethertype() {
            EthernetProtocol::Arp => self.check_arp(node, segment, ethernet.payload()),
            EthernetProtocol::Ipv4 => {
                let Some(key) =
                    ipv4::check(ethernet.payload()).ok().and_then(|packet| FlowKey::of(&packet).ok())
                else {
                    return Ok(());
                };
                self.check_source(node, &key)?;
                self.check_next_hop(node, segment, ethernet.dst_addr(), &key)
            }
            _ => Ok(()),
        }
    }

    fn check_arp(&self, node: NodeId, segment: SegmentId, arp: &[u8]) -> Result<(), Violation> {
        let Ok(arp) = ArpPacket::new_checked(arp) else { return Ok(()) };
        if arp.protocol_type() != EthernetProtocol::Ipv4 {
            return match self.scenario.segments[segment.0].role {
                Role::Lan => Ok(()),
                Role::Outside => Err(Violation::PeArpOutside { node: self.checker.name(node) }),
            };
        }
        let shared = |(ip, _): &(core::net::Ipv4Addr, _)| arp.source_protocol_addr() == ip.octets();
        if self.scenario.shared.iter().any(shared) && !self.stations[node.0].answers_for_shared() {
            return Err(Violation::PlainForShared { node: self.checker.name(node) });
        }
        Ok(())
    }

    /// What a host sends comes from its own ports.
    fn check_source(&self, node: NodeId, key: &FlowKey) -> Result<(), Violation> {
        let honest = self.stations[node.0].host().is_some_and(|host| !host.thief);
        if !honest || !matches!(key.kind, FlowKind::Transport | FlowKind::EchoRequest) {
            return Ok(());
        }
        let Some(port) = key.source else { return Ok(()) };
        let set = self.scenario.set_of(key.source_address, port);
        if set.is_some_and(|set| self.holders.0[set.0] == node) {
            return Ok(());
        }
        Err(Violation::ForeignSource { node: self.checker.name(node), address: key.source_address, port })
    }

    /// When all is well, what is for a port goes to its owner at once, or to a router.
    fn check_next_hop(
        &self,
        node: NodeId,
        segment: SegmentId,
        destination: EthernetAddress,
        key: &FlowKey,
    ) -> Result<(), Violation> {
        let address = key.destination_address;
        let Some(port) = key.destination.filter(|_| self.settled && self.scenario.is_shared(address)) else {
            return Ok(());
        };
        let owner = self.scenario.set_of(address, port).map(|set| self.holders.0[set.0]);
        let allowed = self.stations.iter().enumerate().any(|(index, station)| {
            let owns = owner == Some(NodeId(index)) || station.answers_for_shared();
            owns && station
                .cables
                .iter()
                .any(|cable| cable.segment == segment && cable.hardware == destination)
        });
        if allowed {
            return Ok(());
        }
        Err(Violation::WrongNextHop { node: self.checker.name(node), address, port, destination })
    }

    /// A packet that is no datagram of the simulation reaches the programs of a node: TCP that no socket wants.
    pub(super) fn check_unknown(&self, node: NodeId, packet: &[u8]) -> Result<(), Violation> {
        let Some(key) = ipv4::check(packet).ok().and_then(|packet| FlowKey::of(&packet).ok()) else {
            return Ok(());
        };
        let (address, Some(port)) = (key.destination_address, key.destination) else { return Ok(()) };
        let owner = self.scenario.set_of(address, port).map(|set| self.holders.0[set.0]);
        if !self.scenario.is_shared(address) || owner == Some(node) {
            return Ok(());
        }
        Err(Violation::ForeignPort { node: self.checker.name(node), address, port })
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::sim::Scenario;
    use crate::sim::packet::udp;
    use crate::sim::station::{Ledger, Machine, hardware};
    use crate::wire::Frame;

    const SHARED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const INET: (Ipv4Addr, u16) = (Ipv4Addr::new(203, 0, 113, 80), 40_000);
    const ROUTER: NodeId = NodeId(0);
    const H1: NodeId = NodeId(2);
    const H2: NodeId = NodeId(3);
    const LAN: SegmentId = SegmentId(0);

    fn scenario() -> Scenario {
        let text = "about = \"a test\"\nduration = 1\nsettle = 1\n
            [[shared]]\naddress = \"198.51.100.2\"\nscheme = [0, 4]
            [[host]]\nname = \"h1\"\npsid = 1\n[[host]]\nname = \"h2\"\npsid = 2";
        Scenario::parse(text).unwrap()
    }

    fn to(hardware: EthernetAddress, packet: &[u8]) -> Vec<u8> {
        let mut frame = Frame::from_packet(packet);
        frame.push_ethernet_header(EthernetAddress([2, 0, 0, 0, 9, 9]), hardware);
        frame.bytes().to_vec()
    }

    #[test]
    fn a_foreign_source_is_noticed() {
        let scenario = scenario();
        let world = World::new(&scenario, 1, false);
        let frame = |port| to(hardware(ROUTER, 0), &udp((SHARED, port), INET, 0));
        assert_eq!(world.check_frame(H1, LAN, &frame(5000)), Ok(()));
        let violation = world.check_frame(H1, LAN, &frame(9000)).unwrap_err();
        assert!(matches!(violation, Violation::ForeignSource { port: 9000, .. }), "{violation}");
        assert_eq!(world.check_frame(ROUTER, LAN, &frame(9000)), Ok(()), "a router forwards");
    }

    #[test]
    fn a_wrong_next_hop_is_noticed_once_all_is_well() {
        let scenario = scenario();
        let mut world = World::new(&scenario, 1, false);
        let packet = udp(INET, (SHARED, 5000), 0);
        let wrong = to(hardware(H2, 0), &packet);
        assert_eq!(world.check_frame(ROUTER, LAN, &wrong), Ok(()));
        world.settled = true;
        let violation = world.check_frame(ROUTER, LAN, &wrong).unwrap_err();
        assert!(matches!(violation, Violation::WrongNextHop { port: 5000, .. }), "{violation}");
        assert_eq!(world.check_frame(ROUTER, LAN, &to(hardware(H1, 0), &packet)), Ok(()));
        let hairpin = udp((SHARED, 9000), (SHARED, 5000), 0);
        assert_eq!(world.check_frame(H2, LAN, &to(hardware(ROUTER, 0), &hairpin)), Ok(()));
    }

    #[test]
    fn a_foreign_port_is_noticed() {
        let scenario = scenario();
        let world = World::new(&scenario, 1, false);
        let packet = udp(INET, (SHARED, 5000), 0);
        assert_eq!(world.check_unknown(H1, &packet), Ok(()));
        let violation = world.check_unknown(H2, &packet).unwrap_err();
        assert!(matches!(violation, Violation::ForeignPort { port: 5000, .. }), "{violation}");
    }

    #[test]
    fn a_frame_that_did_not_end_is_noticed() {
        let scenario = scenario();
        for node in [ROUTER, NodeId(1), H1] {
            let mut world = World::new(&scenario, 1, false);
            world.start(node).unwrap();
            let station = &mut world.stations[node.0];
            let ledger = station.ledger;
            let machine: &mut Machine = station.machine.as_mut().unwrap();
            assert_eq!(machine.audit(ledger), Ok(()));
            assert!(machine.audit(Ledger { given: ledger.given + 1, ..ledger }).is_err());
            assert!(machine.audit(Ledger { sent: ledger.sent + 1, ..ledger }).is_err());
        }
    }
}

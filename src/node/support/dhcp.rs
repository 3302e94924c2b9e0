//! DHCP messages of clients, and what a server says to them.

use core::net::Ipv4Addr;

use dhcproto::v4::{self, DhcpOption, MessageType, OptionCode, UnknownOption};
use dhcproto::{Decodable, Decoder, Encodable};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Ipv4Packet, UdpPacket};

use super::{SHARED, ethernet, packet_of, udp};
use crate::neighbor::Entry;
use crate::node::{Counters, Lessor, LinkId, Node, Verdict};
use crate::ports::Psid;
use crate::wire::{Frame, Medium};

const EVERYBODY: Ipv4Addr = Ipv4Addr::BROADCAST;
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// A message of a client that can share.
pub(in crate::node) fn message(
    kind: MessageType,
    hardware: EthernetAddress,
    options: &[DhcpOption],
) -> v4::Message {
    let mut message = v4::Message::new_with_id(1, NOBODY, NOBODY, NOBODY, NOBODY, hardware.as_bytes());
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    let listed = vec![OptionCode::SubnetMask, OptionCode::from(159)];
    message.opts_mut().insert(DhcpOption::ParameterRequestList(listed));
    for option in options {
        message.opts_mut().insert(option.clone());
    }
    message
}

pub(in crate::node) fn from_client(hardware: EthernetAddress, message: &v4::Message) -> Frame {
    let packet = udp((NOBODY, 68), (EVERYBODY, 67), &message.to_vec().unwrap());
    let mut frame = ethernet(hardware, EthernetAddress::BROADCAST, &packet);
    frame.offload = Default::default();
    frame
}

/// A request for a set of [`SHARED`] that this server offered.
pub(in crate::node) fn request(server: Ipv4Addr, hardware: EthernetAddress, set: &str) -> v4::Message {
    let set: Psid = set.parse().unwrap();
    let [high, low] = set.left_aligned().to_be_bytes();
    let data = vec![set.scheme().offset(), set.scheme().length(), high, low];
    message(
        MessageType::Request,
        hardware,
        &[
            DhcpOption::ServerIdentifier(server),
            DhcpOption::RequestedIpAddress(SHARED),
            DhcpOption::Unknown(UnknownOption::new(OptionCode::from(159), data)),
        ],
    )
}

/// Destination and message of a frame of this server to a client; its checksums are right.
pub(in crate::node) fn answer(server: Ipv4Addr, frame: &Frame) -> (Ipv4Addr, v4::Message) {
    let packet = Ipv4Packet::new_checked(packet_of(frame)).unwrap();
    let udp = UdpPacket::new_checked(packet.payload()).unwrap();
    assert!(udp.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into()));
    assert_eq!((packet.src_addr(), udp.src_port(), udp.dst_port()), (server, 67, 68));
    (packet.dst_addr(), v4::Message::decode(&mut Decoder::new(udp.payload())).unwrap())
}

/// A node whose lease file always works.
#[derive(Debug)]
pub(in crate::node) struct Stored<N>(pub(in crate::node) N);

impl<N: Lessor> Stored<N> {
    fn commit(&mut self, now: Instant) {
        if !self.0.take_commits().is_empty() {
            self.0.committed(true, now);
        }
    }
}

impl<N: Lessor> Node for Stored<N> {
    fn links(&self) -> Vec<(String, Medium)> {
        self.0.links()
    }

    fn handle_frame(&mut self, link: LinkId, frame: &mut Frame, now: Instant) -> Verdict {
        let verdict = self.0.handle_frame(link, frame, now);
        self.commit(now);
        verdict
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<(LinkId, Frame)> {
        self.0.poll_transmit(now)
    }

    fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        self.0.poll_timeout(now)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
        self.commit(now);
    }

    fn send_failed(&mut self, link: LinkId, frame: &Frame) {
        self.0.send_failed(link, frame);
    }

    fn counters(&self) -> &Counters {
        self.0.counters()
    }

    fn neighbors(&self, now: Instant) -> Vec<(String, Entry)> {
        self.0.neighbors(now)
    }
}

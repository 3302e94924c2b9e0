//! Bytes to meaning and back: PE-ARP, the frame buffer, offload headers and segmentation, flow keys, fragments, and what
//! IPv4 and ICMP need beside [`smoltcp::wire`].
//!
//! **Panic contract.** Nothing here panics on any input: views are made by `new_checked`, which verifies every
//! length that the accessors rely on.

mod checksum;
mod flow_key;
mod fragment;
mod frame;
pub mod icmp;
pub mod ipv4;
mod offload;
pub mod pe_arp;
mod segment;

pub use flow_key::{FlowKey, FlowKind, Unkeyed};
pub use fragment::{Datagram, FRAGMENT_UNIT, Piece, fragments};
pub use frame::{ETHERNET_HEADER, Frame, MIN_ETHERNET_FRAME, Medium};
pub use offload::{Checksum, Gso, GsoKind, Offload, OffloadError, VIRTIO_NET_HEADER};
pub use segment::{SegmentError, Segments};
pub use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Cidr,
    Ipv4Packet,
};

/// The IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// The IP protocol number of TCP.
pub const TCP: u8 = 6;
/// The IP protocol number of UDP.
pub const UDP: u8 = 17;
/// The IP protocol number of DCCP.
pub const DCCP: u8 = 33;
/// The IP protocol number of GRE.
pub const GRE: u8 = 47;
/// The IP protocol number of ESP.
pub const ESP: u8 = 50;
/// The IP protocol number of SCTP.
pub const SCTP: u8 = 132;
/// The IP protocol number of UDP-Lite.
pub const UDP_LITE: u8 = 136;

/// Whether one host can have this link-layer address: neither a group's nor all zeros.
pub fn is_station(address: EthernetAddress) -> bool {
    address.is_unicast() && address.0 != [0; 6]
}

/// A link-layer address as it is written: six bytes with colons between them.
pub fn written(address: EthernetAddress) -> String {
    address.0.map(|byte| format!("{byte:02x}")).join(":")
}

/// Encodes a plain ARP message for an Ethernet frame from `source` to `destination`, padded to 60 bytes.
pub fn plain_arp(source: EthernetAddress, destination: EthernetAddress, message: &ArpRepr) -> Frame {
    let mut frame = Frame::ethernet(source, destination, EthernetProtocol::Arp, message.buffer_len());
    message.emit(&mut ArpPacket::new_unchecked(&mut frame.bytes_mut()[ETHERNET_HEADER..]));
    frame
}

/// Encodes a PE-ARP message for an Ethernet frame from its sender to `destination`, padded to 60 bytes.
pub fn pe_arp_frame(destination: EthernetAddress, message: &pe_arp::Message, pro: u16) -> Frame {
    let source = message.sender_hardware;
    let mut frame = Frame::ethernet(source, destination, EthernetProtocol::Arp, message.buffer_len());
    let payload = &mut frame.bytes_mut()[ETHERNET_HEADER..][..message.buffer_len()];
    message.emit(&mut pe_arp::Packet::new_unchecked(payload), pro);
    frame
}

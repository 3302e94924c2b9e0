//! Sockets that the standard library does not offer: raw ones, for protocols that the kernel does not speak, and UDP-Lite.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use pearp::wire::{Ipv4Packet, fragments, ipv4};
use socket2::{Domain, Protocol, Socket, Type};

use super::lab::Lab;
use super::wait::PATIENCE;

/// Numbers of IP protocols.
pub(crate) const DCCP: u8 = 33;
pub(crate) const GRE: u8 = 47;
pub(crate) const ESP: u8 = 50;
pub(crate) const SCTP: u8 = 132;
pub(crate) const UDP_LITE: u8 = 136;

/// The protocol of a socket that sends packets with the IP header that they have (`IPPROTO_RAW`).
const WITH_HEADER: u8 = 255;

/// Room for any IPv4 packet.
const LARGEST: usize = 65_535;

fn open(lab: &Lab, node: &str, kind: Type, protocol: u8) -> Socket {
    let protocol = Protocol::from(i32::from(protocol));
    let opened = lab.inside(node, || Socket::new(Domain::IPV4, kind, Some(protocol)));
    let socket = opened.unwrap_or_else(|error| panic!("{node}, {protocol:?}: {error}"));
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket may wait");
    socket
}

/// A raw socket of one IP protocol in the namespace of a node. It hears all packets of that protocol, whole datagrams.
#[derive(Debug)]
pub(crate) struct Raw {
    socket: Socket,
    node: String,
}

impl Raw {
    #[track_caller]
    pub(crate) fn open(lab: &Lab, node: &str, protocol: u8) -> Self {
        Self { socket: open(lab, node, Type::RAW, protocol), node: node.to_owned() }
    }

    /// Sends this behind an IP header.
    #[track_caller]
    pub(crate) fn send(&self, to: &str, data: &[u8]) {
        let to = SocketAddr::new(to.parse().expect("an address"), 0);
        let sent = self.socket.send_to(data, &to.into());
        assert_eq!(sent.ok(), Some(data.len()), "{} to {to}", self.node);
    }

    /// The next packet: where it is from, and what is behind its IP header.
    #[track_caller]
    pub(crate) fn receive(&self) -> (Ipv4Addr, Vec<u8>) {
        let mut space = vec![0; LARGEST];
        let received = (&self.socket).read(&mut space);
        let len = received.unwrap_or_else(|error| panic!("{} hears nothing: {error}", self.node));
        let packet = Ipv4Packet::new_checked(&space[..len]).expect("the kernel has checked it");
        (packet.src_addr(), packet.payload().to_vec())
    }

    /// Asserts that this is the next packet, and from this address.
    #[track_caller]
    pub(crate) fn hears(&self, from: &str, data: &[u8]) {
        let (source, heard) = self.receive();
        assert_eq!((source.to_string().as_str(), &heard[..]), (from, data), "at {}", self.node);
    }
}

/// A UDP-Lite socket (RFC 3828) in the namespace of a node, bound to a port; 0 is one of the kernel's choice. Whatever kind of
/// datagrams a socket has, it is used in the same way.
#[track_caller]
pub(crate) fn udp_lite(lab: &Lab, node: &str, port: u16) -> UdpSocket {
    let socket = open(lab, node, Type::DGRAM, UDP_LITE);
    let here = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    socket.bind(&here.into()).unwrap_or_else(|error| panic!("{node} cannot bind {port}: {error}"));
    socket.into()
}

/// Sends packets that a test has made itself, IP header included.
#[derive(Debug)]
pub(crate) struct Crafter(Socket);

impl Crafter {
    #[track_caller]
    pub(crate) fn open(lab: &Lab, node: &str) -> Self {
        Self(open(lab, node, Type::RAW, WITH_HEADER))
    }

    #[track_caller]
    pub(crate) fn send(&self, packet: &[u8]) {
        let to = Ipv4Packet::new_checked(packet).expect("a packet").dst_addr();
        let to = SocketAddr::from((to, 0));
        assert_eq!(self.0.send_to(packet, &to.into()).expect("the kernel sends it"), packet.len());
    }
}

/// The fragments, of at most `mtu` bytes, of a UDP datagram with this identification.
pub(crate) fn udp_in_fragments(
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    identification: u16,
    data: &[u8],
    mtu: usize,
) -> Vec<Vec<u8>> {
    let mut bytes = ipv4::udp(from, to, data);
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    packet.clear_flags();
    packet.set_ident(identification);
    packet.fill_checksum();
    fragments(&bytes, mtu).expect("it may be cut").collect()
}

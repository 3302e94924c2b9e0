//! What the attendant finds out in /proc.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use super::PortsInUse;
use crate::runtime::sockets::{Owner, Socket, SocketKind, read_sockets, read_tables};
use crate::wire::{TCP, UDP};

/// Whose sockets are whose is read at most so often: with many processes that takes milliseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The protocol of a raw socket for whole packets: `IPPROTO_RAW`.
const HEADER_INCLUDED: u16 = 255;

/// The ports of TCP and UDP sockets in the network namespace of this process that can send from one of these addresses.
pub(super) fn ports_in_use(addresses: &[Ipv4Addr]) -> io::Result<PortsInUse> {
    let sockets = read_tables(Path::new("/proc"))?;
    let port = |socket: &Socket| match (socket.kind, socket.local) {
        (SocketKind::Tcp | SocketKind::Udp, (IpAddr::V4(ip), port)) => Some((ip, port)),
        // One for IPv6 serves IPv4, too.
        (SocketKind::Tcp | SocketKind::Udp, (ip, port)) if ip.is_unspecified() => {
            Some((Ipv4Addr::UNSPECIFIED, port))
        }
        _ => None,
    };
    let asked = |(ip, _): &(Ipv4Addr, u16)| ip.is_unspecified() || addresses.contains(ip);
    let mut ports: Vec<_> = sockets.iter().filter_map(port).filter(asked).collect();
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

/// Finds the programs that have ports.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// When /proc was read last, and what it said.
    looked: Option<(Instant, Vec<Socket>)>,
}

impl Owners {
    /// The program that has this port of a protocol, as far as it can be told.
    pub(super) fn find(&mut self, protocol: u8, port: u16, now: Instant) -> Option<Owner> {
        // Not longer: the port may be another program's by now, and who made packets by hand may have ended.
        if let Some((at, sockets)) = &self.looked
            && now < *at + LOOK_AGAIN
        {
            return owner(sockets, protocol, port);
        }
        // Without /proc there is nobody to name.
        let sockets = read_sockets(Path::new("/proc")).unwrap_or_default();
        let owner = owner(&sockets, protocol, port);
        self.looked = Some((now, sockets));
        owner
    }
}

fn owner(sockets: &[Socket], protocol: u8, port: u16) -> Option<Owner> {
    let kind = match protocol {
        TCP => Some(SocketKind::Tcp),
        UDP => Some(SocketKind::Udp),
        // Not in those tables of /proc that are read.
        _ => None,
    };
    let of_port = |socket: &&Socket| Some(socket.kind) == kind && socket.local.1 == port;
    let owner = sockets.iter().filter(of_port).find_map(|socket| socket.owner.clone());
    // Who makes packets by hand has no socket with the port; where there is one such program, it is that. Those of other
    // protocols are not asked about: ping has one for ICMP.
    owner.or_else(|| {
        let protocols = [u16::from(protocol), HEADER_INCLUDED];
        let of_protocol =
            |socket: &&Socket| socket.kind == SocketKind::Raw && protocols.contains(&socket.local.1);
        let mut by_hand = sockets.iter().filter(of_protocol);
        let first = by_hand.find_map(|socket| socket.owner.clone())?;
        let alone = by_hand.filter_map(|socket| socket.owner.as_ref()).all(|other| *other == first);
        alone.then_some(first)
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::wire::UDP_LITE;

    /// Looks until there is a result. The kernel counts sockets anew for each read of its table, and leaves one out where
    /// another test has closed another one meanwhile.
    fn looked<T>(mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < deadline, "it is not found");
        }
    }

    #[test]
    fn a_look_finds_the_own_sockets() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        let other = UdpSocket::bind("127.0.0.2:0").unwrap();
        let expected = [
            (Ipv4Addr::LOCALHOST, tcp.local_addr().unwrap().port()),
            (Ipv4Addr::UNSPECIFIED, udp.local_addr().unwrap().port()),
        ];
        let ports = looked(|| {
            let ports = ports_in_use(&[Ipv4Addr::LOCALHOST]).unwrap();
            expected.iter().all(|port| ports.contains(port)).then_some(ports)
        });
        assert!(!ports.contains(&(Ipv4Addr::new(127, 0, 0, 2), other.local_addr().unwrap().port())));
        assert!(ports.is_sorted());
    }

    #[test]
    fn a_program_is_looked_up_again_as_it_may_be_another_one() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let begin = Instant::now();
        let mut owners = looked(|| {
            let mut owners = Owners::default();
            owners.find(UDP, port, begin).map(|_| owners)
        });
        let mut pid = |protocol, at| owners.find(protocol, port, at).map(|owner| owner.pid);
        let this = Some(std::process::id());
        assert_eq!(pid(UDP, begin), this);
        assert_ne!(pid(UDP_LITE, begin), this, "a port of UDP is none of UDP-Lite");
        drop(socket);
        assert_eq!(pid(UDP, begin + LOOK_AGAIN / 2), this, "/proc is not read that often");
        assert_eq!(pid(UDP, begin + LOOK_AGAIN), None, "it has closed its socket");
    }
}

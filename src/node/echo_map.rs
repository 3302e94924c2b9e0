//! Echo identifiers: `ping` chooses its own, the host maps it into its set before the packet leaves
//! (PE-ARP rule 93; RFC 7596 §8.1).

use rand::Rng;
use rustc_hash::FxHashMap;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, Ipv4Packet};

use crate::ports::{Allocator, PortBitmap};
use crate::wire::ICMP;
use crate::wire::ipv4::updated_checksum;

/// How long an identifier stays mapped after its last request.
const IDLE: Duration = Duration::from_secs(60);

/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;
/// Where an IPv4 header has the protocol.
const PROTOCOL: usize = 9;

#[derive(Debug)]
struct Mapped {
    identifier: u16,
    used: Instant,
}

/// Identifiers of programs and of the wire. As large as the set at most.
#[derive(Debug)]
pub(super) struct EchoMap {
    allocator: Allocator,
    out: FxHashMap<u16, Mapped>,
    back: FxHashMap<u16, u16>,
}

impl EchoMap {
    /// A map into `identifiers`.
    pub(super) fn new(identifiers: impl IntoIterator<Item = u16>) -> Self {
        Self { allocator: Allocator::new(identifiers), out: FxHashMap::default(), back: FxHashMap::default() }
    }

    /// Puts further identifiers in.
    pub(super) fn add_identifiers(&mut self, identifiers: impl IntoIterator<Item = u16>) {
        self.allocator.add(identifiers);
    }

    /// These identifiers are given to no new request, or are so again.
    pub(super) fn set_closed(&mut self, identifiers: &PortBitmap, closed: bool) {
        self.allocator.set_closed(identifiers, closed);
    }

    /// Takes identifiers out, with what they are mapped to.
    pub(super) fn end(&mut self, identifiers: &PortBitmap) {
        for identifier in identifiers.ports() {
            self.allocator.release(identifier);
        }
        self.allocator.remove(identifiers);
        self.out.retain(|_, mapped| !identifiers.contains(mapped.identifier));
        self.back.retain(|identifier, _| !identifiers.contains(*identifier));
    }

    /// Rewrites the identifier of an outgoing echo request; `None` where no identifier is free.
    pub(super) fn map_out(
        &mut self,
        packet: &mut Ipv4Packet<&mut [u8]>,
        rng: &mut impl Rng,
        now: Instant,
    ) -> Option<()> {
        let mut icmp = Icmpv4Packet::new_checked(packet.payload_mut()).ok()?;
        let original = icmp.echo_ident();
        let mapped = match self.out.get_mut(&original) {
            Some(mapped) => {
                mapped.used = now;
                mapped.identifier
            }
            None => {
                let identifier = self.allocate(rng, now)?;
                self.out.insert(original, Mapped { identifier, used: now });
                self.back.insert(identifier, original);
                identifier
            }
        };
        set_identifier(&mut icmp, mapped);
        Some(())
    }

    fn allocate(&mut self, rng: &mut impl Rng, now: Instant) -> Option<u16> {
        if let Some(identifier) = self.allocator.allocate(rng) {
            return Some(identifier);
        }
        let (oldest, mapped) = self.out.iter().min_by_key(|(_, mapped)| mapped.used)?;
        if now < mapped.used + IDLE {
            return None;
        }
        let (oldest, identifier) = (*oldest, mapped.identifier);
        self.out.remove(&oldest);
        self.back.remove(&identifier);
        Some(identifier)
    }

    /// Whether a request with this identifier left.
    pub(super) fn is_mapped(&self, identifier: Option<u16>) -> bool {
        identifier.is_some_and(|identifier| self.back.contains_key(&identifier))
    }

    /// Rewrites the identifier of an echo reply to what the program chose; `None` where none is mapped.
    pub(super) fn map_reply(&self, packet: &mut Ipv4Packet<&mut [u8]>) -> Option<()> {
        let mut icmp = Icmpv4Packet::new_checked(packet.payload_mut()).ok()?;
        let original = *self.back.get(&icmp.echo_ident())?;
        set_identifier(&mut icmp, original);
        Some(())
    }

    /// Rewrites the identifier of an echo request that an ICMP error embeds. The embedded checksum changes with
    /// it, so that the sum over both, and with it the outer checksum, stays.
    pub(super) fn map_error(&self, packet: &mut Ipv4Packet<&mut [u8]>) -> Option<()> {
        let embedded = packet.payload_mut().get_mut(ICMP_HEADER..)?;
        let header_len = usize::from(embedded.first()? & 0x0F) * 4;
        if *embedded.get(PROTOCOL)? != ICMP {
            return None;
        }
        let mut icmp = Icmpv4Packet::new_checked(embedded.get_mut(header_len..)?).ok()?;
        if icmp.msg_type() != Icmpv4Message::EchoRequest {
            return None;
        }
        let original = *self.back.get(&icmp.echo_ident())?;
        set_identifier(&mut icmp, original);
        Some(())
    }
}

fn set_identifier(icmp: &mut Icmpv4Packet<&mut [u8]>, identifier: u16) {
    let checksum = updated_checksum(icmp.checksum(), icmp.echo_ident(), identifier);
    icmp.set_echo_ident(identifier);
    icmp.set_checksum(checksum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::icmp;
    use core::net::Ipv4Addr;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn request(identifier: u16) -> Vec<u8> {
        // An echo request as bytes: an echo reply's, with the type changed.
        let mut bytes = vec![0x45, 0, 0, 36, 0, 0, 0, 0, 64, 1, 0, 0, 198, 51, 100, 2, 203, 0, 113, 80];
        bytes.extend([8, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
        packet.fill_checksum();
        let mut echo = Icmpv4Packet::new_unchecked(packet.payload_mut());
        echo.set_echo_ident(identifier);
        echo.fill_checksum();
        bytes
    }

    fn identifier(bytes: &[u8]) -> u16 {
        let packet = Ipv4Packet::new_checked(bytes).unwrap();
        let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        assert!(icmp.verify_checksum());
        icmp.echo_ident()
    }

    #[test]
    fn there_and_back() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut map = EchoMap::new(7680..8192);
        let mut bytes = request(12);
        map.map_out(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &mut rng, Instant::ZERO).unwrap();
        let mapped = identifier(&bytes);
        assert!((7680..8192).contains(&mapped));

        let mut reply = icmp::echo_reply(&bytes).unwrap();
        map.map_reply(&mut Ipv4Packet::new_unchecked(&mut reply[..])).unwrap();
        assert_eq!(identifier(&reply), 12);

        let router = Ipv4Addr::new(198, 51, 100, 1);
        let mut error = icmp::error_for(&bytes, router, icmp::Error::TimeExceeded).unwrap();
        map.map_error(&mut Ipv4Packet::new_unchecked(&mut error[..])).unwrap();
        let packet = Ipv4Packet::new_checked(&error[..]).unwrap();
        let outer = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        assert_eq!(outer.msg_type(), Icmpv4Message::TimeExceeded);
        assert!(outer.verify_checksum(), "the outer checksum still holds");
        assert_eq!(identifier(outer.data()), 12, "and the embedded one, too");

        let mut foreign = icmp::echo_reply(&request(9000)).unwrap();
        assert!(map.map_reply(&mut Ipv4Packet::new_unchecked(&mut foreign[..])).is_none());
    }

    #[test]
    fn a_full_map_takes_back_idle_identifiers_only() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut map = EchoMap::new(7680..7682);
        let mut send = |identifier, at| {
            let mut bytes = request(identifier);
            map.map_out(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &mut rng, Instant::from_secs(at))
        };
        assert!(send(1, 0).is_some() && send(2, 30).is_some());
        assert!(send(3, 59).is_none());
        assert!(send(3, 60).is_some());
        assert!(send(1, 61).is_none());
    }
}

//! What there is to give: pools of shared and of whole addresses, and reservations.

use core::net::Ipv4Addr;

use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use super::codec::ClientId;
use super::lease::Slot;
use crate::ports::{Portless, Psid, Scheme};

/// What a pool gives of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// One PSID of this scheme, to clients that ask for option 159.
    Shared(Scheme),
    /// The whole address, to the others.
    Whole,
}

/// Consecutive addresses of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The network that clients are told of.
    pub network: Ipv4Cidr,
    /// Its router.
    pub router: Ipv4Addr,
    /// The first address.
    pub first: Ipv4Addr,
    /// The last address.
    pub last: Ipv4Addr,
    /// What of each.
    pub kind: PoolKind,
}

impl Pool {
    /// The addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        (u32::from(self.first)..=u32::from(self.last)).map(Ipv4Addr::from)
    }

    /// Whether an address is of this pool.
    pub fn has_address(&self, ip: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&ip)
    }

    fn sets_per_address(&self) -> u32 {
        match self.kind {
            PoolKind::Shared(scheme) => {
                scheme.first_user_psid().map_or(0, |first| scheme.sets() - u32::from(first))
            }
            PoolKind::Whole => 1,
        }
    }

    /// How many leases there can be.
    pub fn size(&self) -> u64 {
        let addresses = u64::from(u32::from(self.last) - u32::from(self.first)) + 1;
        addresses * u64::from(self.sets_per_address())
    }

    /// The slot number `index`, below [`Pool::size`].
    pub(super) fn slot(&self, index: u64) -> Option<Slot> {
        let sets = u64::from(self.sets_per_address());
        let ip = Ipv4Addr::from(u32::from(self.first) + u32::try_from(index.checked_div(sets)?).ok()?);
        let set = match self.kind {
            PoolKind::Shared(scheme) => {
                let value = u64::from(scheme.first_user_psid()?) + index % sets;
                Psid::new(scheme, u16::try_from(value).ok()?).ok()?
            }
            PoolKind::Whole => Psid::FULL,
        };
        Some((ip, set))
    }

    /// All slots of an address.
    pub(super) fn slots_of(&self, ip: Ipv4Addr) -> impl Iterator<Item = Slot> + Clone + use<'_> {
        let sets = u64::from(self.sets_per_address());
        let first = u64::from(u32::from(ip).wrapping_sub(u32::from(self.first))) * sets;
        (first..first + if self.has_address(ip) { sets } else { 0 }).filter_map(|index| self.slot(index))
    }

    /// Whether a slot is one that the pool gives.
    pub(super) fn gives(&self, (ip, set): Slot) -> bool {
        self.has_address(ip)
            && match self.kind {
                PoolKind::Shared(scheme) => {
                    set.scheme() == scheme
                        && scheme.first_user_psid().is_some_and(|first| set.value() >= first)
                }
                PoolKind::Whole => set == Psid::FULL,
            }
    }
}

/// Whose a reservation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The client with this identifier.
    Client(ClientId),
    /// Whoever has this link-layer address.
    Hardware(EthernetAddress),
}

impl Who {
    pub(super) fn is(&self, client: &ClientId, hardware: EthernetAddress) -> bool {
        match self {
            Self::Client(own) => own == client,
            Self::Hardware(own) => *own == hardware,
        }
    }
}

/// An address, or a set of one, that is kept for one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// For whom.
    pub who: Who,
    /// The address.
    pub ip: Ipv4Addr,
    /// The ports: a PSID, one port ([`Psid::single`], PE-ARP rule 104), or [`Psid::FULL`].
    pub set: Psid,
    /// What has no port and goes with them (PE-ARP rule 105).
    pub portless: Portless,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(kind: PoolKind) -> Pool {
        let network = Ipv4Cidr::new(Ipv4Addr::new(192, 0, 2, 0), 24);
        let at = |last| Ipv4Addr::new(192, 0, 2, last);
        Pool { network, router: at(1), first: at(10), last: at(11), kind }
    }

    #[test]
    fn slots_are_those_it_gives() {
        for (kind, size) in [(PoolKind::Whole, 2), (PoolKind::Shared("0,4".parse().unwrap()), 30)] {
            let pool = pool(kind);
            assert_eq!(pool.size(), size);
            let mut slots: Vec<_> = (0..size).map(|index| pool.slot(index).unwrap()).collect();
            assert!(slots.iter().all(|slot| pool.gives(*slot)));
            slots.dedup();
            assert_eq!(slots.len() as u64, size);
            let by_address = pool.addresses().flat_map(|ip| pool.slots_of(ip)).collect::<Vec<_>>();
            assert_eq!(by_address, slots);
            assert_eq!(pool.slots_of(Ipv4Addr::new(192, 0, 2, 9)).count(), 0);
        }
        let shared = pool(PoolKind::Shared("0,4".parse().unwrap()));
        assert!(!shared.gives((shared.first, "0,4,0".parse().unwrap())), "has system ports");
        assert!(!shared.gives((shared.first, Psid::FULL)));
    }
}

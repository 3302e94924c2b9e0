//! Leases, and the table of them.

use core::net::Ipv4Addr;
use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use super::codec::ClientId;
use crate::ports::Psid;

/// An address and a set of its ports; [`Psid::FULL`] stands for a whole address.
pub(super) type Slot = (Ipv4Addr, Psid);

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseState {
    /// Offered; not given to another client for a while.
    Offered,
    /// The client has it, until `until`.
    Bound,
    /// Released or expired: it rests until `until`, and only the same client gets it before (PE-ARP rule 74).
    Released,
    /// A client found it in use: nobody gets it until `until` (PE-ARP rule 99).
    Quarantined,
}

impl LeaseState {
    /// The name in lists and in the lease file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Bound => "bound",
            Self::Released => "released",
            Self::Quarantined => "quarantined",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Offered, Self::Bound, Self::Released, Self::Quarantined];
        all.into_iter().find(|state| state.name() == name)
    }
}

/// One lease. {client, address, set} is its key (PE-ARP rule 97).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who has it.
    pub client: ClientId,
    /// Its link-layer address.
    pub hardware: EthernetAddress,
    /// The address.
    pub ip: Ipv4Addr,
    /// The ports; [`Psid::FULL`] where the address is whole.
    pub set: Psid,
    /// Where it stands.
    pub state: LeaseState,
    /// Until when it does so.
    pub until: Instant,
    /// Since when the client has had it without a break.
    pub since: Instant,
    /// When the client's right to use it ended, or will end.
    pub held_until: Instant,
    /// What the client calls itself.
    pub host_name: Option<String>,
}

impl Lease {
    pub(super) fn slot(&self) -> Slot {
        (self.ip, self.set)
    }

    /// Until when another client must not have the slot; `rest` is how long it rests after the end.
    pub(super) fn rest_end(&self, rest: Duration) -> Instant {
        match self.state {
            LeaseState::Bound => self.until + rest,
            LeaseState::Offered | LeaseState::Released | LeaseState::Quarantined => self.until,
        }
    }

    /// Whether another client must not have the slot at `now`.
    pub(super) fn holds_off_others(&self, rest: Duration, now: Instant) -> bool {
        now < self.rest_end(rest)
    }

    pub(super) fn is_live(&self, now: Instant) -> bool {
        matches!(self.state, LeaseState::Offered | LeaseState::Bound) && now < self.until
    }
}

/// One lease per slot; a slot that was used remembers its last client. Bounded by the pools.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: BTreeMap<Slot, Lease>,
    of_client: HashMap<ClientId, BTreeSet<Slot>>,
    of_hardware: HashMap<EthernetAddress, BTreeSet<Slot>>,
    /// Ends of bound leases.
    ends: BTreeSet<(Instant, Slot)>,
}

fn unlink<K: Eq + core::hash::Hash>(index: &mut HashMap<K, BTreeSet<Slot>>, key: &K, slot: Slot) {
    if let Some(slots) = index.get_mut(key) {
        slots.remove(&slot);
        if slots.is_empty() {
            index.remove(key);
        }
    }
}

impl Table {
    pub(super) fn get(&self, slot: Slot) -> Option<&Lease> {
        self.slots.get(&slot)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Lease> + Clone {
        self.slots.values()
    }

    pub(super) fn of_client(&self, client: &ClientId) -> impl Iterator<Item = &Lease> {
        self.of_client.get(client).into_iter().flatten().filter_map(|slot| self.slots.get(slot))
    }

    pub(super) fn of_hardware(&self, hardware: EthernetAddress) -> impl Iterator<Item = &Lease> {
        self.of_hardware.get(&hardware).into_iter().flatten().filter_map(|slot| self.slots.get(slot))
    }

    /// Leases of the same address that are sets of another scheme: all others are disjoint by construction.
    pub(super) fn foreign(&self, (ip, set): Slot) -> impl Iterator<Item = &Lease> {
        let scheme = set.scheme();
        // Slots are in order of address, then scheme.
        let end = |value| Psid::new(scheme, value).map_or((ip, set), |end| (ip, end));
        let (first, last) = (end(0), end((scheme.sets() - 1) as u16));
        let before = self.slots.range((ip, Psid::FULL)..first);
        let after = self.slots.range((Bound::Excluded(last), Bound::Unbounded));
        let after = after.take_while(move |((other, _), _)| *other == ip);
        before.chain(after).map(|(_, lease)| lease)
    }

    /// Puts a lease in its slot; what was there.
    pub(super) fn insert(&mut self, lease: Lease) -> Option<Lease> {
        let slot = lease.slot();
        let before = self.remove(slot);
        self.of_client.entry(lease.client.clone()).or_default().insert(slot);
        self.of_hardware.entry(lease.hardware).or_default().insert(slot);
        if lease.state == LeaseState::Bound {
            self.ends.insert((lease.until, slot));
        }
        self.slots.insert(slot, lease);
        before
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<Lease> {
        let lease = self.slots.remove(&slot)?;
        unlink(&mut self.of_client, &lease.client, slot);
        unlink(&mut self.of_hardware, &lease.hardware, slot);
        self.ends.remove(&(lease.until, slot));
        Some(lease)
    }

    /// When the next bound lease ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// A bound lease that has ended at `now`.
    pub(super) fn ended(&self, now: Instant) -> Option<&Lease> {
        let (at, slot) = self.ends.first()?;
        self.slots.get(slot).filter(|_| *at <= now)
    }
}

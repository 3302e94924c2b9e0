//! Bindings by address and port, with lookups in constant time.
//!
//! Every claim is a set of *blocks*: a PSID under some `(a, k)`. A range is a union of at most 30 blocks with
//! `a = 0`; a whole address and a portless protocol are blocks of their own. The blocks of one address are grouped by scheme and
//! protocol scope; a lookup looks into each group once, and where all sharers use one scheme there is one group.

use core::net::Ipv4Addr;

use rustc_hash::FxHashMap;
use slab::Slab;
use smoltcp::wire::EthernetAddress;

use super::binding::{Binding, Source};
use super::{MAX_BINDINGS, MAX_BINDINGS_PER_ADDRESS, MAX_BINDINGS_PER_HARDWARE, MAX_BLOCKS};
use crate::ports::Scheme;
use crate::wire::pe_arp::{Claim, Record};

pub(super) type BindingId = u32;

const EMPTY: BindingId = BindingId::MAX;

/// PSID lengths up to this have their slots in one array where the scheme is configured.
const MAX_DENSE_LENGTH: u8 = 12;

/// What a claim covers, in the form that is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Ports(Scheme),
    /// A record of one port: precedes the set around it where both were given (PE-ARP rule 31).
    Single,
    /// One protocol without ports.
    Portless,
    /// Every port, and what has none.
    Whole,
}

/// Slots of one scheme: who holds each PSID.
#[derive(Debug)]
enum Slots {
    Dense(Box<[BindingId]>),
    Sparse(FxHashMap<u16, BindingId>),
}

impl Slots {
    fn holder(&self, slot: u16) -> Option<BindingId> {
        match self {
            Self::Dense(slots) => slots.get(usize::from(slot)).copied().filter(|id| *id != EMPTY),
            Self::Sparse(slots) => slots.get(&slot).copied(),
        }
    }

    fn set(&mut self, slot: u16, holder: Option<BindingId>) {
        match (self, holder) {
            (Self::Dense(slots), holder) => slots[usize::from(slot)] = holder.unwrap_or(EMPTY),
            (Self::Sparse(slots), Some(id)) => {
                slots.insert(slot, id);
            }
            (Self::Sparse(slots), None) => {
                slots.remove(&slot);
            }
        }
    }
}

/// The blocks of one scheme and scope.
#[derive(Debug)]
struct Group {
    form: Form,
    scope: u8,
    slots: Slots,
    /// Claims of slots that another binding holds.
    disputed: Vec<(u16, BindingId)>,
    /// Blocks in slots and in dispute.
    blocks: usize,
}

#[derive(Debug, Default)]
struct Address {
    groups: Vec<Group>,
    bindings: Vec<BindingId>,
    /// How many of the bindings are not static.
    learned: usize,
}

/// A bound of the table was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableFull;

/// The bindings of one link.
#[derive(Debug, Default)]
pub(super) struct Table {
    addresses: FxHashMap<Ipv4Addr, Address>,
    bindings: Slab<Binding>,
    index: FxHashMap<(Ipv4Addr, EthernetAddress), BindingId>,
    per_hardware: FxHashMap<EthernetAddress, usize>,
    /// The configured scheme of shared addresses.
    schemes: FxHashMap<Ipv4Addr, Scheme>,
    blocks: usize,
}

impl Table {
    pub(super) fn configure_scheme(&mut self, ip: Ipv4Addr, scheme: Scheme) {
        self.schemes.insert(ip, scheme);
    }

    pub(super) fn scheme(&self, ip: Ipv4Addr) -> Option<Scheme> {
        self.schemes.get(&ip).copied()
    }

    pub(super) fn binding(&self, id: BindingId) -> Option<&Binding> {
        self.bindings.get(id as usize)
    }

    /// The binding, to change state and times. What it claims is changed by [`Table::insert`] only.
    pub(super) fn binding_mut(&mut self, id: BindingId) -> Option<&mut Binding> {
        self.bindings.get_mut(id as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (BindingId, &Binding)> {
        self.bindings.iter().map(|(id, binding)| (id as BindingId, binding))
    }

    /// The bindings of one address.
    pub(super) fn of_address(&self, ip: Ipv4Addr) -> impl Iterator<Item = (BindingId, &Binding)> {
        let ids = self.addresses.get(&ip).map_or(&[][..], |address| &address.bindings);
        ids.iter().map(|id| (*id, &self.bindings[*id as usize]))
    }

    pub(super) fn find(&self, ip: Ipv4Addr, hardware: EthernetAddress) -> Option<BindingId> {
        self.index.get(&(ip, hardware)).copied()
    }

    /// Whether one more learned binding of the address and the hardware is within the bounds.
    pub(super) fn has_room(&self, ip: Ipv4Addr, hardware: EthernetAddress) -> bool {
        let of_hardware = self.per_hardware.get(&hardware).copied().unwrap_or(0);
        let of_address = self.addresses.get(&ip).map_or(0, |address| address.learned);
        of_hardware < MAX_BINDINGS_PER_HARDWARE
            && of_address < MAX_BINDINGS_PER_ADDRESS
            && self.bindings.len() < MAX_BINDINGS
    }

    /// The binding that stands for a port, or for a portless protocol.
    pub(super) fn lookup(&self, ip: Ipv4Addr, protocol: u8, port: Option<u16>) -> Option<BindingId> {
        let address = self.addresses.get(&ip)?;
        let holders = address.groups.iter().filter_map(|group| {
            let id = group.slots.holder(group.slot_of(protocol, port)?)?;
            let (rank, seniority) = self.precedence(id);
            Some(((rank, rank == Source::Static.rank() && group.form == Form::Single, seniority), id))
        });
        holders.max_by_key(|(precedence, _)| *precedence).map(|(_, id)| id)
    }

    fn precedence(&self, id: BindingId) -> (u8, i64) {
        self.bindings[id as usize].precedence()
    }

    /// Puts a binding in, in place of an earlier one of the same address and hardware.
    pub(super) fn insert(&mut self, binding: Binding) -> Result<BindingId, TableFull> {
        let blocks = blocks_of(&binding);
        let old = self.find(binding.ip, binding.hardware);
        if !binding.source.is_given() {
            // What replaces another learned binding takes its place.
            let replaced = old.and_then(|id| self.binding(id));
            let in_place = replaced.is_some_and(|old| !old.source.is_given());
            let blocks_before = replaced.map_or(0, blocks_of);
            if !(in_place || self.has_room(binding.ip, binding.hardware))
                || self.blocks - blocks_before + blocks > MAX_BLOCKS
            {
                return Err(TableFull);
            }
        }
        if let Some(old) = old {
            self.remove(old);
        }
        let ip = binding.ip;
        let learned = !binding.source.is_given();
        if learned {
            *self.per_hardware.entry(binding.hardware).or_default() += 1;
        }
        let records = binding.records.clone();
        let key = (ip, binding.hardware);
        let id = self.bindings.insert(binding) as BindingId;
        self.index.insert(key, id);
        let address = self.addresses.entry(ip).or_default();
        address.bindings.push(id);
        address.learned += usize::from(learned);
        self.blocks += blocks;
        for held in &records {
            for_each_block(&held.record, |form, scope, slot| self.claim(ip, form, scope, slot, id));
        }
        Ok(id)
    }

    pub(super) fn remove(&mut self, id: BindingId) -> Option<Binding> {
        let binding = self.bindings.try_remove(id as usize)?;
        self.index.remove(&(binding.ip, binding.hardware));
        let learned = !binding.source.is_given();
        if learned && let Some(count) = self.per_hardware.get_mut(&binding.hardware) {
            *count -= 1;
            if *count == 0 {
                self.per_hardware.remove(&binding.hardware);
            }
        }
        self.blocks -= blocks_of(&binding);
        if let Some(address) = self.addresses.get_mut(&binding.ip) {
            address.bindings.retain(|other| *other != id);
            address.learned -= usize::from(learned);
            for held in &binding.records {
                for_each_block(&held.record, |form, scope, slot| {
                    address.release(form, scope, slot, id, &self.bindings);
                });
            }
            if address.bindings.is_empty() {
                self.addresses.remove(&binding.ip);
            }
        }
        Some(binding)
    }

    /// Bindings, blocks, addresses and hosts that are counted.
    #[cfg(test)]
    pub(super) fn counters(&self) -> [usize; 4] {
        [self.bindings.len(), self.blocks, self.addresses.len(), self.per_hardware.len()]
    }

    fn claim(&mut self, ip: Ipv4Addr, form: Form, scope: u8, slot: u16, id: BindingId) {
        let configured = self.scheme(ip);
        let Some(address) = self.addresses.get_mut(&ip) else { return };
        let group = address.group(form, scope, configured);
        group.blocks += 1;
        match group.slots.holder(slot) {
            None => group.slots.set(slot, Some(id)),
            Some(holder) => {
                let precedes = |id: BindingId| self.bindings[id as usize].precedence();
                let (winner, loser) =
                    if precedes(id) > precedes(holder) { (id, holder) } else { (holder, id) };
                group.slots.set(slot, Some(winner));
                group.disputed.push((slot, loser));
            }
        }
    }
}

impl Address {
    fn group(&mut self, form: Form, scope: u8, configured: Option<Scheme>) -> &mut Group {
        let at = self.groups.iter().position(|group| group.form == form && group.scope == scope);
        let at = at.unwrap_or_else(|| {
            let slots = match form {
                Form::Ports(scheme) if configured == Some(scheme) && scheme.length() <= MAX_DENSE_LENGTH => {
                    Slots::Dense(vec![EMPTY; scheme.sets() as usize].into())
                }
                _ => Slots::Sparse(FxHashMap::default()),
            };
            self.groups.push(Group { form, scope, slots, disputed: Vec::new(), blocks: 0 });
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }

    fn release(&mut self, form: Form, scope: u8, slot: u16, id: BindingId, bindings: &Slab<Binding>) {
        let Some(at) = self.groups.iter().position(|group| group.form == form && group.scope == scope) else {
            return;
        };
        let group = &mut self.groups[at];
        group.blocks -= 1;
        if let Some(claim) = group.disputed.iter().position(|claim| *claim == (slot, id)) {
            group.disputed.swap_remove(claim);
        } else {
            // The holder goes: the strongest of the others takes its place.
            let heirs = group.disputed.iter().enumerate().filter(|(_, (disputed, _))| *disputed == slot);
            let heir = heirs.max_by_key(|(_, (_, id))| bindings[*id as usize].precedence()).map(|(at, _)| at);
            let holder = heir.map(|at| group.disputed.swap_remove(at).1);
            group.slots.set(slot, holder);
        }
        if group.blocks == 0 {
            self.groups.swap_remove(at);
        }
    }
}

impl Group {
    fn slot_of(&self, protocol: u8, port: Option<u16>) -> Option<u16> {
        if self.scope != 0 && self.scope != protocol {
            return None;
        }
        match (self.form, port) {
            (Form::Ports(scheme), Some(port)) => scheme.covers(port).then(|| scheme.psid_of(port)),
            (Form::Single, Some(port)) => Some(port),
            (Form::Whole, _) => Some(0),
            (Form::Portless, None) => Some(u16::from(protocol)),
            (Form::Ports(_) | Form::Single, None) | (Form::Portless, Some(_)) => None,
        }
    }
}

fn blocks_of(binding: &Binding) -> usize {
    binding.records.iter().map(|held| block_count(&held.record)).sum()
}

fn block_count(record: &Record) -> usize {
    match record.claim {
        Claim::Range(range) => range.blocks().count(),
        Claim::Psid(_) | Claim::Full | Claim::Portless(_) => 1,
    }
}

fn for_each_block(record: &Record, mut visit: impl FnMut(Form, u8, u16)) {
    match record.claim {
        Claim::Range(range) if range.first() == range.last() => {
            visit(Form::Single, record.scope, range.first())
        }
        Claim::Psid(psid) if psid.scheme().length() == 16 => visit(Form::Single, record.scope, psid.value()),
        Claim::Range(range) => {
            range.blocks().for_each(|psid| visit(Form::Ports(psid.scheme()), record.scope, psid.value()));
        }
        Claim::Psid(psid) => visit(Form::Ports(psid.scheme()), record.scope, psid.value()),
        Claim::Full => visit(Form::Whole, 0, 0),
        Claim::Portless(protocol) => visit(Form::Portless, 0, u16::from(protocol)),
    }
}

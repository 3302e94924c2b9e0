//! Bindings by address and port, with lookups in constant time.
//!
//! Every claim is a set of *blocks*: a PSID under some `(a, k)`. A range is a union of at most 30 blocks with
//! `a = 0`; a whole address and a portless protocol are blocks of their own. The blocks of one address are grouped by
//! protocol scope and scheme. A lookup looks once into each group of scope 0 and of the packet's protocol: one where
//! all sharers use one scheme, and never more than there are schemes, whatever is claimed for other protocols.

use core::net::Ipv4Addr;
use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use slab::Slab;
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use super::binding::{Binding, Held, Source, State};
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

/// Source and seniority of a binding: which of two stands.
type Precedence = (u8, i64);

/// The blocks of one scheme and scope.
#[derive(Debug)]
struct Group {
    form: Form,
    slots: Slots,
    /// Claims of slots that another binding holds, the strongest of a slot last, and how many records make each. In
    /// order, as one slot can have as many claims as the address has bindings.
    disputed: BTreeMap<(u16, Precedence, BindingId), u32>,
    /// Blocks in slots and in dispute.
    blocks: usize,
}

#[derive(Debug, Default)]
struct Address {
    /// The groups of each protocol scope.
    scopes: FxHashMap<u8, Vec<Group>>,
    bindings: BTreeSet<BindingId>,
    /// Those that were confirmed; all that stand against a newcomer are among them.
    confirmed: BTreeSet<BindingId>,
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
        let ids = self.addresses.get(&ip).into_iter().flat_map(|address| &address.bindings);
        ids.map(|id| (*id, &self.bindings[*id as usize]))
    }

    /// The bindings of one address that stand against a newcomer: not those of which there can be a flood, as they
    /// have answered a question.
    pub(super) fn standing(&mut self, ip: Ipv4Addr, now: Instant) -> Vec<BindingId> {
        let Some(address) = self.addresses.get_mut(&ip) else { return Vec::new() };
        // What does not stand any more does not again: a binding that is confirmed is put in anew.
        address.confirmed.retain(|id| self.bindings[*id as usize].stands(now));
        address.confirmed.iter().copied().collect()
    }

    /// Of the learned bindings that stand in the way of another one, that which is STALE and was not heard of for
    /// longest. It looks at all of them: for answers only, which are as rare as questions.
    pub(super) fn least_wanted(
        &self,
        ip: Ipv4Addr,
        hardware: EthernetAddress,
        now: Instant,
    ) -> Option<BindingId> {
        let of_hardware = self.per_hardware.get(&hardware).copied().unwrap_or(0) >= MAX_BINDINGS_PER_HARDWARE;
        let of_address =
            self.addresses.get(&ip).is_some_and(|address| address.learned >= MAX_BINDINGS_PER_ADDRESS);
        let in_the_way = |binding: &Binding| {
            let itself = binding.ip == ip && binding.hardware == hardware;
            let counted = (!of_hardware || binding.hardware == hardware) && (!of_address || binding.ip == ip);
            counted && !itself && !binding.source.is_given() && binding.state.at(now) == State::Stale
        };
        let candidates = self.iter().filter(|(_, binding)| in_the_way(binding));
        candidates.min_by_key(|(id, binding)| (binding.heard, *id)).map(|(id, _)| id)
    }

    pub(super) fn find(&self, ip: Ipv4Addr, hardware: EthernetAddress) -> Option<BindingId> {
        self.index.get(&(ip, hardware)).copied()
    }

    /// Whether a learned binding with these records is within the bounds. What replaces another learned binding takes
    /// its place.
    pub(super) fn has_room(&self, ip: Ipv4Addr, hardware: EthernetAddress, records: &[Held]) -> bool {
        let replaced = self.find(ip, hardware).and_then(|id| self.binding(id));
        let blocks_before = replaced.map_or(0, |old| blocks_of(&old.records));
        if self.blocks - blocks_before + blocks_of(records) > MAX_BLOCKS {
            return false;
        }
        let in_place = replaced.is_some_and(|old| !old.source.is_given());
        let of_hardware = self.per_hardware.get(&hardware).copied().unwrap_or(0);
        let of_address = self.addresses.get(&ip).map_or(0, |address| address.learned);
        in_place
            || (of_hardware < MAX_BINDINGS_PER_HARDWARE
                && of_address < MAX_BINDINGS_PER_ADDRESS
                && self.bindings.len() < MAX_BINDINGS)
    }

    /// The binding that stands for a port, or for a portless protocol.
    pub(super) fn lookup(&self, ip: Ipv4Addr, protocol: u8, port: Option<u16>) -> Option<BindingId> {
        let address = self.addresses.get(&ip)?;
        let own_scope = (protocol != 0).then(|| address.scopes.get(&protocol)).flatten();
        let groups = address.scopes.get(&0).into_iter().chain(own_scope).flatten();
        let holders = groups.filter_map(|group| {
            let id = group.slots.holder(group.slot_of(protocol, port)?)?;
            let (rank, seniority) = self.precedence(id);
            Some(((rank, rank == Source::Static.rank() && group.form == Form::Single, seniority), id))
        });
        holders.max_by_key(|(precedence, _)| *precedence).map(|(_, id)| id)
    }

    fn precedence(&self, id: BindingId) -> Precedence {
        self.bindings[id as usize].precedence()
    }

    /// Puts a binding in, in place of an earlier one of the same address and hardware.
    pub(super) fn insert(&mut self, binding: Binding) -> Result<BindingId, TableFull> {
        if !binding.source.is_given() && !self.has_room(binding.ip, binding.hardware, &binding.records) {
            return Err(TableFull);
        }
        if let Some(old) = self.find(binding.ip, binding.hardware) {
            self.remove(old);
        }
        let ip = binding.ip;
        let learned = !binding.source.is_given();
        if learned {
            *self.per_hardware.entry(binding.hardware).or_default() += 1;
        }
        let records = binding.records.clone();
        let confirmed = matches!(binding.state, State::Reachable { .. })
            || binding.disputed.is_some()
            || binding.challenged.is_some();
        let key = (ip, binding.hardware);
        let id = self.bindings.insert(binding) as BindingId;
        self.index.insert(key, id);
        let address = self.addresses.entry(ip).or_default();
        address.bindings.insert(id);
        if confirmed {
            address.confirmed.insert(id);
        }
        address.learned += usize::from(learned);
        self.blocks += blocks_of(&records);
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
        self.blocks -= blocks_of(&binding.records);
        if let Some(address) = self.addresses.get_mut(&binding.ip) {
            address.bindings.remove(&id);
            address.confirmed.remove(&id);
            address.learned -= usize::from(learned);
            for held in &binding.records {
                for_each_block(&held.record, |form, scope, slot| {
                    address.release(form, scope, slot, (binding.precedence(), id));
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
                let precedence = |id: BindingId| self.bindings[id as usize].precedence();
                let (winner, loser) =
                    if precedence(id) > precedence(holder) { (id, holder) } else { (holder, id) };
                group.slots.set(slot, Some(winner));
                *group.disputed.entry((slot, precedence(loser), loser)).or_default() += 1;
            }
        }
    }
}

impl Address {
    fn group(&mut self, form: Form, scope: u8, configured: Option<Scheme>) -> &mut Group {
        let groups = self.scopes.entry(scope).or_default();
        let at = groups.iter().position(|group| group.form == form).unwrap_or_else(|| {
            let slots = match form {
                // Not for each scope: a claim for one protocol would take an array of its own.
                Form::Ports(scheme)
                    if scope == 0 && configured == Some(scheme) && scheme.length() <= MAX_DENSE_LENGTH =>
                {
                    Slots::Dense(vec![EMPTY; scheme.sets() as usize].into())
                }
                _ => Slots::Sparse(FxHashMap::default()),
            };
            groups.push(Group { form, slots, disputed: BTreeMap::new(), blocks: 0 });
            groups.len() - 1
        });
        &mut groups[at]
    }

    fn release(&mut self, form: Form, scope: u8, slot: u16, (precedence, id): (Precedence, BindingId)) {
        let Some(groups) = self.scopes.get_mut(&scope) else { return };
        let Some(at) = groups.iter().position(|group| group.form == form) else { return };
        let group = &mut groups[at];
        group.blocks -= 1;
        let claim = (slot, precedence, id);
        match group.disputed.get_mut(&claim) {
            Some(1) => {
                group.disputed.remove(&claim);
            }
            Some(records) => *records -= 1,
            None => {
                // The holder goes: the strongest of the others takes its place.
                let (weakest, strongest) = ((u8::MIN, i64::MIN), (u8::MAX, i64::MAX));
                let claims = (slot, weakest, BindingId::MIN)..=(slot, strongest, BindingId::MAX);
                let heir = group.disputed.range(claims).next_back().map(|(claim, _)| *claim);
                if let Some(heir) = heir
                    && let Some(records) = group.disputed.get_mut(&heir)
                {
                    *records -= 1;
                    if *records == 0 {
                        group.disputed.remove(&heir);
                    }
                }
                group.slots.set(slot, heir.map(|(.., id)| id));
            }
        }
        if group.blocks == 0 {
            groups.swap_remove(at);
            if groups.is_empty() {
                self.scopes.remove(&scope);
            }
        }
    }
}

impl Group {
    fn slot_of(&self, protocol: u8, port: Option<u16>) -> Option<u16> {
        match (self.form, port) {
            (Form::Ports(scheme), Some(port)) => scheme.covers(port).then(|| scheme.psid_of(port)),
            (Form::Single, Some(port)) => Some(port),
            (Form::Whole, _) => Some(0),
            (Form::Portless, None) => Some(u16::from(protocol)),
            (Form::Ports(_) | Form::Single, None) | (Form::Portless, Some(_)) => None,
        }
    }
}

fn blocks_of(records: &[Held]) -> usize {
    records.iter().map(|held| block_count(&held.record)).sum()
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

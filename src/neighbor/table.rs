//! Bindings by address and port, with lookups in constant time.
//!
//! Every claim is a set of *blocks*: a PSID under some `(a, k)`. A range is a union of at most 30 blocks with
//! `a = 0`; a whole address and a portless protocol are blocks of their own. The blocks of one address are grouped by
//! protocol scope and scheme.
//!
//! The *main group* of an address is what is expected of it: the sets of its configured scheme, else the whole address.
//! Its slots are an array. Where nothing else is claimed of the address, a lookup loads the address, the slot and the
//! hop of the binding, each a cache line:
//!
//! ```text
//!   addresses[ip] ──scheme, "alone"──> main[PSID of the port] ──> hops[id]: MAC, state
//! ```
//!
//! Elsewhere it also looks once into each other group of scope 0 and of the packet's protocol, and compares: never more
//! than there are schemes, whatever is claimed for other protocols.

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use super::binding::{Binding, BindingRef, Held, Point, Precedence, Source, State};
use super::store::{BindingId, Hop, Store};
use super::{MAX_BINDINGS, MAX_BINDINGS_PER_ADDRESS, MAX_BINDINGS_PER_HARDWARE, MAX_BLOCKS};
use crate::ports::Scheme;
use crate::wire::pe_arp::{Claim, Record};

/// The slot of [`Claim::RESIDUAL`] among portless protocols.
const RESIDUAL_SLOT: u16 = 0;

/// In an array of slots, one that nobody holds.
const EMPTY: BindingId = BindingId::MAX;

/// PSID lengths up to this have their slots in an array where the scheme is configured.
const MAX_DENSE_LENGTH: u8 = 12;

/// What a claim covers, in the form that is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Ports(Scheme),
    /// A record of one port: precedes the set around it where both were given (PE-ARP rule 31).
    Single,
    /// One protocol without ports, or, in slot 0, all that nobody has by protocol.
    Portless,
    /// Every port, and what has none.
    Whole,
}

/// A block: the group that it belongs to, by protocol scope and form, and its slot there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    scope: u8,
    form: Form,
    slot: u16,
}

/// The blocks of one form: who holds each slot that is held.
#[derive(Debug)]
struct Group {
    form: Form,
    slots: FxHashMap<u16, BindingId>,
}

/// The bindings of one address. One cache line with its key in the map: a lookup mostly needs no more of it than that.
#[derive(Debug)]
struct Address {
    /// The form of the main group.
    form: Form,
    /// No port is claimed outside the main group, so that this alone decides about ports.
    alone: bool,
    /// How many of the bindings are not static.
    learned: u32,
    /// The slots of the main group; none of them before the first is held.
    main: Box<[BindingId]>,
    /// All bindings, ordered by hardware.
    bindings: Vec<BindingId>,
    rest: Option<Box<Rest>>,
}

/// What few addresses have, or no lookup needs.
#[derive(Debug, Default)]
struct Rest {
    /// The groups of each protocol scope, but for the main group. Each has a slot that is held.
    scopes: FxHashMap<u8, Vec<Group>>,
    /// Claims of slots that another binding holds, the strongest of a slot last, and how many records make each. In
    /// order, as one slot can have as many claims as the address has bindings.
    disputed: BTreeMap<(Block, Precedence, BindingId), u32>,
    /// Those that were confirmed, in order; all that stand against a newcomer are among them.
    confirmed: Vec<BindingId>,
}

/// A bound of the table was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableFull;

/// The bindings of one link.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By the bits of the address: a word is hashed faster than bytes.
    addresses: FxHashMap<u32, Address>,
    store: Store,
    /// How many learned bindings each host has.
    per_hardware: FxHashMap<EthernetAddress, u8>,
    /// The configured scheme of shared addresses.
    schemes: FxHashMap<Ipv4Addr, Scheme>,
    blocks: usize,
}

const _: () = assert!(size_of::<(u32, Address)>() <= 64 && MAX_BINDINGS_PER_HARDWARE <= u8::MAX as usize);

impl Table {
    pub(super) fn configure_scheme(&mut self, ip: Ipv4Addr, scheme: Scheme) {
        self.schemes.insert(ip, scheme);
    }

    pub(super) fn scheme(&self, ip: Ipv4Addr) -> Option<Scheme> {
        self.schemes.get(&ip).copied()
    }

    pub(super) fn binding(&self, id: BindingId) -> Option<BindingRef<'_>> {
        self.store.get(id)
    }

    /// What a packet needs of a binding that a lookup found.
    pub(super) fn hop(&self, id: BindingId) -> &Hop {
        self.store.hop(id)
    }

    pub(super) fn set_state(&mut self, id: BindingId, state: State) {
        self.store.set_state(id, state);
    }

    /// The binding is asked for `point` because another host claims it.
    pub(super) fn dispute(&mut self, id: BindingId, point: Point, now: Instant) {
        self.store.dispute(id, point, now);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (BindingId, BindingRef<'_>)> {
        self.store.iter()
    }

    /// The bindings of one address.
    pub(super) fn of_address(&self, ip: Ipv4Addr) -> impl Iterator<Item = (BindingId, BindingRef<'_>)> {
        let ids = self.address(ip).into_iter().flat_map(|address| &address.bindings);
        ids.filter_map(|id| Some((*id, self.store.get(*id)?)))
    }

    /// The bindings of one address that stand against a newcomer: not those of which there can be a flood, as they
    /// have answered a question.
    pub(super) fn standing(&mut self, ip: Ipv4Addr, now: Instant) -> Vec<BindingId> {
        let rest = self.addresses.get_mut(&ip.to_bits()).and_then(|address| address.rest.as_mut());
        let Some(rest) = rest else { return Vec::new() };
        // What does not stand any more does not again: a binding that is confirmed is put in anew.
        rest.confirmed.retain(|id| self.store.get(*id).is_some_and(|binding| binding.stands(now)));
        rest.confirmed.clone()
    }

    /// Of the learned bindings that stand in the way of another one, that which is STALE and was not heard of for
    /// longest. It looks at all of them: for answers only, which are as rare as questions.
    pub(super) fn least_wanted(
        &self,
        ip: Ipv4Addr,
        hardware: EthernetAddress,
        now: Instant,
    ) -> Option<BindingId> {
        let of_hardware = self.of_hardware(hardware) >= MAX_BINDINGS_PER_HARDWARE;
        let of_address = self.learned(ip) >= MAX_BINDINGS_PER_ADDRESS;
        let in_the_way = |binding: &BindingRef<'_>| {
            let itself = binding.ip == ip && binding.hardware == hardware;
            let counted = (!of_hardware || binding.hardware == hardware) && (!of_address || binding.ip == ip);
            counted && !itself && !binding.source.is_given() && binding.state.at(now) == State::Stale
        };
        let candidates = self.iter().filter(|(_, binding)| in_the_way(binding));
        candidates.min_by_key(|(id, binding)| (binding.heard, *id)).map(|(id, _)| id)
    }

    pub(super) fn find(&self, ip: Ipv4Addr, hardware: EthernetAddress) -> Option<BindingId> {
        let address = self.address(ip)?;
        address.position(hardware, &self.store).ok().map(|at| address.bindings[at])
    }

    /// Learned bindings of a host.
    fn of_hardware(&self, hardware: EthernetAddress) -> usize {
        self.per_hardware.get(&hardware).copied().unwrap_or(0).into()
    }

    fn address(&self, ip: Ipv4Addr) -> Option<&Address> {
        self.addresses.get(&ip.to_bits())
    }

    /// Learned bindings of an address.
    fn learned(&self, ip: Ipv4Addr) -> usize {
        self.address(ip).map_or(0, |address| address.learned as usize)
    }

    /// Whether a learned binding with these records is within the bounds. What replaces another learned binding takes
    /// its place.
    pub(super) fn has_room(&self, ip: Ipv4Addr, hardware: EthernetAddress, records: &[Held]) -> bool {
        let replaced = self.find(ip, hardware).and_then(|id| self.binding(id));
        let blocks_before = replaced.map_or(0, |old| blocks_of(old.records));
        if self.blocks - blocks_before + blocks_of(records) > MAX_BLOCKS {
            return false;
        }
        let in_place = replaced.is_some_and(|old| !old.source.is_given());
        in_place
            || (self.of_hardware(hardware) < MAX_BINDINGS_PER_HARDWARE
                && self.learned(ip) < MAX_BINDINGS_PER_ADDRESS
                && self.store.len() < MAX_BINDINGS)
    }

    /// The binding that stands for a port, or for a portless protocol (PE-ARP rule 66).
    pub(super) fn lookup(&self, ip: Ipv4Addr, protocol: u8, port: Option<u16>) -> Option<BindingId> {
        let address = self.address(ip)?;
        if address.alone && port.is_some() {
            return address.main_holder(protocol, port);
        }
        self.lookup_groups(address, protocol, port)
    }

    /// The same where several groups may have a say.
    fn lookup_groups(&self, address: &Address, protocol: u8, port: Option<u16>) -> Option<BindingId> {
        let scope = |scope| address.rest.as_ref()?.scopes.get(&scope);
        let own_scope = (protocol != 0).then(|| scope(protocol)).flatten();
        let groups = scope(0).into_iter().chain(own_scope).flatten();
        let holders = groups.filter_map(|group| {
            let slot = group.form.slot_of(protocol, port)?;
            // PE-ARP rule 31: who owns it by protocol precedes the residual owner, whatever the sources.
            let residual = || group.slots.get(&RESIDUAL_SLOT).filter(|_| group.form == Form::Portless);
            group.slots.get(&slot).or_else(residual).map(|id| (group.form, *id))
        });
        let main = address.main_holder(protocol, port).map(|id| (address.form, id));
        let precedence = |(form, id): (Form, BindingId)| {
            let (rank, seniority) = self.store.precedence(id);
            (rank, rank == Source::Static.rank() && form == Form::Single, seniority)
        };
        main.into_iter().chain(holders).max_by_key(|holder| precedence(*holder)).map(|(_, id)| id)
    }

    /// [`Table::lookup`] without its short cut.
    #[cfg(test)]
    pub(super) fn lookup_slowly(&self, ip: Ipv4Addr, protocol: u8, port: Option<u16>) -> Option<BindingId> {
        self.lookup_groups(self.address(ip)?, protocol, port)
    }

    /// Whether lookups of an address take it.
    #[cfg(test)]
    pub(super) fn has_short_cut(&self, ip: Ipv4Addr) -> bool {
        self.address(ip).is_some_and(|address| address.alone)
    }

    /// Puts a binding in, in place of an earlier one of the same address and hardware.
    pub(super) fn insert(&mut self, binding: Binding) -> Result<BindingId, TableFull> {
        let (ip, hardware) = (binding.ip, binding.hardware);
        let learned = !binding.source.is_given();
        if learned && !self.has_room(ip, hardware, &binding.records) {
            return Err(TableFull);
        }
        if let Some(old) = self.find(ip, hardware) {
            self.remove(old);
        }
        if learned {
            *self.per_hardware.entry(hardware).or_default() += 1;
        }
        self.blocks += blocks_of(&binding.records);
        let confirmed = matches!(binding.state, State::Reachable { .. })
            || binding.disputed.is_some()
            || binding.challenged.is_some();
        let id = self.store.insert(binding);
        let configured = self.schemes.get(&ip).copied();
        let address = self.addresses.entry(ip.to_bits()).or_insert_with(|| Address::new(configured));
        let (Ok(at) | Err(at)) = address.position(hardware, &self.store);
        address.bindings.insert(at, id);
        address.learned += u32::from(learned);
        if confirmed {
            let confirmed = &mut address.rest_mut().confirmed;
            confirmed.insert(confirmed.partition_point(|other| *other < id), id);
        }
        if let Some(binding) = self.store.get(id) {
            for held in binding.records {
                for_each_block(&held.record, |block| address.claim(block, id, &self.store));
            }
        }
        Ok(id)
    }

    pub(super) fn remove(&mut self, id: BindingId) -> Option<Binding> {
        let (ip, hardware) = self.store.get(id).map(|binding| (binding.ip, binding.hardware))?;
        let address = self.addresses.get_mut(&ip.to_bits());
        let at = address.and_then(|address| Some((address.position(hardware, &self.store).ok()?, address)));
        let binding = self.store.remove(id)?;
        let learned = !binding.source.is_given();
        if learned && let Some(count) = self.per_hardware.get_mut(&hardware) {
            *count -= 1;
            if *count == 0 {
                self.per_hardware.remove(&hardware);
            }
        }
        self.blocks -= blocks_of(&binding.records);
        if let Some((at, address)) = at {
            address.bindings.remove(at);
            address.learned -= u32::from(learned);
            if let Some(rest) = &mut address.rest
                && let Ok(at) = rest.confirmed.binary_search(&id)
            {
                rest.confirmed.remove(at);
            }
            for held in &binding.records {
                for_each_block(&held.record, |block| address.release(block, (binding.precedence(), id)));
            }
            if address.bindings.is_empty() {
                self.addresses.remove(&ip.to_bits());
            }
        }
        Some(binding)
    }

    /// Bindings, blocks, addresses and hosts that are counted.
    #[cfg(test)]
    pub(super) fn counters(&self) -> [usize; 4] {
        [self.store.len(), self.blocks, self.addresses.len(), self.per_hardware.len()]
    }
}

impl Address {
    /// `configured`: the scheme that the sharers of the address use. Its sets make the main group; where none is known,
    /// the whole address does, which is what a host has that shares none.
    fn new(configured: Option<Scheme>) -> Self {
        let dense = configured.filter(|scheme| scheme.length() <= MAX_DENSE_LENGTH);
        Self {
            form: dense.map_or(Form::Whole, Form::Ports),
            alone: true,
            learned: 0,
            main: Box::default(),
            bindings: Vec::new(),
            rest: None,
        }
    }

    fn rest_mut(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    /// Where the binding of a host is in the list, or would be.
    fn position(&self, hardware: EthernetAddress, store: &Store) -> Result<usize, usize> {
        self.bindings.binary_search_by_key(&hardware.0, |id| store.hop(*id).hardware.0)
    }

    fn main_holder(&self, protocol: u8, port: Option<u16>) -> Option<BindingId> {
        self.in_slot(self.form.slot_of(protocol, port)?)
    }

    fn in_slot(&self, slot: u16) -> Option<BindingId> {
        self.main.get(usize::from(slot)).copied().filter(|id| *id != EMPTY)
    }

    fn is_main(&self, block: Block) -> bool {
        // Not for each scope: a claim for one protocol would take an array of its own.
        block.scope == 0 && block.form == self.form
    }

    fn holder(&self, block: Block) -> Option<BindingId> {
        if self.is_main(block) {
            return self.in_slot(block.slot);
        }
        let groups = self.rest.as_ref()?.scopes.get(&block.scope)?;
        groups.iter().find(|group| group.form == block.form)?.slots.get(&block.slot).copied()
    }

    fn set_holder(&mut self, block: Block, holder: Option<BindingId>) {
        if self.is_main(block) {
            if self.main.is_empty() {
                self.main = vec![EMPTY; self.form.slots()].into();
            }
            self.main[usize::from(block.slot)] = holder.unwrap_or(EMPTY);
            return;
        }
        let rest = self.rest.get_or_insert_default();
        let groups = rest.scopes.entry(block.scope).or_default();
        let at = groups.iter().position(|group| group.form == block.form).unwrap_or_else(|| {
            groups.push(Group { form: block.form, slots: FxHashMap::default() });
            groups.len() - 1
        });
        let slots = &mut groups[at].slots;
        match holder {
            Some(id) => slots.insert(block.slot, id),
            None => slots.remove(&block.slot),
        };
        if slots.is_empty() {
            groups.swap_remove(at);
            if groups.is_empty() {
                rest.scopes.remove(&block.scope);
            }
        }
        let portless_only = |groups: &Vec<Group>| matches!(groups[..], [Group { form: Form::Portless, .. }]);
        self.alone = match rest.scopes.len() {
            0 => true,
            1 => rest.scopes.get(&0).is_some_and(portless_only),
            _ => false,
        };
    }

    fn claim(&mut self, block: Block, id: BindingId, store: &Store) {
        let Some(holder) = self.holder(block) else { return self.set_holder(block, Some(id)) };
        let (winner, loser) =
            if store.precedence(id) > store.precedence(holder) { (id, holder) } else { (holder, id) };
        self.set_holder(block, Some(winner));
        *self.rest_mut().disputed.entry((block, store.precedence(loser), loser)).or_default() += 1;
    }

    fn release(&mut self, block: Block, (precedence, id): (Precedence, BindingId)) {
        if self.withdraw((block, precedence, id)) {
            return;
        }
        // The holder goes: the strongest of the others takes its place.
        let (weakest, strongest) = ((u8::MIN, i64::MIN), (u8::MAX, i64::MAX));
        let claims = (block, weakest, BindingId::MIN)..=(block, strongest, BindingId::MAX);
        let disputed = self.rest.as_ref().map(|rest| &rest.disputed);
        let heir = disputed.and_then(|disputed| disputed.range(claims).next_back()).map(|(claim, _)| *claim);
        if let Some(heir) = heir {
            self.withdraw(heir);
        }
        self.set_holder(block, heir.map(|(.., id)| id));
    }

    /// Takes one record out of a claim to a slot that another one holds; whether there was one.
    fn withdraw(&mut self, claim: (Block, Precedence, BindingId)) -> bool {
        let Some(rest) = &mut self.rest else { return false };
        let Some(records) = rest.disputed.get_mut(&claim) else { return false };
        *records -= 1;
        if *records == 0 {
            rest.disputed.remove(&claim);
        }
        true
    }
}

impl Form {
    fn slot_of(self, protocol: u8, port: Option<u16>) -> Option<u16> {
        match (self, port) {
            (Self::Ports(scheme), Some(port)) => scheme.covers(port).then(|| scheme.psid_of(port)),
            (Self::Single, Some(port)) => Some(port),
            (Self::Whole, _) => Some(0),
            (Self::Portless, None) => Some(u16::from(protocol)),
            (Self::Ports(_) | Self::Single, None) | (Self::Portless, Some(_)) => None,
        }
    }

    /// How many slots there are.
    const fn slots(self) -> usize {
        match self {
            Self::Ports(scheme) => scheme.sets() as usize,
            Self::Single => 1 << 16,
            Self::Portless => 1 << 8,
            Self::Whole => 1,
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

fn for_each_block(record: &Record, mut visit: impl FnMut(Block)) {
    let scope = record.scope;
    match record.claim {
        Claim::Range(range) if range.first() == range.last() => {
            visit(Block { scope, form: Form::Single, slot: range.first() });
        }
        Claim::Psid(psid) if psid.scheme().length() == 16 => {
            visit(Block { scope, form: Form::Single, slot: psid.value() });
        }
        Claim::Range(range) => range.blocks().for_each(|psid| {
            visit(Block { scope, form: Form::Ports(psid.scheme()), slot: psid.value() });
        }),
        Claim::Psid(psid) => visit(Block { scope, form: Form::Ports(psid.scheme()), slot: psid.value() }),
        Claim::Full => visit(Block { scope: 0, form: Form::Whole, slot: 0 }),
        Claim::Portless(protocol) => {
            visit(Block { scope: 0, form: Form::Portless, slot: u16::from(protocol) });
        }
    }
}

//! Where the bindings of a link are kept, by number: what a packet needs of one apart from what only a message needs.
//!
//! A million bindings do not fit into the caches of a processor; a million [`Hop`]s nearly do.

use core::net::Ipv4Addr;

use rustc_hash::FxHashMap;
use slab::Slab;
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use super::binding::{Binding, BindingRef, Held, Point, Precedence, Source, State};

pub(super) type BindingId = u32;

/// What a packet needs of a binding: four to a cache line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop {
    pub(super) hardware: EthernetAddress,
    phase: Phase,
    /// When the phase ends; without meaning in those that do not.
    until: Instant,
}

/// [`State`] without its time, to be small.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Permanent,
    Reachable,
    Stale,
    Delay,
    /// The number of probes sent; there are few.
    Probe(u8),
}

/// What only messages and timers need of a binding.
#[derive(Debug)]
struct Rest {
    ip: Ipv4Addr,
    source: Source,
    records: Records,
    seniority: i64,
    heard: Instant,
}

/// Nearly every binding has one record, which then needs no memory of its own.
#[derive(Debug)]
enum Records {
    One(Held),
    Many(Box<[Held]>),
}

/// What is left of a dispute about the ports of a binding. Few have one.
#[derive(Clone, Copy, Debug, Default)]
struct Dispute {
    challenged: Option<Instant>,
    disputed: Option<Point>,
}

// The bounds of docs/performance.md depend on these.
const _: () = assert!(size_of::<Hop>() == 16 && size_of::<Rest>() <= 56);

/// Bindings by number. Numbers of bindings that were removed are used again.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// As long as `rest` was at most; those of numbers that are not in use have no meaning.
    hops: Vec<Hop>,
    rest: Slab<Rest>,
    disputes: FxHashMap<BindingId, Dispute>,
}

impl Store {
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn get(&self, id: BindingId) -> Option<BindingRef<'_>> {
        self.rest.get(id as usize).map(|rest| self.compose(id, rest))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (BindingId, BindingRef<'_>)> {
        self.rest.iter().map(|(id, rest)| (id as BindingId, self.compose(id as BindingId, rest)))
    }

    fn compose<'a>(&self, id: BindingId, rest: &'a Rest) -> BindingRef<'a> {
        let hop = self.hop(id);
        let Dispute { challenged, disputed } = self.disputes.get(&id).copied().unwrap_or_default();
        Binding {
            ip: rest.ip,
            hardware: hop.hardware,
            records: rest.records.as_slice(),
            source: rest.source,
            seniority: rest.seniority,
            state: hop.state(),
            heard: rest.heard,
            challenged,
            disputed,
        }
    }

    /// What a packet needs of a binding that exists.
    pub(super) fn hop(&self, id: BindingId) -> &Hop {
        &self.hops[id as usize]
    }

    /// Which place a binding that exists takes.
    pub(super) fn precedence(&self, id: BindingId) -> Precedence {
        let rest = &self.rest[id as usize];
        (rest.source.rank(), rest.seniority)
    }

    pub(super) fn insert(&mut self, binding: Binding) -> BindingId {
        let Binding { ip, hardware, records, source, seniority, state, heard, challenged, disputed } =
            binding;
        let (phase, until) = Phase::of(state);
        let hop = Hop { hardware, phase, until };
        let records = match *records {
            [one] => Records::One(one),
            _ => Records::Many(records.into()),
        };
        let id = self.rest.insert(Rest { ip, source, records, seniority, heard });
        match self.hops.get_mut(id) {
            Some(place) => *place = hop,
            None => self.hops.push(hop),
        }
        let id = id as BindingId;
        if challenged.is_some() || disputed.is_some() {
            self.disputes.insert(id, Dispute { challenged, disputed });
        }
        id
    }

    pub(super) fn remove(&mut self, id: BindingId) -> Option<Binding> {
        let binding = self.get(id)?.to_owned();
        self.rest.remove(id as usize);
        self.disputes.remove(&id);
        Some(binding)
    }

    pub(super) fn set_state(&mut self, id: BindingId, state: State) {
        if let Some(hop) = self.hops.get_mut(id as usize) {
            (hop.phase, hop.until) = Phase::of(state);
        }
    }

    pub(super) fn dispute(&mut self, id: BindingId, point: Point, now: Instant) {
        if self.rest.contains(id as usize) {
            self.disputes.insert(id, Dispute { challenged: Some(now), disputed: Some(point) });
        }
    }
}

impl Hop {
    pub(super) fn state(&self) -> State {
        let until = self.until;
        match self.phase {
            Phase::Permanent => State::Permanent,
            Phase::Reachable => State::Reachable { until },
            Phase::Stale => State::Stale,
            Phase::Delay => State::Delay { until },
            Phase::Probe(sent) => State::Probe { sent, next: until },
        }
    }
}

impl Phase {
    fn of(state: State) -> (Self, Instant) {
        match state {
            State::Permanent => (Self::Permanent, Instant::ZERO),
            State::Reachable { until } => (Self::Reachable, until),
            State::Stale => (Self::Stale, Instant::ZERO),
            State::Delay { until } => (Self::Delay, until),
            State::Probe { sent, next } => (Self::Probe(sent), next),
        }
    }
}

impl Records {
    fn as_slice(&self) -> &[Held] {
        match self {
            Self::One(held) => core::slice::from_ref(held),
            Self::Many(records) => records,
        }
    }
}

//! The server's side of RFC 2131, with the port sets of RFC 7618.

mod answer;

use core::net::Ipv4Addr;
use std::collections::{HashMap, VecDeque};

use dhcproto::v4::MessageType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustc_hash::FxHashMap;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use super::codec::{ClientId, Invalid, Request};
use super::lease::{Lease, LeaseState, Slot, Table};
use super::limit::Limit;
use super::pool::{Pool, PoolKind, Reservation};
use crate::ports::{Portless, Psid, Scheme};

/// How long an offer stands.
const OFFER_TIME: Duration = Duration::from_secs(60);
/// Offers that stand on one link at a time: what a flood of made-up clients can take away from others. The oldest one
/// makes room, so that whoever takes an offer at once gets it, unless there are so many others meanwhile.
const MAX_OFFERS_PER_LINK: usize = 256;
/// Leases of one link-layer address at a time, as many as PE-ARP rule 46 lets it claim.
const MAX_LEASES_PER_HARDWARE: usize = 16;
/// The shortest lease that a client can ask for.
const MIN_LEASE: Duration = Duration::from_secs(60);
/// Between two searches of pools that were found full.
const FULL_TIME: Duration = Duration::from_secs(1);
/// After a lease could not be stored: no offers for this long, as no acknowledgement would follow.
const STORAGE_PAUSE: Duration = Duration::from_secs(10);

/// A link on which clients are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLink {
    /// The caller's number for it.
    pub link: usize,
    /// The server's address on it, and the on-link prefix.
    pub address: Ipv4Cidr,
    /// The router that clients are told of, where their pool names none.
    pub router: Option<Ipv4Addr>,
}

/// Configuration of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients and relays are heard.
    pub links: Vec<ServerLink>,
    /// What there is to give.
    pub pools: Vec<Pool>,
    /// What is kept for somebody.
    pub reservations: Vec<Reservation>,
    /// The longest lease.
    pub lease: Duration,
    /// How long a set that was released or has expired is given to nobody else (PE-ARP rule 74).
    pub rest: Duration,
    /// How long a declined set is given to nobody.
    pub quarantine: Duration,
    /// Name servers that clients are told of.
    pub dns: Vec<Ipv4Addr>,
    /// The domain that clients are told of.
    pub domain: Option<String>,
    /// Seed of the choice of sets.
    pub seed: u64,
}

impl Config {
    /// The addresses that are shared, and their schemes.
    pub fn shared(&self) -> impl Iterator<Item = (Ipv4Addr, Scheme)> {
        self.pools
            .iter()
            .flat_map(|pool| match pool.kind {
                PoolKind::Shared(scheme) => Some(pool.addresses().map(move |ip| (ip, scheme))),
                PoolKind::Whole => None,
            })
            .flatten()
    }
}

/// Where a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The link's number in [`ServerLink`].
    pub link: usize,
    /// The Ethernet source.
    pub source: EthernetAddress,
}

/// Where a reply goes (RFC 2131 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To a relay's port 67, by the routing table.
    Relay(Ipv4Addr),
    /// To everybody on the link.
    Broadcast,
    /// To this link-layer address, whoever else has the IP address (PE-ARP rule 100).
    Client(EthernetAddress, Ipv4Addr),
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The link by which the request came.
    pub link: usize,
    /// Where it goes.
    pub destination: Destination,
    /// The UDP payload.
    pub message: Vec<u8>,
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Store this lease, in place of what was stored for its {address, set}; then call [`Server::committed`].
    Commit(Lease),
    /// What the host has of the address changed: [`Server::granted`] has it.
    Bindings {
        /// The address.
        ip: Ipv4Addr,
        /// The host.
        hardware: EthernetAddress,
    },
}

/// Why a message was not dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It makes no sense.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// The Ethernet source is not the client that the message names.
    #[error("client and Ethernet source differ")]
    Source,
    /// It came by a link, or through a relay on a network, that is not served.
    #[error("not a network that is served")]
    Network,
    /// Too many messages, offers or leases of this client or link.
    #[error("too many")]
    Limit,
}

/// A lease that is being stored.
#[derive(Debug)]
struct Pending {
    slot: Slot,
    /// What an acknowledgement needs; a release or decline stands whether or not it is stored.
    grant: Option<Grant>,
}

#[derive(Debug)]
struct Grant {
    /// What was in the slot before.
    before: Option<Lease>,
    reply: Option<Reply>,
}

/// An offer that stands.
#[derive(Clone, Copy, Debug)]
struct Offer {
    until: Instant,
    /// When the slot is free, if nobody takes it.
    rests: Instant,
}

/// Who asks, and on which network.
struct Context<'a> {
    request: &'a Request,
    arrival: Arrival,
    network: Ipv4Cidr,
    /// The server's address that the client is told.
    server: Ipv4Addr,
    now: Instant,
}

/// The server.
#[derive(Debug)]
pub struct Server {
    config: Config,
    table: Table,
    /// Slots that are kept for somebody, and the place of their reservation.
    reserved: HashMap<Slot, usize>,
    /// Offers that stand, by link.
    offers: FxHashMap<usize, FxHashMap<Slot, Offer>>,
    /// Pools without a free slot, by network and kind, are not searched before.
    full: FxHashMap<(Ipv4Cidr, bool), Instant>,
    limit: Limit,
    pending: VecDeque<Pending>,
    /// How many of `pending` the caller has been asked to store.
    asked: usize,
    /// No offers before.
    pause: Option<Instant>,
    replies: VecDeque<Reply>,
    events: VecDeque<Event>,
    rng: ChaCha8Rng,
}

impl Server {
    /// A server that knows the leases that were stored.
    pub fn new(config: Config, leases: impl IntoIterator<Item = Lease>, now: Instant) -> Self {
        let mut table = Table::default();
        for lease in leases {
            table.insert(lease);
        }
        let bound = table.iter().filter(|lease| lease.state == LeaseState::Bound);
        let events = bound.map(|lease| Event::Bindings { ip: lease.ip, hardware: lease.hardware }).collect();
        let mut server = Self {
            reserved: config
                .reservations
                .iter()
                .enumerate()
                .map(|(at, reservation)| ((reservation.ip, reservation.set), at))
                .collect(),
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            config,
            table,
            offers: FxHashMap::default(),
            full: FxHashMap::default(),
            limit: Limit::default(),
            pending: VecDeque::new(),
            asked: 0,
            pause: None,
            replies: VecDeque::new(),
            events,
        };
        server.handle_timeout(now);
        server
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Every lease; of a slot that is free again, the last one.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> + Clone {
        self.table.iter()
    }

    /// The leases of an address that a host has.
    pub fn granted(
        &self,
        ip: Ipv4Addr,
        hardware: EthernetAddress,
        now: Instant,
    ) -> impl Iterator<Item = &Lease> {
        let of_address = self.table.of_hardware(hardware).filter(move |lease| lease.ip == ip);
        of_address.filter(move |lease| self.is_granted(lease) && now < lease.until)
    }

    /// What has no port and goes with a lease: what is reserved with its set, for its client.
    pub fn portless(&self, lease: &Lease) -> Option<&Portless> {
        let at = self.reserved.get(&lease.slot())?;
        let own = |one: &&Reservation| one.who.is(&lease.client, lease.hardware);
        let reservation = self.config.reservations.get(*at).filter(own)?;
        Some(&reservation.portless).filter(|portless| !portless.is_empty())
    }

    /// Whether a lease is bound, and the client may know that.
    fn is_granted(&self, lease: &Lease) -> bool {
        let slot = lease.slot();
        let first = self.pending.iter().filter(|pending| pending.slot == slot).find_map(|p| p.grant.as_ref());
        let before = |grant: &Grant| {
            let same = |before: &&Lease| before.hardware == lease.hardware;
            grant.before.as_ref().filter(same).is_some_and(|before| before.state == LeaseState::Bound)
        };
        lease.state == LeaseState::Bound && first.is_none_or(before)
    }

    /// Takes in a message from port 67 of a link.
    ///
    /// # Errors
    /// It is dropped: see [`Refused`].
    pub fn handle_message(&mut self, arrival: Arrival, message: &[u8], now: Instant) -> Result<(), Refused> {
        // A lease that has ended is no longer one, whoever asks first.
        self.handle_timeout(now);
        let request = Request::parse(message)?;
        // A relay forwards what others sent.
        if request.giaddr.is_none() && request.hardware != arrival.source {
            return Err(Refused::Source);
        }
        if !self.limit.allow(arrival.link, request.hardware, now) {
            return Err(Refused::Limit);
        }
        let (network, server) = self.network(&request, arrival).ok_or(Refused::Network)?;
        let context = Context { request: &request, arrival, network, server, now };
        tracing::debug!(client = %request.client, kind = ?request.kind, "DHCP in");
        match request.kind {
            MessageType::Discover => self.discover(&context),
            MessageType::Request => self.request(&context),
            MessageType::Decline => self.end(&context, LeaseState::Quarantined),
            MessageType::Release => self.end(&context, LeaseState::Released),
            MessageType::Inform => self.inform(&context),
            // `Request::parse` lets no other through.
            _ => Err(Invalid::Type.into()),
        }
    }

    /// What the caller was asked to store is stored, or cannot be.
    pub fn committed(&mut self, stored: bool, now: Instant) {
        self.pause = if stored { None } else { Some(now + STORAGE_PAUSE) };
        let done: Vec<_> = self.pending.drain(..core::mem::take(&mut self.asked)).collect();
        if stored {
            for Pending { slot, grant } in done {
                let Some(Grant { before, reply }) = grant else { continue };
                self.replies.extend(reply);
                let Some(lease) = self.table.get(slot) else { continue };
                let hosts = [Some(lease.hardware), before.map(|before| before.hardware)];
                let mut hosts: Vec<_> = hosts.into_iter().flatten().collect();
                hosts.dedup();
                // Who had it first, so that its end is known before the new binding.
                for hardware in hosts.into_iter().rev() {
                    self.events.push_back(Event::Bindings { ip: slot.0, hardware });
                }
            }
            return;
        }
        // The last one first, so that what was there before them all is left.
        for Pending { slot, grant } in done.into_iter().rev() {
            if let Some(Grant { before, .. }) = grant {
                self.table.remove(slot);
                before.map(|before| self.table.insert(before));
            }
        }
    }

    /// When [`Server::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.table.next_end()
    }

    /// Ends leases.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(lease) = self.table.ended(now) {
            let mut lease = lease.clone();
            // Not stored: what is stored says the same.
            (lease.state, lease.until) = (LeaseState::Released, lease.until + self.config.rest);
            self.events.push_back(Event::Bindings { ip: lease.ip, hardware: lease.hardware });
            self.table.insert(lease);
        }
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if let Some(Event::Commit(_)) = event {
            self.asked += 1;
        }
        event
    }

    /// The network on which a client is, and the server's address there.
    fn network(&self, request: &Request, arrival: Arrival) -> Option<(Ipv4Cidr, Ipv4Addr)> {
        let link = self.config.links.iter().find(|link| link.link == arrival.link)?;
        let network = match request.giaddr {
            None => link.address.network(),
            Some(relay) => self.network_of(relay)?,
        };
        Some((network, link.address.address()))
    }

    /// The network of an address.
    fn network_of(&self, ip: Ipv4Addr) -> Option<Ipv4Cidr> {
        let pools = self.config.pools.iter().map(|pool| pool.network);
        let links = self.config.links.iter().map(|link| link.address.network());
        pools.chain(links).find(|network| network.contains_addr(&ip))
    }

    /// The router that a client with this address is told of.
    fn router_of(&self, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        let Config { pools, links, .. } = &self.config;
        let own = pools.iter().find(|pool| pool.has_address(ip)).map(|pool| pool.router);
        let link = || links.iter().find(|link| link.address.contains_addr(&ip))?.router;
        let network = || pools.iter().find(|pool| pool.network.contains_addr(&ip)).map(|pool| pool.router);
        own.or_else(link).or_else(network)
    }

    /// Whether the client may have a slot at all: it is its own reservation, or anybody's, and on its network.
    fn is_allowed(&self, context: &Context<'_>, slot: Slot) -> bool {
        if self.network_of(slot.0) != Some(context.network) {
            return false;
        }
        if self.reserved.contains_key(&slot) {
            return self.reservations(context.request).any(|reserved| reserved == slot);
        }
        self.config.pools.iter().any(|pool| pool.gives(slot))
    }

    fn reservations(&self, request: &Request) -> impl Iterator<Item = Slot> {
        let own = |reservation: &&Reservation| reservation.who.is(&request.client, request.hardware);
        self.config.reservations.iter().filter(own).map(|reservation| (reservation.ip, reservation.set))
    }

    /// Whether nobody else has a port of the slot, or had it lately.
    fn is_free_for(&self, client: &ClientId, slot: Slot, now: Instant) -> bool {
        let rest = self.config.rest;
        let others = |lease: &Lease| lease.client != *client || lease.state == LeaseState::Quarantined;
        let taken = |lease: &Lease| others(lease) && lease.holds_off_others(rest, now);
        // One client, two sets that overlap: they are two leases, and only one can be live.
        let overlaps = |lease: &Lease| lease.set.intersects(slot.1) && (taken(lease) || lease.is_live(now));
        !self.table.get(slot).is_some_and(taken) && !self.table.foreign(slot).any(overlaps)
    }

    /// The slot to offer.
    fn choose(&mut self, context: &Context<'_>) -> Option<Slot> {
        let Context { request, network, now, .. } = *context;
        // RFC 6056 counts on ports that are hard to guess.
        let start: u16 = self.rng.random();
        let shares = |pool: &Pool| matches!(pool.kind, PoolKind::Shared(_)) && pool.network == network;
        // RFC 7618 §6: a client that can share takes a whole address where none is shared.
        let shared = request.wants_set && self.config.pools.iter().any(shares);
        let fits = |slot: &Slot| {
            (slot.1 != Psid::FULL) == shared
                && self.is_allowed(context, *slot)
                && self.is_free_for(&request.client, *slot, now)
        };
        let others = self.of_siblings(context);
        let own = || self.had(context).map(Lease::slot);
        // PE-ARP rule 124: of an address that the host has by now a client has only what it uses.
        let uses = |lease: &&Lease| lease.state == LeaseState::Bound && lease.is_live(now);
        let is_apart = |lease: &&Lease| uses(lease) || others.iter().all(|(ip, _)| *ip != lease.ip);
        let asked = request.requested.map(|ip| (ip, request.set.unwrap_or(Psid::FULL)));
        // What is reserved precedes what the client has, so that a new reservation takes effect; of several
        // reservations the one that it has precedes the others.
        let reserved =
            || own().filter(|slot| self.reserved.contains_key(slot)).chain(self.reservations(request));
        // PE-ARP rule 103: who names an address without a set is short of ports there.
        if let Some(ip) = request.requested.filter(|_| shared && request.set.is_none()) {
            let free = |pool: &Pool| {
                let slots = pool.slots_of(ip);
                let count = slots.clone().count();
                let mut from_start = slots.cycle().skip(usize::from(start) % count.max(1)).take(count);
                from_start.find(|slot| !self.reserved.contains_key(slot) && fits(slot))
            };
            let here = reserved().chain(own()).filter(|slot| slot.0 == ip).find(fits);
            if let Some(slot) = here.or_else(|| self.config.pools.iter().find_map(free)) {
                return Some(slot);
            }
            // Nothing else is of use for a host that has a set of the address, and an offer would keep it from others.
            if others.iter().any(|(other, _)| *other == ip) {
                return None;
            }
        }
        let apart = self.had(context).filter(is_apart).map(Lease::slot);
        let known = reserved().chain(apart).chain(asked).find(fits);
        known.or_else(|| self.any(context, shared, &others))
    }

    /// Leases that the client has, or had. An offer that it did not take says nothing about whose the slot is.
    fn had(&self, context: &Context<'_>) -> impl Iterator<Item = &Lease> {
        let (client, now) = (&context.request.client, context.now);
        let had = move |lease: &&Lease| lease.state != LeaseState::Offered || lease.is_live(now);
        self.table.of_client(client).filter(had)
    }

    /// What other clients of the same host have.
    fn of_siblings(&self, context: &Context<'_>) -> Vec<Slot> {
        let Context { request, now, .. } = *context;
        let has = |lease: &&Lease| lease.client != request.client && lease.is_live(now);
        self.table.of_hardware(request.hardware).filter(has).map(Lease::slot).collect()
    }

    /// Some slot that is free, from a random place on: RFC 6056 counts on ports that are hard to guess.
    /// `others`: what the host has already.
    fn any(&mut self, context: &Context<'_>, shared: bool, others: &[Slot]) -> Option<Slot> {
        let Context { request, network, now, .. } = *context;
        if self.full.get(&(network, shared)).is_some_and(|until| now < *until) {
            return None;
        }
        let kind =
            |pool: &&Pool| pool.network == network && matches!(pool.kind, PoolKind::Shared(_)) == shared;
        let pools: Vec<_> = self.config.pools.iter().filter(kind).collect();
        let size: u64 = pools.iter().map(|pool| pool.size()).sum();
        let start = self.rng.random_range(0..size.max(1));
        let at = |mut index: u64| {
            for pool in &pools {
                if index < pool.size() {
                    return pool.slot(index);
                }
                index -= pool.size();
            }
            None
        };
        let fits =
            |slot: &Slot| !self.reserved.contains_key(slot) && self.is_free_for(&request.client, *slot, now);
        let slots = || (start..size).chain(0..start.min(size)).filter_map(at);
        // PE-ARP rule 124: a host that has other leases gets another address, and of that the same set, so that one
        // choice of source ports fits both.
        let is_elsewhere = |ip: Ipv4Addr| others.iter().all(|(other, _)| *other != ip);
        let same_set = |pool: &&Pool| {
            let addresses = pool.addresses().filter(|ip| is_elsewhere(*ip));
            let mut same = addresses.flat_map(|ip| others.iter().map(move |(_, set)| (ip, *set)));
            same.find(|slot| pool.gives(*slot) && fits(slot))
        };
        let found = pools
            .iter()
            .find_map(same_set)
            // Where it has all of them already, there is nothing to be looked through.
            .or_else(|| {
                let elsewhere = pools.iter().any(|pool| pool.addresses().any(is_elsewhere));
                slots().filter(|slot| elsewhere && is_elsewhere(slot.0)).find(fits)
            })
            // One more set of an address that it has: the same for each time that it asks.
            .or_else(|| {
                let mut offered = self.had(context).map(Lease::slot);
                offered.find(|slot| pools.iter().any(|pool| pool.gives(*slot)) && fits(slot))
            })
            .or_else(|| slots().find(fits));
        if found.is_none() {
            tracing::warn!(%network, shared, "no address left to lease: make the pools larger");
            self.full.insert((network, shared), now + FULL_TIME);
        }
        found
    }

    /// Whether the client has all that one link-layer address may have.
    fn has_enough(&self, hardware: EthernetAddress, slot: Slot, now: Instant) -> bool {
        let others = |lease: &&Lease| lease.slot() != slot && lease.is_live(now);
        self.table.of_hardware(hardware).filter(others).count() >= MAX_LEASES_PER_HARDWARE
    }

    /// Notes an offer on a link, and until when its slot rests otherwise.
    fn note_offer(&mut self, link: usize, slot: Slot, rests: Instant, now: Instant) {
        let offers = self.offers.entry(link).or_default();
        if let Some(offer) = offers.get_mut(&slot).filter(|offer| now < offer.until) {
            offer.until = now + OFFER_TIME;
            return;
        }
        if offers.len() >= MAX_OFFERS_PER_LINK
            && let Some((until, oldest)) = offers.iter().map(|(slot, offer)| (offer.until, *slot)).min()
            && let Some(Offer { rests, .. }) = offers.remove(&oldest)
            && now < until
            && let Some(lease) = self.table.get(oldest).filter(|lease| lease.state == LeaseState::Offered)
        {
            let lease = Lease { state: LeaseState::Released, until: rests, ..lease.clone() };
            self.table.insert(lease);
        }
        offers.insert(slot, Offer { until: now + OFFER_TIME, rests });
    }
}

//! A host whose addresses and port sets come by DHCP: clients, and a [`Host`] while there is a lease.
//!
//! ```text
//!   client: ACK ──▶ host: PROBE, ANNOUNCE ──▶ client: bound ──▶ … renewed …
//!                        conflict ──▶ client: DECLINE          end, NAK, conflict ──▶ the set is gone
//! ```
//!
//! Each lease has a client of its own, with its own IAID: one for each address, and one for each further set that the
//! programs at an address need (PE-ARP rules 103 and 124).

mod growth;
mod looks;

use core::net::Ipv4Addr;
use std::collections::{BTreeMap, VecDeque};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, UdpPacket};

use super::counters::is_for;
use super::ethernet::transmit_own;
use super::host::{LAN, TUN};
use super::{
    Counters, DropReason, EchoPort, Host, HostAddress, HostConfig, HostLinks, HostOptions, LinkId, Node,
    SetConfig, Verdict,
};
use crate::dhcp::client::{self, Client, ClientLease, ClientState, Ignored, Wish};
use crate::neighbor::{Entry, OwnId};
use crate::ports::PortSet;
use crate::wire::{Frame, Medium, ipv4};
use growth::Growth;
use looks::Looks;

pub(super) const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;

/// Leases of a host, of all its addresses.
pub const MAX_LEASES: usize = 8;

/// Configuration of a host that has nothing yet.
#[derive(Clone, Debug)]
pub struct LeasedConfig {
    /// What it is. A DHCP server on the link is one more authority.
    pub options: HostOptions,
    /// The client of the first lease. Its link-layer address is the host's; others have other IAIDs.
    pub client: client::Config,
    /// How many addresses it wants a lease of, at most [`MAX_LEASES`].
    pub addresses: u32,
    /// Whether it asks for further sets where programs need more ports.
    pub grows: bool,
    /// What it had before, by IAID.
    pub stored: Vec<(u32, ClientLease)>,
}

/// What has happened to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// It is in use.
    Bound(ClientLease),
    /// It lasts longer, or its ports have changed.
    Changed(ClientLease),
    /// It is used no longer.
    Lost(Ipv4Addr),
}

/// What a lease is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// An address.
    Address,
    /// A further set of this address.
    Further(Ipv4Addr),
}

/// A lease, or the wish for one.
#[derive(Debug)]
struct Tenancy {
    client: Client,
    iaid: u32,
    purpose: Purpose,
    /// What the host has by it.
    set: Option<OwnId>,
    /// No new flow begins on the set, and it is given back when none is left.
    draining: bool,
    /// Nothing comes of it any more.
    over: bool,
}

impl Tenancy {
    /// The address that it has something of, or is about to have.
    fn ip(&self) -> Option<Ipv4Addr> {
        self.client.address()
    }

    fn is_further_at(&self, ip: Ipv4Addr) -> bool {
        self.purpose == Purpose::Further(ip) && !self.over
    }
}

/// How the ports of an address are used.
#[derive(Debug, Default)]
struct Use {
    growth: Growth,
    used: u32,
    total: u32,
}

/// A host and its clients.
#[derive(Debug)]
pub struct LeasedHost {
    config: LeasedConfig,
    /// There are always as many for addresses as addresses are wanted.
    tenancies: Vec<Tenancy>,
    host: Option<Host>,
    /// While there is no host, which otherwise counts.
    counters: Counters,
    /// Messages of the clients, and the last words of a host.
    transmits: VecDeque<(LinkId, Frame)>,
    events: VecDeque<LeaseEvent>,
    uses: BTreeMap<Ipv4Addr, Use>,
    looks: Looks,
    /// Seeds of the clients: one that takes the place of another must not repeat its xids.
    rng: ChaCha8Rng,
}

/// The UDP payload of a DHCP packet that has lost its Ethernet header.
pub(super) fn dhcp_message(frame: &mut Frame) -> Result<&[u8], DropReason> {
    // A kernel leaves the checksum to its device.
    frame.complete_checksum();
    let packet = ipv4::check(frame.bytes())?;
    if packet.more_frags() {
        return Err(DropReason::DhcpInvalid);
    }
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    let udp = UdpPacket::new_checked(packet.payload()).map_err(|_| DropReason::Truncated)?;
    if udp.verify_checksum(&from, &to) { Ok(udp.payload()) } else { Err(DropReason::DhcpInvalid) }
}

/// Whether an IPv4 packet, whole or the first fragment, is UDP to this port.
pub(super) fn is_udp_to(packet: &Ipv4Packet<&[u8]>, port: u16) -> bool {
    packet.version() == 4
        && packet.next_header() == IpProtocol::Udp
        && packet.frag_offset() == 0
        && UdpPacket::new_checked(packet.payload()).is_ok_and(|udp| udp.dst_port() == port)
}

impl LeasedHost {
    /// A host that has begun to ask for its leases.
    pub fn new(config: LeasedConfig, now: Instant) -> Self {
        let mut this = Self {
            tenancies: Vec::new(),
            host: None,
            counters: Counters::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            uses: BTreeMap::new(),
            looks: Looks::new(now),
            rng: ChaCha8Rng::seed_from_u64(config.client.seed),
            config,
        };
        let addresses = this.config.addresses.clamp(1, MAX_LEASES as u32) as usize;
        let stored = core::mem::take(&mut this.config.stored);
        for (iaid, lease) in stored.into_iter().filter(|(_, lease)| now < lease.until).take(MAX_LEASES) {
            let ip = lease.address.address();
            // The first lease of an address is for that, and others are for more of it.
            if this.tenancies.iter().any(|one| one.ip() == Some(ip)) {
                if this.config.grows {
                    this.want(iaid, Purpose::Further(ip), Some(lease), now);
                }
            } else if this.addresses_wanted() < addresses {
                this.want(iaid, Purpose::Address, Some(lease), now);
            }
        }
        while this.addresses_wanted() < addresses {
            this.want(this.free_iaid(), Purpose::Address, None, now);
        }
        this.sync(now);
        this
    }

    fn addresses_wanted(&self) -> usize {
        self.tenancies.iter().filter(|one| one.purpose == Purpose::Address).count()
    }

    fn free_iaid(&self) -> u32 {
        let first = self.config.client.iaid;
        let taken = |iaid: u32| self.tenancies.iter().any(|one| one.iaid == iaid);
        // There are few tenancies.
        (0..).map(|n| first.wrapping_add(n)).find(|iaid| !taken(*iaid)).unwrap_or(first)
    }

    fn want(&mut self, iaid: u32, purpose: Purpose, stored: Option<ClientLease>, now: Instant) {
        let (seed, wish) = (self.rng.random(), self.wish_of(iaid, purpose));
        let config = client::Config { iaid, seed, wish, ..self.config.client.clone() };
        let client = Client::new(config, stored, now);
        self.tenancies.push(Tenancy { client, iaid, purpose, set: None, draining: false, over: false });
        self.wish();
    }

    fn wish_of(&self, iaid: u32, purpose: Purpose) -> Wish {
        match purpose {
            Purpose::Further(ip) => Wish::At(ip),
            Purpose::Address => {
                let others =
                    self.tenancies.iter().filter(|one| one.iaid != iaid && one.purpose == Purpose::Address);
                Wish::Besides(others.filter_map(Tenancy::ip).collect())
            }
        }
    }

    /// Tells the clients what is of use.
    fn wish(&mut self) {
        let wishes: Vec<_> = self.tenancies.iter().map(|one| self.wish_of(one.iaid, one.purpose)).collect();
        for (one, wish) in self.tenancies.iter_mut().zip(wishes) {
            one.client.set_wish(wish);
        }
    }

    /// The client of the first address.
    pub fn client(&self) -> &Client {
        let first = self.tenancies.iter().position(|one| one.purpose == Purpose::Address);
        &self.tenancies[first.unwrap_or(0)].client
    }

    /// The clients of all leases, and of those that it would like to have.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.tenancies.iter().map(|one| &one.client)
    }

    /// What is to be kept over a restart, by IAID.
    pub fn kept(&self) -> Vec<(u32, ClientLease)> {
        self.tenancies.iter().filter_map(|one| Some((one.iaid, one.client.kept()?.clone()))).collect()
    }

    /// The host, while there is one: from the probe of its first set on.
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The host, to use its sockets; afterwards [`Node::poll_transmit`] has what they send.
    pub fn host_mut(&mut self) -> Option<&mut Host> {
        self.host.as_mut()
    }

    /// What has happened to the addresses.
    pub fn poll_event(&mut self) -> Option<LeaseEvent> {
        self.events.pop_front()
    }

    /// Gives the leases back and ends.
    pub fn release(&mut self, now: Instant) {
        self.tenancies.iter_mut().for_each(|one| one.client.release(now));
        self.end_host(now);
        self.sync(now);
    }

    /// Nobody can say which ports are in use: it neither grows nor shrinks from now on.
    pub fn end_looks(&mut self) {
        self.looks.end();
    }

    /// Whether [`LeasedHost::observe`] is due; once.
    pub fn wants_look(&mut self) -> bool {
        self.looks.take()
    }

    /// Of the ports of an address that programs may choose from, how many were in use at the last look, and how many
    /// there are; nothing before the first look.
    pub fn port_use(&self, ip: Ipv4Addr) -> Option<(u32, u32)> {
        self.uses.get(&ip).map(|one| (one.used, one.total))
    }

    /// Whether a set is to be given back.
    pub fn is_draining(&self, id: OwnId) -> bool {
        self.tenancies.iter().any(|one| one.set == Some(id) && one.draining)
    }

    /// Whether a frame from the LAN is for a client: to port 68, which belongs to nobody (PE-ARP rule 100).
    fn is_dhcp(&self, frame: &Frame) -> bool {
        let Ok(ethernet) = EthernetFrame::new_checked(frame.bytes()) else { return false };
        ethernet.ethertype() == EthernetProtocol::Ipv4
            && is_for(ethernet.dst_addr(), self.config.options.hardware)
            && Ipv4Packet::new_checked(ethernet.payload()).is_ok_and(|packet| is_udp_to(&packet, CLIENT_PORT))
    }

    fn receive_dhcp(&mut self, frame: &mut Frame, now: Instant) -> Result<Verdict, DropReason> {
        let source = EthernetFrame::new_unchecked(frame.bytes()).src_addr();
        if source == self.config.options.hardware {
            return Err(DropReason::OwnEcho);
        }
        frame.pop_ethernet_header();
        let message = dhcp_message(frame)?;
        for one in &mut self.tenancies {
            match one.client.handle_message(source, message, now) {
                // An answer to the question of another one.
                Err(Ignored::Foreign) => {}
                result => {
                    // What one of them is about to have is nothing for the others.
                    self.wish();
                    return Ok(result.map(|()| Verdict::Delivered)?);
                }
            }
        }
        Err(Ignored::Foreign.into())
    }

    /// Does what the clients and the host want of each other.
    fn sync(&mut self, now: Instant) {
        while let Some(at) = (0..self.tenancies.len()).find(|at| self.advance(*at, now)) {
            tracing::trace!(at, "a lease went on");
        }
        for at in 0..self.tenancies.len() {
            self.send(at);
        }
        let before = self.tenancies.len();
        self.tenancies.retain(|one| !one.over);
        if self.tenancies.len() < before {
            self.wish();
        }
    }

    /// One step of a lease; whether there was one.
    fn advance(&mut self, at: usize, now: Instant) -> bool {
        if let Some(event) = self.tenancies[at].client.poll_event() {
            match event {
                client::Event::Probe(lease) => self.begin_set(at, &lease, now),
                client::Event::Renewed(lease) => {
                    if let (Some(host), Some(id)) = (&mut self.host, self.tenancies[at].set) {
                        host.renew_with(id, &lease.portless, lease.until - now, now);
                    }
                    self.events.push_back(LeaseEvent::Changed(lease));
                }
                client::Event::Lost => {
                    if let Some(ip) = self.end_set(at, now) {
                        self.succeed(at, ip);
                    }
                }
            }
            self.wish();
            return true;
        }
        let Some(host) = &mut self.host else { return false };
        if at == 0
            && let Some((id, owner)) = host.take_lost()
        {
            tracing::warn!(%owner, "a leased set is in use by another host");
            let lost = self.tenancies.iter_mut().find(|one| one.set == Some(id));
            lost.into_iter().for_each(|one| one.client.probed(false, now));
            return true;
        }
        let one = &mut self.tenancies[at];
        let holds = one.set.is_some_and(|id| host.phase_of(id).holds());
        if one.client.state() != ClientState::Probing || !holds {
            return false;
        }
        one.client.probed(true, now);
        if let Some(lease) = one.client.lease().cloned() {
            let ip = lease.address.address();
            let further = self
                .tenancies
                .iter()
                .enumerate()
                .any(|(other, one)| other != at && one.ip() == Some(ip) && one.client.lease().is_some());
            self.events.push_back(if further {
                LeaseEvent::Changed(lease)
            } else {
                LeaseEvent::Bound(lease)
            });
        }
        true
    }

    /// Where the lease of an address is lost and a further set of it stays, that one is for the address from now on.
    fn succeed(&mut self, at: usize, ip: Ipv4Addr) {
        let stays = |one: &Tenancy| one.is_further_at(ip) && one.set.is_some();
        if self.tenancies[at].purpose == Purpose::Address
            && let Some(other) = self.tenancies.iter().position(stays)
        {
            self.tenancies[at].purpose = Purpose::Further(ip);
            self.tenancies[other].purpose = Purpose::Address;
            self.keep(other);
        }
    }

    /// A set that was to be given back is not.
    fn keep(&mut self, at: usize) {
        let one = &mut self.tenancies[at];
        if let (true, Some(host), Some(id)) = (core::mem::take(&mut one.draining), &mut self.host, one.set) {
            host.set_draining(id, false);
            one.ip().into_iter().for_each(|ip| self.changed(ip));
        }
    }

    /// The ports of an address have changed.
    fn changed(&mut self, ip: Ipv4Addr) {
        let mut leases = self.tenancies.iter().filter_map(|one| one.client.lease());
        let lease = leases.find(|lease| lease.address.address() == ip).cloned();
        self.events.extend(lease.map(LeaseEvent::Changed));
    }

    /// Sends what a client wants to say.
    fn send(&mut self, at: usize) {
        while let Some(client::Transmit { to, from, message }) = self.tenancies[at].client.poll_transmit() {
            let everybody = (EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST);
            let (hardware, ip) = to.unwrap_or(everybody);
            let packet = ipv4::udp((from, CLIENT_PORT), (ip, SERVER_PORT), &message);
            let mut frame = Frame::from_packet(&packet);
            frame.push_ethernet_header(self.config.options.hardware, hardware);
            let counters = self.host.as_mut().map_or(&mut self.counters, |host| &mut host.counters);
            transmit_own(counters, &mut self.transmits, frame, Verdict::Forward(LAN));
        }
    }

    /// Begins to probe what a client has got.
    fn begin_set(&mut self, at: usize, lease: &ClientLease, now: Instant) {
        self.end_set(at, now);
        let first = SetConfig {
            address: lease.address,
            gateway: lease.gateway,
            set: PortSet::Psid(lease.set),
            portless: lease.portless.clone(),
            // What is to be probed has not ended.
            lease: Some(lease.until - now),
        };
        // Its leases decide who owns what.
        let via = self.tenancies[at].client.via();
        let authority = via.filter(|_| lease.address.contains_addr(&lease.server));
        let Some(host) = &mut self.host else {
            return self.begin_host(at, first, authority, now);
        };
        host.add_authorities(authority);
        match host.add_set(first, now) {
            Ok(id) => self.tenancies[at].set = Some(id),
            Err(error) => {
                // For an address it is tried again: when the others have ended, it is of use.
                tracing::error!(address = %lease.address, "a lease cannot be used, and is given back: {error}");
                self.tenancies[at].client.refuse(now);
                self.tenancies[at].over = self.tenancies[at].purpose != Purpose::Address;
            }
        }
    }

    fn begin_host(&mut self, at: usize, first: SetConfig, authority: Option<EthernetAddress>, now: Instant) {
        let mut options = self.config.options.clone();
        options.authorities.extend(authority);
        let config = HostConfig { options, first };
        let host = Host::new(config.clone(), now).or_else(|error| {
            tracing::warn!(%error, "no echo service");
            let options = HostOptions { echo: EchoPort::Off, ..config.options };
            Host::new(HostConfig { options, ..config }, now)
        });
        match host {
            Ok(mut host) => {
                host.counters.add_change(&Counters::default(), &core::mem::take(&mut self.counters));
                self.host = Some(host);
                self.tenancies[at].set = Some(OwnId::FIRST);
            }
            // Without an echo service nothing of it can fail.
            Err(error) => tracing::error!(%error, "the leased set cannot be used"),
        }
    }

    /// Ends the use of what a lease gave, if there is something: of which address it was.
    fn end_set(&mut self, at: usize, now: Instant) -> Option<Ipv4Addr> {
        let (host, id) = (self.host.as_mut()?, self.tenancies[at].set.take()?);
        self.tenancies[at].draining = false;
        let ip = host.addresses().iter().find(|address| address.has_set(id))?.ip();
        if !host.remove_set(id, now) {
            self.end_host(now);
        }
        if self.host.as_ref().is_some_and(|host| host.address_of(ip).is_some()) {
            self.changed(ip);
        } else {
            self.events.push_back(LeaseEvent::Lost(ip));
        }
        Some(ip)
    }

    fn end_host(&mut self, now: Instant) {
        self.tenancies.iter_mut().for_each(|one| one.set = None);
        let Some(mut host) = self.host.take() else { return };
        // Neighbors learn at once that it is over.
        host.release(now);
        self.transmits.extend(core::iter::from_fn(|| host.poll_transmit(now)));
        self.counters = core::mem::take(&mut host.counters);
        // What waited for a next hop has no source any more.
        while self.counters.pending > 0 {
            self.counters.count_resolved(DropReason::SetNotHeld.into());
        }
    }

    fn counters_mut(&mut self) -> &mut Counters {
        self.host.as_mut().map_or(&mut self.counters, |host| &mut host.counters)
    }
}

impl Node for LeasedHost {
    fn links(&self) -> Vec<(String, Medium)> {
        let HostLinks { lan, tun } = self.config.options.links.clone();
        vec![(lan, Medium::Ethernet), (tun, Medium::Ip)]
    }

    fn handle_frame(&mut self, link: LinkId, frame: &mut Frame, now: Instant) -> Verdict {
        if link == LAN && self.is_dhcp(frame) {
            self.counters_mut().received += 1;
            let verdict = self.receive_dhcp(frame, now).unwrap_or_else(Verdict::Dropped);
            self.counters_mut().count(verdict);
            self.sync(now);
            return verdict;
        }
        // Only of a shared address there can be too few ports.
        let shares = |host: &Host| host.addresses().iter().any(HostAddress::is_shared);
        if link == TUN && self.host.as_ref().is_some_and(shares) {
            self.looks.sent(now);
        }
        let Some(host) = &mut self.host else {
            self.counters.received += 1;
            let verdict = Verdict::Dropped(DropReason::SetNotHeld);
            self.counters.count(verdict);
            return verdict;
        };
        let verdict = host.handle_frame(link, frame, now);
        // Only what came by the LAN can have taken a set; but time goes on with every frame.
        if link != TUN || self.tenancies.iter().any(|one| one.client.state() == ClientState::Probing) {
            self.sync(now);
        }
        verdict
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<(LinkId, Frame)> {
        self.transmits.pop_front().or_else(|| self.host.as_mut()?.poll_transmit(now))
    }

    fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let host = self.host.as_mut().and_then(|host| host.poll_timeout(now));
        let clients = self.tenancies.iter().filter_map(|one| one.client.poll_timeout()).min();
        [clients, host, self.looks.poll_timeout()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(host) = &mut self.host {
            host.handle_timeout(now);
            self.sync(now);
        }
        self.tenancies.iter_mut().for_each(|one| one.client.handle_timeout(now));
        self.looks.handle_timeout(now);
        self.sync(now);
    }

    fn send_failed(&mut self, link: LinkId, frame: &Frame) {
        let medium = if link == TUN { Medium::Ip } else { Medium::Ethernet };
        self.counters_mut().send_failed(medium, frame);
    }

    fn counters(&self) -> &Counters {
        self.host.as_ref().map_or(&self.counters, Host::counters)
    }

    fn neighbors(&self, now: Instant) -> Vec<(String, Entry)> {
        self.host.as_ref().map(|host| host.neighbors(now)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;

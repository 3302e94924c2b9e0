//! A swarm: thousands of hosts in one process, on one link.
//!
//! Each is a [`Host`] without programs, with a link-layer address, an engine and a stack of its own. The swarm gives
//! each frame to those that it concerns, as a switch that knows what they own, and joins them with each other:
//!
//! ```text
//!            ┌── unicast: by link-layer address ──> host
//!   LAN ─────┤
//!            └── broadcast ARP: by {IP, port} ────> owner, or those who have a say; the others never see it
//! ```

mod audience;

use core::net::Ipv4Addr;
use std::collections::{BTreeSet, VecDeque};

use rustc_hash::FxHashMap;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, EthernetFrame, Ipv4Cidr};

use self::audience::Audience;
use super::host::LAN;
use super::{
    Counters, DropReason, EchoPort, Host, HostConfig, HostLinks, HostOptions, LeakPolicy, LinkId, Node,
    SetConfig, Verdict,
};
use crate::neighbor::{ClaimPhase, Entry, TokenBucket};
use crate::ports::{PortSet, Portless, Psid, Scheme};
use crate::wire::{Frame, Medium};

/// The most hosts of one swarm.
pub const MAX_SWARM_HOSTS: usize = 16_384;
/// Hosts that begin to probe at the same time: no more than the queue of a device takes.
const START_BATCH: usize = 80;
/// Between two such batches: 8000 hosts per second, and their announcements as many.
const START_INTERVAL: Duration = Duration::from_millis(10);
/// Broadcasts per second, and at once, that many hosts have to look at: SOLICIT-ALL, and claims that are not one PSID.
const WIDE_PER_SECOND: u32 = 16;
/// Frames from host to host that one step carries.
const MAX_INNER_FRAMES: usize = 4096;

/// Configuration of a swarm.
#[derive(Clone, Debug)]
pub struct SwarmConfig {
    /// The name of its link.
    pub lan: String,
    /// The link-layer address of the first host; those of the others follow.
    pub hardware: EthernetAddress,
    /// The addresses that are shared, with their on-link prefix. Sets are taken from the first one, then from the next.
    pub addresses: Vec<Ipv4Cidr>,
    /// How the ports of each are divided. Sets with ports below 1024 are given to nobody.
    pub scheme: Scheme,
    /// The first sets, which are left to others.
    pub skip: usize,
    /// How many hosts.
    pub hosts: usize,
    /// The router for everything else.
    pub gateway: Option<Ipv4Addr>,
    /// The largest IP packet, in bytes.
    pub mtu: usize,
    /// ar$pro of PE-ARP.
    pub pro: u16,
    /// Seed of everything random.
    pub seed: u64,
}

/// Why there can be no such swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwarmError {
    /// None, or too many.
    #[error("a swarm has 1 to {MAX_SWARM_HOSTS} hosts, not {0}")]
    Hosts(usize),
    /// Not enough port sets.
    #[error(
        "the addresses have room for {room} hosts with this scheme, {taken} of them others: give more addresses"
    )]
    Room {
        /// Sets of all addresses.
        room: usize,
        /// How many of them are left to others.
        taken: usize,
    },
    /// The link-layer addresses that follow the first are no longer those of one host.
    #[error("link-layer addresses run out after {0}: give a lower first one")]
    Hardware(EthernetAddress),
}

#[derive(Debug)]
struct Member {
    host: Host,
    /// Its place in the timers.
    due: Option<Instant>,
    /// It has its set, or lost it: nothing is to be waited for.
    settled: bool,
}

/// Thousands of hosts.
#[derive(Debug)]
pub struct Swarm {
    config: SwarmConfig,
    /// PSIDs of each address that can be given to a host.
    psids: Vec<u16>,
    /// Those that have been started.
    members: Vec<Member>,
    /// The owner of each PSID of each address.
    owners: FxHashMap<Ipv4Addr, Vec<Option<u32>>>,
    timers: BTreeSet<(Instant, usize)>,
    /// When the next hosts are started.
    start_at: Option<Instant>,
    unsettled: usize,
    wide: TokenBucket,
    /// Frames from host to host.
    inner: VecDeque<Frame>,
    transmits: VecDeque<(LinkId, Frame)>,
    /// The sum of what the hosts count, and the frames that concern none of them. A broadcast counts once for each
    /// host that it was given to.
    counters: Counters,
}

/// What one host of a swarm is, for lists.
#[derive(Clone, Copy, Debug)]
pub struct SwarmHost<'a> {
    /// Its number, from 1.
    pub number: usize,
    /// The host.
    pub host: &'a Host,
}

impl SwarmHost<'_> {
    /// Its name in lists: s1, s2 …
    pub fn name(&self) -> String {
        name(self.number - 1)
    }
}

fn name(index: usize) -> String {
    format!("s{}", index + 1)
}

impl Swarm {
    /// A swarm whose first hosts have begun to probe their sets; the others follow within a second or so.
    ///
    /// # Errors
    /// See [`SwarmError`].
    pub fn new(config: SwarmConfig, now: Instant) -> Result<Self, SwarmError> {
        if config.hosts == 0 || config.hosts > MAX_SWARM_HOSTS {
            return Err(SwarmError::Hosts(config.hosts));
        }
        let last = (config.scheme.sets() - 1) as u16;
        let psids: Vec<u16> =
            config.scheme.first_user_psid().into_iter().flat_map(|first| first..=last).collect();
        let room = psids.len() * config.addresses.len();
        if config.skip.saturating_add(config.hosts) > room {
            return Err(SwarmError::Room { room, taken: config.skip });
        }
        let last = hardware_of(config.hardware, config.hosts - 1);
        if !last.is_some_and(|last| last.is_unicast()) {
            return Err(SwarmError::Hardware(config.hardware));
        }
        let mut swarm = Self {
            members: Vec::with_capacity(config.hosts),
            psids,
            owners: FxHashMap::default(),
            timers: BTreeSet::new(),
            start_at: Some(now),
            unsettled: config.hosts,
            wide: TokenBucket::new(WIDE_PER_SECOND, WIDE_PER_SECOND, now),
            inner: VecDeque::new(),
            transmits: VecDeque::new(),
            counters: Counters::default(),
            config,
        };
        swarm.handle_timeout(now);
        Ok(swarm)
    }

    /// The configuration.
    pub fn config(&self) -> &SwarmConfig {
        &self.config
    }

    /// The hosts that have been started.
    pub fn hosts(&self) -> impl ExactSizeIterator<Item = SwarmHost<'_>> {
        self.members.iter().enumerate().map(|(at, member)| SwarmHost { number: at + 1, host: &member.host })
    }

    /// Whether every host has its set, or has lost it to another one.
    pub fn is_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// Gives all sets back; [`Node::poll_transmit`] has the RELEASEs.
    pub fn release(&mut self, now: Instant) {
        for at in 0..self.members.len() {
            self.with(at, now, |host| host.release(now));
        }
        self.settle(now);
    }

    fn start_batch(&mut self, now: Instant) {
        let started = self.members.len();
        for at in started..self.config.hosts.min(started + START_BATCH) {
            self.start(at, now);
        }
        self.start_at = (self.members.len() < self.config.hosts).then(|| now + START_INTERVAL);
    }

    fn start(&mut self, at: usize, now: Instant) {
        let place = self.config.skip + at;
        // As many sets and link-layer addresses as hosts: `new` has looked.
        let Some(address) = self.config.addresses.get(place / self.psids.len()).copied() else { return };
        let value = self.psids[place % self.psids.len()];
        let (Ok(psid), Some(hardware)) =
            (Psid::new(self.config.scheme, value), hardware_of(self.config.hardware, at))
        else {
            return;
        };
        let set = PortSet::Psid(psid);
        let page = format!("{} {} {set}", name(at), address.address());
        let config = HostConfig {
            options: HostOptions {
                links: HostLinks { lan: self.config.lan.clone(), tun: String::new() },
                hardware,
                stack_ports: None,
                echo: EchoPort::Off,
                // There are no programs.
                leaks: LeakPolicy::Reject,
                authorities: Vec::new(),
                mtu: self.config.mtu,
                pro: self.config.pro,
                seed: self.config.seed.wrapping_add(at as u64),
            },
            first: SetConfig {
                address,
                gateway: self.config.gateway,
                set,
                portless: Portless::default(),
                lease: None,
            },
        };
        let host = Host::without_programs(config, page, now);
        let sets = self.config.scheme.sets() as usize;
        let owners = self.owners.entry(address.address()).or_insert_with(|| vec![None; sets]);
        owners[usize::from(value)] = Some(at as u32);
        self.members.push(Member { host, due: None, settled: false });
        // What it counted and wants to send so far.
        self.counters.add_change(&Counters::default(), self.members[at].host.counters());
        self.with(at, now, |_| ());
    }

    /// Lets one host do something, and takes over what came of it.
    fn with<R>(&mut self, at: usize, now: Instant, act: impl FnOnce(&mut Host) -> R) -> R {
        let member = &mut self.members[at];
        let before = member.host.counters().clone();
        let result = act(&mut member.host);
        self.counters.add_change(&before, member.host.counters());
        let settled = !matches!(member.host.phase(), ClaimPhase::Probing { .. });
        if settled != member.settled {
            member.settled = settled;
            self.unsettled = if settled { self.unsettled - 1 } else { self.unsettled + 1 };
        }
        let due = member.host.poll_timeout(now);
        if due != member.due {
            if let Some(earlier) = core::mem::replace(&mut member.due, due) {
                self.timers.remove(&(earlier, at));
            }
            if let Some(due) = due {
                self.timers.insert((due, at));
            }
        }
        while let Some((_, frame)) = self.members[at].host.poll_transmit(now) {
            self.switch(frame);
        }
        result
    }

    /// A frame of one of the hosts: to another one, or out, or both.
    fn switch(&mut self, frame: Frame) {
        let destination = EthernetFrame::new_unchecked(frame.bytes()).dst_addr();
        if destination.is_broadcast() {
            self.inner.push_back(frame.clone());
        } else if self.member_of(destination).is_some() {
            self.inner.push_back(frame);
            return;
        }
        self.transmits.push_back((LAN, frame));
    }

    /// Carries what the hosts have sent each other.
    fn settle(&mut self, now: Instant) {
        for _ in 0..MAX_INNER_FRAMES {
            let Some(mut frame) = self.inner.pop_front() else { return };
            let source = self.member_of(EthernetFrame::new_unchecked(frame.bytes()).src_addr());
            if let Ok(audience) = self.audience(&frame, now) {
                self.hand(audience, source, &mut frame, now);
            }
        }
        // Lost, as on any link that is too slow.
        while let Some(frame) = self.inner.pop_front() {
            if !EthernetFrame::new_unchecked(frame.bytes()).dst_addr().is_broadcast() {
                self.send_failed(LAN, &frame);
            }
        }
    }

    /// Gives a frame to hosts, but not to the one that sent it; what became of it, if there was one.
    fn hand(
        &mut self,
        audience: Audience,
        sender: Option<usize>,
        frame: &mut Frame,
        now: Instant,
    ) -> Option<Verdict> {
        let mut verdict = None;
        for at in audience.members().filter(|at| Some(*at) != sender) {
            // What several get is ARP, and that is not changed.
            let one = self.with(at, now, |host| host.handle_frame(LAN, frame, now));
            if verdict != Some(Verdict::Delivered) {
                verdict = Some(one);
            }
        }
        verdict
    }

    /// Which host has the link-layer address.
    fn member_of(&self, hardware: EthernetAddress) -> Option<usize> {
        let distance = number_of(hardware).checked_sub(number_of(self.config.hardware))?;
        usize::try_from(distance).ok().filter(|at| *at < self.members.len())
    }

    fn receive(&mut self, frame: &mut Frame, now: Instant) -> Result<Verdict, DropReason> {
        let ethernet = EthernetFrame::new_checked(frame.bytes()).map_err(|_| DropReason::ShortFrame)?;
        // A loop on the link: nobody else sends from these addresses.
        if self.member_of(ethernet.src_addr()).is_some() {
            return Err(DropReason::OwnEcho);
        }
        let audience = self.audience(frame, now)?;
        if audience.is_empty() {
            // A message of others among themselves, as a single host hears them, too.
            return Ok(Verdict::Delivered);
        }
        Ok(self.hand(audience, None, frame, now).unwrap_or(Verdict::Delivered))
    }
}

/// The link-layer address of the host `at`.
fn hardware_of(first: EthernetAddress, at: usize) -> Option<EthernetAddress> {
    let number = number_of(first).checked_add(at as u64).filter(|number| number >> 48 == 0)?;
    let [_, _, bytes @ ..] = number.to_be_bytes();
    Some(EthernetAddress(bytes))
}

fn number_of(hardware: EthernetAddress) -> u64 {
    hardware.0.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Node for Swarm {
    fn links(&self) -> Vec<(String, Medium)> {
        vec![(self.config.lan.clone(), Medium::Ethernet)]
    }

    fn handle_frame(&mut self, _link: LinkId, frame: &mut Frame, now: Instant) -> Verdict {
        let received = self.counters.received;
        let verdict = self.receive(frame, now).unwrap_or_else(Verdict::Dropped);
        if self.counters.received == received {
            // No host has it.
            self.counters.received += 1;
            self.counters.count(verdict);
        }
        self.settle(now);
        verdict
    }

    fn poll_transmit(&mut self, _now: Instant) -> Option<(LinkId, Frame)> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&mut self, _now: Instant) -> Option<Instant> {
        let timers = self.timers.first().map(|(at, _)| *at);
        [timers, self.start_at].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.start_at.is_some_and(|at| at <= now) {
            self.start_batch(now);
        }
        // Each once: what a host has left to do at once is its next turn.
        let due: Vec<_> = self.timers.range(..=(now, usize::MAX)).map(|(_, at)| *at).collect();
        for at in due {
            self.with(at, now, |host| host.handle_timeout(now));
        }
        self.settle(now);
    }

    fn send_failed(&mut self, link: LinkId, frame: &Frame) {
        let source = EthernetFrame::new_checked(frame.bytes()).map(|ethernet| ethernet.src_addr());
        let Some(at) = source.ok().and_then(|source| self.member_of(source)) else { return };
        let host = &mut self.members[at].host;
        let before = host.counters().clone();
        host.send_failed(link, frame);
        self.counters.add_change(&before, host.counters());
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Of all hosts; the name of a host stands for its link.
    fn neighbors(&self, now: Instant) -> Vec<(String, Entry)> {
        let of = |one: SwarmHost<'_>| {
            let name = one.name();
            one.host.neighbors(now).into_iter().map(move |(_, entry)| (name.clone(), entry))
        };
        self.hosts().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests;

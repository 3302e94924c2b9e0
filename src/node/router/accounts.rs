//! What each lease sends and gets, counted by {address, port set}: there is no state per flow.
//!
//! Whoever finds the next hop of a packet, or the owner of its source, has the number of a binding. By that number the
//! account is remembered, and checked against the packet's address and port, as numbers are used again:
//!
//! ```text
//!   {ip, port} → binding ──hints[binding]──> accounts[n]: address, set, counts
//! ```
//!
//! Where there is no binding, or another lease of the same host was meant last, the account is looked up by
//! {address, scheme, PSID}.

use core::net::Ipv4Addr;

use rustc_hash::FxHashMap;
use slab::Slab;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, Ipv4Packet, TcpPacket};

use super::Router;
use crate::dhcp::Lease;
use crate::neighbor::Target;
use crate::node::{DropReason, LinkId, Verdict};
use crate::ports::{Psid, Scheme};
use crate::wire::{FlowKey, FlowKind, Frame, Gso, TCP, Unkeyed};

/// In the list of hints, a binding of which nothing is known.
const NONE: u32 = u32::MAX;

/// Counts of one direction. A super-frame counts as the packets that it is on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// IP packets that were forwarded.
    pub packets: u64,
    /// Their bytes, from the IP header on: without Ethernet headers and padding.
    pub bytes: u64,
    /// TCP segments with SYN and without ACK among them: each begins a connection, or tries to once more. No packet
    /// shows the beginning of another flow.
    pub flows: u64,
    /// IP packets that were not forwarded, for whatever reason; but none with a forged source, which is nobody's.
    pub drops: u64,
}

/// What was counted since a client got its lease, or since the router started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Towards the host that has the lease.
    pub to_host: Tally,
    /// From it.
    pub from_host: Tally,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Forwarded,
    Dropped,
    /// It had been counted as forwarded, and its link did not take it.
    Lost,
}

/// What is counted of a packet that the router is to forward, and for whom.
#[derive(Clone, Copy, Debug)]
struct Transit {
    source: Target,
    destination: Target,
    packets: u64,
    bytes: u64,
    begins: bool,
}

impl Transit {
    fn of(packet: &Ipv4Packet<&[u8]>, key: &Result<FlowKey, Unkeyed>, gso: Option<Gso>) -> Self {
        let len = usize::from(packet.total_len());
        let (packets, bytes) = gso.map_or((1, len), |gso| gso.on_wire(len));
        let (protocol, source, destination, begins) = match key {
            Ok(key) => {
                let tcp = key.protocol == TCP && key.kind == FlowKind::Transport;
                (
                    key.protocol,
                    key.source,
                    key.destination,
                    tcp && !key.headless && begins_connection(packet.payload()),
                )
            }
            Err(_) => (packet.next_header().into(), None, None, false),
        };
        Self {
            source: Target { ip: packet.src_addr(), protocol, port: source },
            destination: Target { ip: packet.dst_addr(), protocol, port: destination },
            packets: packets as u64,
            bytes: bytes as u64,
            begins,
        }
    }
}

fn begins_connection(segment: &[u8]) -> bool {
    TcpPacket::new_checked(segment).is_ok_and(|tcp| tcp.syn() && !tcp.ack())
}

impl Tally {
    fn count(&mut self, transit: &Transit, fate: Fate) {
        let flows = u64::from(transit.begins);
        match fate {
            Fate::Forwarded => {
                self.packets += transit.packets;
                self.bytes += transit.bytes;
                self.flows += flows;
            }
            Fate::Dropped => self.drops += transit.packets,
            Fate::Lost => {
                // Its lease may have begun after it left.
                self.packets = self.packets.saturating_sub(transit.packets);
                self.bytes = self.bytes.saturating_sub(transit.bytes);
                self.flows = self.flows.saturating_sub(flows);
                self.drops += transit.packets;
            }
        }
    }
}

/// The account of a lease.
#[derive(Debug)]
struct Account {
    ip: Ipv4Addr,
    set: Psid,
    /// What tells this lease of {address, set} from those before it.
    since: Instant,
    traffic: Traffic,
}

// What docs/performance.md says of memory depends on it.
const _: () = assert!(size_of::<Account>() <= 80);

impl Account {
    fn is_of(&self, target: Target) -> bool {
        let whole = self.set == Psid::FULL;
        self.ip == target.ip && (whole || target.port.is_some_and(|port| self.set.contains(port)))
    }
}

/// The accounts of one address whose sets have one scheme, by PSID.
#[derive(Debug)]
struct Group {
    scheme: Scheme,
    accounts: FxHashMap<u16, u32>,
}

impl Group {
    fn find(&self, port: Option<u16>) -> Option<u32> {
        let value = match port {
            _ if self.scheme == Psid::FULL.scheme() => 0,
            Some(port) if self.scheme.covers(port) => self.scheme.psid_of(port),
            _ => return None,
        };
        self.accounts.get(&value).copied()
    }
}

/// An account for each {address, set} that was leased: as many as there are leases, those that are over included.
#[derive(Debug)]
pub(super) struct Accounts {
    accounts: Slab<Account>,
    /// By the bits of the address. The sets of an address do not overlap.
    addresses: FxHashMap<u32, Vec<Group>>,
    /// By link and number of a binding, the account that was found for it last.
    hints: Vec<Vec<u32>>,
}

impl Accounts {
    pub(super) fn new(links: usize) -> Self {
        Self { accounts: Slab::new(), addresses: FxHashMap::default(), hints: vec![Vec::new(); links] }
    }

    /// A client has this lease since then. What was counted for another one before is forgotten.
    pub(super) fn open(&mut self, ip: Ipv4Addr, set: Psid, since: Instant) {
        let account = Account { ip, set, since, traffic: Traffic::default() };
        if let Some(index) = self.index(ip, set) {
            let earlier = &mut self.accounts[index as usize];
            if earlier.since != since {
                *earlier = account;
            }
            return;
        }
        let Self { accounts, addresses, .. } = self;
        let groups = addresses.entry(ip.to_bits()).or_default();
        for group in groups.iter_mut() {
            // No two leases that overlap are given at a time: the other one is over.
            let over = |index: u32| accounts[index as usize].set.intersects(set);
            let ended: Vec<_> = group.accounts.extract_if(|_, index| over(*index)).collect();
            for (_, index) in ended {
                accounts.remove(index as usize);
            }
        }
        groups.retain(|group| !group.accounts.is_empty());
        let at = groups.iter().position(|group| group.scheme == set.scheme()).unwrap_or_else(|| {
            groups.push(Group { scheme: set.scheme(), accounts: FxHashMap::default() });
            groups.len() - 1
        });
        groups[at].accounts.insert(set.value(), accounts.insert(account) as u32);
    }

    fn index(&self, ip: Ipv4Addr, set: Psid) -> Option<u32> {
        let groups = self.addresses.get(&ip.to_bits())?;
        groups.iter().find(|group| group.scheme == set.scheme())?.accounts.get(&set.value()).copied()
    }

    /// What was counted for a lease.
    pub(super) fn traffic(&self, ip: Ipv4Addr, set: Psid, since: Instant) -> Option<Traffic> {
        let account = &self.accounts[self.index(ip, set)? as usize];
        (account.since == since).then_some(account.traffic)
    }

    fn find(&self, target: Target) -> Option<u32> {
        let groups = self.addresses.get(&target.ip.to_bits())?;
        groups.iter().find_map(|group| group.find(target.port))
    }

    /// The account of who a binding of a link says that it is.
    fn find_by(&mut self, link: LinkId, binding: Option<u32>, target: Target) -> Option<u32> {
        let Some(binding) = binding else { return self.find(target) };
        let hints = &self.hints[link.0];
        if let Some(hint) = hints.get(binding as usize)
            && self.accounts.get(*hint as usize).is_some_and(|account| account.is_of(target))
        {
            return Some(*hint);
        }
        let found = self.find(target)?;
        let hints = &mut self.hints[link.0];
        if hints.len() <= binding as usize {
            hints.resize(binding as usize + 1, NONE);
        }
        hints[binding as usize] = found;
        Some(found)
    }

    fn count(&mut self, from: Option<u32>, to: Option<u32>, transit: &Transit, fate: Fate) {
        if let Some(from) = from {
            self.accounts[from as usize].traffic.from_host.count(transit, fate);
        }
        if let Some(to) = to {
            self.accounts[to as usize].traffic.to_host.count(transit, fate);
        }
    }

    /// Counts an IP packet that is forwarded or dropped after a while. By which link it came is not known any more.
    pub(super) fn count_late(&mut self, packet: &[u8], gso: Option<Gso>, fate: Fate) {
        let Ok(packet) = Ipv4Packet::new_checked(packet) else { return };
        let transit = Transit::of(&packet, &FlowKey::of(&packet), gso);
        self.count(self.find(transit.source), self.find(transit.destination), &transit, fate);
    }
}

impl Router {
    /// What was counted for a lease; `None` where this router does not deliver to its client, or has not given it.
    pub fn traffic(&self, lease: &Lease) -> Option<Traffic> {
        self.accounts.as_ref()?.traffic(lease.ip, lease.set, lease.since)
    }

    /// What a host has leased of an address is counted from now on, if it is not already.
    pub(super) fn open_accounts(&mut self, ip: Ipv4Addr, hardware: EthernetAddress, now: Instant) {
        let (Some(dhcp), Some(accounts)) = (&self.dhcp, &mut self.accounts) else { return };
        for lease in dhcp.granted(ip, hardware, now) {
            accounts.open(ip, lease.set, lease.since);
        }
    }

    /// [`Router::forward`], and what came of it goes to the accounts; what waits is counted later.
    // A router without leases should not have this in its way.
    #[inline(never)]
    pub(super) fn forward_and_count(
        &mut self,
        ingress: LinkId,
        frame: &mut Frame,
        key: &Result<FlowKey, Unkeyed>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let packet = Ipv4Packet::new_unchecked(frame.bytes());
        let transit = Transit::of(&packet, key, frame.offload.gso);
        let mut by = None;
        let result = self.forward(ingress, frame, key, &mut by, now);
        let egress = match &result {
            Ok(Verdict::Forward(egress)) => Some(*egress),
            Ok(Verdict::Dropped(_)) | Err(_) => None,
            Ok(Verdict::Pending | Verdict::Delivered) => return result,
        };
        let Some(accounts) = &mut self.accounts else { return result };
        let link = &self.links[ingress.0];
        // Outside nobody has a lease, whatever a source address says.
        let from = if link.pe {
            let binding = link.interface.neighbors.binding_of(transit.source);
            accounts.find_by(ingress, binding, transit.source)
        } else {
            None
        };
        match egress {
            Some(egress) => {
                let lan = self.links[egress.0].pe;
                let to = if lan { accounts.find_by(egress, by, transit.destination) } else { None };
                accounts.count(from, to, &transit, Fate::Forwarded);
            }
            None => accounts.count(from, accounts.find(transit.destination), &transit, Fate::Dropped),
        }
        result
    }

    /// Counts a frame that did not leave, if it was counted as forwarded.
    pub(super) fn account_lost(&mut self, frame: &Frame) {
        let is_ip = |ethernet: &EthernetFrame<_>| ethernet.ethertype() == EthernetProtocol::Ipv4;
        let Some(ethernet) = EthernetFrame::new_checked(frame.bytes()).ok().filter(is_ip) else { return };
        let Ok(packet) = Ipv4Packet::new_checked(ethernet.payload()) else { return };
        let source = packet.src_addr();
        // What the router says itself was not. It also answers echo requests to shared addresses, as nobody else does
        // (PE-ARP rule 80).
        let own = self.is_own(source)
            || (self.is_shared(source)
                && FlowKey::of(&packet).is_ok_and(|key| key.kind == FlowKind::EchoReply));
        if let Some(accounts) = self.accounts.as_mut().filter(|_| !own) {
            accounts.count_late(ethernet.payload(), frame.offload.gso, Fate::Lost);
        }
    }
}

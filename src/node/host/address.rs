//! What a host is at one of its addresses: the sets that it owns of it, divided into a part for programs and one for its
//! own stack, and what goes with the ports of that one.

use core::net::Ipv4Addr;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::Ipv4Cidr;

use super::super::echo_map::EchoMap;
use super::super::ident_map::IdentMap;
use super::super::leak_map::{LeakMap, can_map};
use super::super::services::ServicePorts;
use super::super::stack::Stack;
use crate::neighbor::{Neighbors, OwnId, OwnSet};
use crate::ports::{PortBitmap, PortRange, PortSet, Portless};
use crate::wire::pe_arp::{Claim, Lifetime, Record};
use crate::wire::{FlowKey, FlowKind, Frame};

/// The stack part of a set is one port in this many, unless configured.
const STACK_SHARE: u32 = 8;
/// The smallest stack part.
const MIN_STACK_PORTS: u32 = 2;

/// A set of an address, as it is given to a host.
#[derive(Clone, Debug)]
pub struct SetConfig {
    /// The address and the on-link prefix.
    pub address: Ipv4Cidr,
    /// The router for everything else.
    pub gateway: Option<Ipv4Addr>,
    /// The part of the address.
    pub set: PortSet,
    /// What has no port and is the host's, too; of a whole address everything is.
    pub portless: Portless,
    /// How long the set may be used unless [`Host::renew`](super::Host::renew) is called; `None` for ever.
    pub lease: Option<Duration>,
}

impl SetConfig {
    /// What the neighbors on the link are told.
    pub(super) fn own_set(&self, now: Instant) -> OwnSet {
        OwnSet {
            ip: self.address.address(),
            records: records_of(&self.set, &self.portless),
            first_port: self.set.first(),
            shared: !self.set.is_full(),
            authoritative: true,
            until: self.lease.map(|lease| now + lease),
        }
    }
}

/// A set, and what is owned with it that has no port, as the neighbors are told.
fn records_of(set: &PortSet, portless: &Portless) -> Vec<Record> {
    let mut claims = match set {
        set if set.is_full() => vec![Claim::Full],
        PortSet::Psid(psid) => vec![Claim::Psid(*psid)],
        PortSet::Ranges(ranges) => ranges.iter().map(|range| Claim::Range(*range)).collect(),
    };
    if !set.is_full() {
        claims.extend(Claim::portless(portless));
    }
    claims.into_iter().map(|claim| Record::new(claim, Lifetime::Unknown)).collect()
}

/// A set, divided: programs have its lower ports, the host's own stack its highest ones.
#[derive(Debug)]
pub(super) struct DividedSet {
    pub(super) id: OwnId,
    pub(super) set: PortSet,
    portless: Portless,
    pub(super) program: PortBitmap,
    pub(super) stack: PortBitmap,
    /// No new flow begins on it.
    draining: bool,
}

impl DividedSet {
    /// `stack_ports`: how many are the stack's; `None` for one in eight. A single port is for programs.
    pub(super) fn new(id: OwnId, config: &SetConfig, stack_ports: Option<u32>) -> Self {
        let SetConfig { set, portless, .. } = config.clone();
        let ports: Vec<u16> = set.to_bitmap().ports().collect();
        let count = ports.len() as u32;
        let by_share = (count / STACK_SHARE).max(MIN_STACK_PORTS).min(count / 2);
        let wanted = stack_ports.unwrap_or(by_share).min(count);
        let (program, stack) = ports.split_at(ports.len() - wanted as usize);
        let bitmap = |ports: &[u16]| ports.iter().copied().collect();
        Self { id, set, portless, program: bitmap(program), stack: bitmap(stack), draining: false }
    }
}

/// An address of a host.
#[derive(Debug)]
pub struct HostAddress {
    cidr: Ipv4Cidr,
    gateway: Option<Ipv4Addr>,
    pub(super) shared: bool,
    sets: Vec<DividedSet>,
    /// Whether a set of it is in use.
    pub(super) in_use: bool,
    /// Of the sets that are in use; of all of them while none is.
    pub(super) program_part: PortBitmap,
    pub(super) stack_part: PortBitmap,
    /// What has no port, of the same sets.
    portless: Portless,
    pub(super) stack: Stack,
    pub(super) echo_map: EchoMap,
    pub(super) leak_map: LeakMap,
    /// Of what programs send from the address while it is shared.
    pub(super) idents: IdentMap,
}

impl HostAddress {
    /// An address with its first set; `stack` has the ports of the stack part.
    pub(super) fn new(
        cidr: Ipv4Cidr,
        gateway: Option<Ipv4Addr>,
        first: DividedSet,
        stack: Stack,
        idents: IdentMap,
    ) -> Self {
        let mut this = Self {
            cidr,
            gateway,
            shared: !first.set.is_full(),
            in_use: false,
            program_part: PortBitmap::new(),
            stack_part: PortBitmap::new(),
            portless: Portless::default(),
            echo_map: EchoMap::new(first.stack.ports()),
            leak_map: LeakMap::default(),
            idents,
            stack,
            sets: vec![first],
        };
        this.unite(|_| false);
        this
    }

    /// The address and its on-link prefix.
    pub fn cidr(&self) -> Ipv4Cidr {
        self.cidr
    }

    /// Whether a set of it is in use.
    pub fn is_in_use(&self) -> bool {
        self.in_use
    }

    /// Whether others own parts of it.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    pub(in crate::node) fn ip(&self) -> Ipv4Addr {
        self.cidr.address()
    }

    /// The router.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.gateway
    }

    /// The sets, whether or not they are in use.
    pub fn sets(&self) -> impl Iterator<Item = (OwnId, &PortSet)> + Clone {
        self.sets.iter().map(|divided| (divided.id, &divided.set))
    }

    /// What has no port and goes with a set.
    pub fn portless_of(&self, id: OwnId) -> Option<&Portless> {
        self.sets.iter().find(|divided| divided.id == id).map(|divided| &divided.portless)
    }

    /// What has no port, of the sets that are in use, or of all while none is.
    pub fn portless(&self) -> &Portless {
        &self.portless
    }

    /// Something else without ports goes with a set: all that is owned by it.
    pub(super) fn set_portless(&mut self, id: OwnId, portless: &Portless) -> Vec<Record> {
        let Some(divided) = self.sets.iter_mut().find(|divided| divided.id == id) else { return Vec::new() };
        divided.portless = portless.clone();
        records_of(&divided.set, portless)
    }

    /// How many records say what it owns.
    pub(super) fn record_count(&self) -> usize {
        self.sets.iter().map(|divided| records_of(&divided.set, &divided.portless).len()).sum()
    }

    /// The first set; there is one at least.
    pub(super) fn first_id(&self) -> OwnId {
        self.sets[0].id
    }

    pub(super) fn first_set(&self) -> &PortSet {
        &self.sets[0].set
    }

    pub(in crate::node) fn has_set(&self, id: OwnId) -> bool {
        self.sets.iter().any(|divided| divided.id == id)
    }

    /// All its ports: of the sets that are in use, or of all while none is.
    pub fn ports(&self) -> Vec<PortRange> {
        let parts = [&self.program_part, &self.stack_part];
        parts.into_iter().flat_map(PortBitmap::ports).collect::<PortBitmap>().ranges()
    }

    /// What programs may use.
    pub fn program_part(&self) -> &PortBitmap {
        &self.program_part
    }

    /// What programs may use for what they begin: the program part without that of sets that are to be given back.
    pub fn open_part(&self) -> PortBitmap {
        let open = self.sets.iter().filter(|divided| !divided.draining);
        let ports = open.flat_map(|divided| divided.program.ports());
        ports.filter(|port| self.program_part.contains(*port)).collect()
    }

    /// The ports that programs have of one set.
    pub fn program_part_of(&self, id: OwnId) -> Option<&PortBitmap> {
        self.sets.iter().find(|divided| divided.id == id).map(|divided| &divided.program)
    }

    /// Whether nothing uses a port of a set: neither programs, which use these, nor the own stack.
    pub(in crate::node) fn is_idle(&self, id: OwnId, in_use: &PortBitmap) -> bool {
        let Some(divided) = self.sets.iter().find(|divided| divided.id == id) else { return true };
        !divided.program.ports().any(|port| in_use.contains(port))
            && !divided.stack.ports().any(|port| self.stack.is_busy(port))
    }

    /// What the host's own sockets use.
    pub fn stack_part(&self) -> &PortBitmap {
        &self.stack_part
    }

    /// Ports of the stack part in use.
    pub fn stack_ports_used(&self) -> usize {
        self.stack.ports_used()
    }

    /// Where the own stack's services are.
    pub fn services(&self) -> ServicePorts {
        self.stack.services()
    }

    pub(super) fn owns(&self, port: u16) -> bool {
        self.program_part.contains(port) || self.stack_part.contains(port)
    }

    /// Whether the packet is for a port of the own stack. It has a part of a shared set; of a whole address it has the
    /// ports that it uses.
    pub(super) fn is_of_stack_part(&self, key: &FlowKey) -> bool {
        let of_stack = |port| self.stack_part.contains(port) && (self.shared || self.stack.uses(port));
        // No socket of it has another protocol, and no program's port is mapped to one. What has no header is answered by
        // whoever has the rest of it.
        can_map(key.protocol) && !key.headless && key.destination.is_some_and(of_stack)
    }

    /// Whether a program, and not the own stack, takes a packet for a port of the own sets. One whose port was chosen
    /// anew gets its own port back.
    pub(super) fn is_for_programs(&mut self, key: &FlowKey, frame: &mut Frame, now: Instant) -> bool {
        if !self.is_of_stack_part(key) {
            return true;
        }
        match key.kind {
            FlowKind::Transport => self.leak_map.map_in(key, frame, now),
            FlowKind::IcmpError => self.leak_map.map_error(key, frame.bytes_mut()),
            FlowKind::EchoRequest | FlowKind::EchoReply | FlowKind::Tunnel | FlowKind::Portless => false,
        }
    }

    /// A further set.
    pub(super) fn add(&mut self, divided: DividedSet, neighbors: &Neighbors) {
        self.stack.add_ports(divided.stack.ports());
        self.echo_map.add_identifiers(divided.stack.ports());
        self.sets.push(divided);
        self.refresh(neighbors);
    }

    /// Takes a set away, with all that goes on at its ports.
    pub(super) fn remove(&mut self, id: OwnId, neighbors: &Neighbors, now: Instant) {
        let Some(at) = self.sets.iter().position(|divided| divided.id == id) else { return };
        let divided = self.sets.remove(at);
        self.leak_map.end(&divided.stack, &mut self.stack);
        self.echo_map.end(&divided.stack);
        self.stack.remove_ports(&divided.stack, now);
        self.refresh(neighbors);
    }

    /// Begins nothing more at the ports of a set; what goes on there goes on. Or, if it is not `draining`, does so again.
    pub(super) fn set_draining(&mut self, id: OwnId, draining: bool, neighbors: &Neighbors) {
        if let Some(divided) = self.sets.iter_mut().find(|divided| divided.id == id) {
            divided.draining = draining;
            self.refresh(neighbors);
        }
    }

    /// What is in use has changed.
    pub(super) fn refresh(&mut self, neighbors: &Neighbors) {
        self.unite(|divided| neighbors.own_phase(divided.id).holds());
    }

    fn unite(&mut self, in_use: impl Fn(&DividedSet) -> bool) {
        self.in_use = self.sets.iter().any(&in_use);
        for divided in &self.sets {
            // PE-ARP rule 56: nothing begins on what may be another host's.
            let closed = divided.draining || !in_use(divided);
            self.stack.set_closed(&divided.stack, closed);
            self.echo_map.set_closed(&divided.stack, closed);
        }
        let counts = |divided: &&DividedSet| !self.in_use || in_use(divided);
        let used: Vec<_> = self.sets.iter().filter(counts).collect();
        self.program_part = used.iter().flat_map(|divided| divided.program.ports()).collect();
        self.stack_part = used.iter().flat_map(|divided| divided.stack.ports()).collect();
        let none = Portless::default();
        self.portless = used.iter().fold(none, |all, divided| all.union(&divided.portless));
        if self.shared {
            self.idents.set_identifiers(self.program_part.ports().chain(self.stack_part.ports()));
        }
    }
}

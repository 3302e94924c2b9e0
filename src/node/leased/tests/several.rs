//! Several leases of one host: further sets of an address, and several addresses (PE-ARP rules 103 and 124).

use super::*;
use crate::ports::PortRange;
use crate::wire::pe_arp::{Claim, Lifetime, Record};

/// Another shared address.
const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
pub(super) const TWO_ADDRESSES: &str =
    "lease = 600\n[[shared]]\naddresses = \"198.51.100.2-198.51.100.3\"\nscheme = [0, 4]\n";

pub(super) struct Pair {
    pub(super) host: Bench<LeasedHost>,
    pub(super) router: Bench<Stored<Router>>,
}

impl Pair {
    /// A host with its first lease, or leases.
    pub(super) fn new(config: LeasedConfig, pools: &str) -> Self {
        let mut this = Self { host: host_with(config), router: router_with(pools) };
        this.join(3);
        this
    }

    pub(super) fn join(&mut self, seconds: u64) {
        join(&mut self.host, &mut self.router, Duration::from_secs(seconds));
    }

    /// Time that both spend apart: nothing is sent in it that the other would need.
    pub(super) fn wait(&mut self, seconds: u64) {
        self.host.now += Duration::from_secs(seconds);
        self.router.now = self.host.now;
    }

    pub(super) fn events(&mut self) -> Vec<LeaseEvent> {
        core::iter::from_fn(|| self.host.node.poll_event()).collect()
    }

    /// The ports of an address that programs may choose from.
    pub(super) fn open(&self, ip: Ipv4Addr) -> Vec<u16> {
        self.host.node.host().unwrap().address_of(ip).unwrap().open_part().ports().collect()
    }

    /// So many of them are in use.
    pub(super) fn observe(&mut self, ip: Ipv4Addr, percent: usize) {
        let open = self.open(ip);
        let count = open.len() * percent / 100;
        self.observe_ports(&open[..count]);
    }

    pub(super) fn observe_ports(&mut self, ports: &[u16]) {
        let in_use: Vec<_> = ports.iter().map(|port| (Ipv4Addr::UNSPECIFIED, *port)).collect();
        self.observe_sockets(&in_use);
    }

    /// These are in use, and all that comes of it within 3 s.
    pub(super) fn observe_sockets(&mut self, in_use: &[(Ipv4Addr, u16)]) {
        self.begin_to_observe(in_use);
        self.join(3);
    }

    /// These are in use, and all that comes of it at once.
    pub(super) fn begin_to_observe(&mut self, in_use: &[(Ipv4Addr, u16)]) {
        let (mut to_router, _) = self.host.step(|node, now| node.observe(in_use, now));
        while !to_router.is_empty() {
            let answers: Vec<_> =
                to_router.into_iter().flat_map(|(_, frame)| self.router.give(LAN, frame).sent).collect();
            to_router = answers.into_iter().flat_map(|(_, frame)| self.host.give(LAN, frame).sent).collect();
        }
    }

    pub(super) fn leases(&self, state: LeaseState) -> Vec<(Ipv4Addr, Psid)> {
        let leases = self.router.node.0.leases();
        leases.filter(|lease| lease.state == state).map(|lease| (lease.ip, lease.set)).collect()
    }

    pub(super) fn bound(&self) -> Vec<(Ipv4Addr, Psid)> {
        self.leases(LeaseState::Bound)
    }

    /// Where a packet from outside goes.
    pub(super) fn arrives(&mut self, to: Endpoint) -> Verdict {
        self.host.give(LAN, ethernet(ROUTER_MAC, A, &udp((SERVER, 53), to, b"!"))).verdict
    }
}

pub(super) fn two_addresses() -> LeasedConfig {
    LeasedConfig { addresses: 2, ..config() }
}

#[test]
fn a_host_short_of_ports_gets_a_further_set_of_its_address() {
    let mut pair = Pair::new(config(), POOLS);
    assert!(matches!(pair.events()[..], [LeaseEvent::Bound(_)]));
    pair.observe(SHARED, 80);
    assert_eq!((pair.bound().len(), pair.events()), (1, Vec::new()), "four fifths are enough");
    assert_eq!(pair.host.node.port_use(SHARED), Some((2867, 3584)));

    pair.observe(SHARED, 81);
    let bound = pair.bound();
    assert_eq!((bound.len(), bound[0].0, bound[1].0), (2, SHARED, SHARED));
    let events = pair.events();
    assert!(
        matches!(&events[..], [LeaseEvent::Changed(lease)] if bound.contains(&(SHARED, lease.set))),
        "{events:?}"
    );
    // Both are in use, and the router delivers to both.
    assert_eq!(pair.open(SHARED).len(), 2 * 3584);
    let mine: Vec<u16> = pair.open(SHARED);
    for port in [mine[0], mine[3583], mine[3584], mine[7167]] {
        assert_eq!(pair.arrives((SHARED, port)), Verdict::Forward(TUN), "{port}");
    }
    let known = pair.router.node.neighbors(pair.router.now);
    assert_eq!(known.iter().filter(|(_, entry)| entry.ip == SHARED && entry.hardware == Some(A)).count(), 2);
    // Each program gets out from either.
    for port in [mine[0], mine[7167]] {
        let packet = udp((SHARED, port), (ROUTER, 53), b"?");
        let verdict = pair.host.give(TUN, Frame::from_packet(&packet)).verdict;
        assert!(!matches!(verdict, Verdict::Dropped(_)), "{verdict:?}");
    }
    // It is enough now.
    pair.observe(SHARED, 50);
    assert_eq!(pair.bound().len(), 2);
}

#[test]
fn growth_is_bounded() {
    let mut pair = Pair::new(config(), POOLS);
    for _ in 0..2 * MAX_LEASES {
        pair.observe(SHARED, 100);
    }
    assert_eq!(pair.bound().len(), MAX_LEASES);
    let host = pair.host.node.host().unwrap();
    assert_eq!(host.addresses().len(), 1);
    assert_eq!(pair.open(SHARED).len(), MAX_LEASES * 3584);
    // And is off where nobody wants it.
    let mut pair = Pair::new(LeasedConfig { grows: false, ..config() }, POOLS);
    pair.observe(SHARED, 100);
    assert_eq!(pair.bound().len(), 1);
    assert_eq!(pair.host.node.port_use(SHARED), Some((3584, 3584)));
}

#[test]
fn a_set_that_is_no_longer_needed_is_given_back_after_its_last_flow() {
    let mut pair = Pair::new(config(), POOLS);
    let first = pair.open(SHARED);
    pair.observe(SHARED, 100);
    let further: Vec<u16> = pair.open(SHARED).into_iter().filter(|port| !first.contains(port)).collect();
    assert_eq!(further.len(), 3584);
    let kept = further[7];
    pair.observe_ports(&[kept]);
    pair.events();
    pair.wait(280);
    pair.join(30);
    pair.wait(280);
    pair.join(30);
    assert!(pair.events().iter().all(|event| matches!(event, LeaseEvent::Changed(_))), "renewals");
    // Ten minutes later it is begun on no more, and what goes on there goes on.
    pair.observe_ports(&[kept]);
    assert_eq!(pair.open(SHARED), first);
    assert!(matches!(pair.events()[..], [LeaseEvent::Changed(_)]));
    assert_eq!(pair.arrives((SHARED, kept)), Verdict::Forward(TUN));
    assert_eq!(pair.bound().len(), 2);
    // More is needed again: it is there already.
    pair.observe_ports(&first);
    assert_eq!((pair.open(SHARED).len(), pair.bound().len()), (2 * 3584, 2));
    pair.observe_ports(&[kept]);
    pair.wait(280);
    pair.join(30);
    pair.wait(280);
    pair.join(30);
    pair.observe_ports(&[kept]);
    assert_eq!(pair.open(SHARED), first);
    pair.events();
    // The last flow ends.
    pair.observe_ports(&[first[0]]);
    assert_eq!((pair.bound().len(), pair.leases(LeaseState::Released).len()), (1, 1));
    assert!(matches!(pair.events()[..], [LeaseEvent::Changed(_)]));
    assert_eq!(pair.arrives((SHARED, kept)), Verdict::Dropped(DropReason::NotOurPort));
    assert_eq!(pair.arrives((SHARED, first[0])), Verdict::Forward(TUN));
    assert_eq!(pair.host.node.clients().count(), 1);
}

/// The other sets of the address are all taken: what another address has is of no use.
#[test]
fn a_further_set_of_another_address_is_not_taken() {
    let one_left = "lease = 600\n[[shared]]\naddresses = \"198.51.100.2-198.51.100.3\"\nscheme = [0, 1]\n";
    let mut pair = Pair::new(config(), one_left);
    let ip = pair.bound()[0].0;
    pair.observe(ip, 100);
    assert_eq!(pair.bound().len(), 1, "the lower half has the system ports, and is nobody's");
    let looking = |pair: &Pair| pair.host.node.clients().map(|client| client.state()).collect::<Vec<_>>();
    assert_eq!(looking(&pair), [ClientState::Bound, ClientState::Selecting]);
    // What is not needed any more is not looked for.
    pair.observe(ip, 50);
    assert_eq!(looking(&pair), [ClientState::Bound]);
}

#[test]
fn another_host_that_uses_the_further_set_takes_nothing_else() {
    let mut pair = Pair::new(config(), POOLS);
    let first = pair.open(SHARED);
    pair.observe(SHARED, 100);
    let further = pair.bound().into_iter().find(|(_, set)| set.first() != first[0]).unwrap().1;
    pair.events();
    // Long after it was probed: the host defends it first.
    let claim = || announce(B, SHARED, Record::new(Claim::Psid(further), Lifetime::Unknown));
    pair.host.give(LAN, claim());
    assert_eq!(pair.events(), Vec::new());
    assert_eq!(pair.open(SHARED).len(), 2 * 3584);
    // The server ends the lease: the first one goes on.
    let until = pair.host.now + Duration::from_secs(700);
    while pair.host.now < until {
        // Renewals of the further set are lost.
        pair.host.now += Duration::from_secs(20);
        let (sent, _) = pair.host.step(|node, now| node.handle_timeout(now));
        pair.router.now = pair.host.now;
        for (_, frame) in sent {
            let further = frame.bytes().windows(6).any(|bytes| bytes == [255, 0, 0, 0, 2, 0]);
            if message_of(&frame).is_none() && !further {
                for (_, answer) in pair.router.give(LAN, frame).sent {
                    pair.host.give(LAN, answer);
                }
            }
        }
    }
    assert_eq!(pair.open(SHARED), first);
    pair.observe_ports(&[]);
    assert_eq!(pair.host.node.clients().count(), 1, "it is not needed any more");
    assert!(!pair.events().iter().any(|event| matches!(event, LeaseEvent::Lost(_))));
}

#[test]
fn a_host_with_two_addresses() {
    let mut pair = Pair::new(two_addresses(), TWO_ADDRESSES);
    let bound = pair.bound();
    assert_eq!(bound.iter().map(|(ip, _)| *ip).collect::<Vec<_>>(), [SHARED, SECOND]);
    assert_eq!(bound[0].1, bound[1].1, "one choice of source ports fits both");
    let events = pair.events();
    assert!(matches!(events[..], [LeaseEvent::Bound(_), LeaseEvent::Bound(_)]), "{events:?}");
    let port = pair.open(SHARED)[5];
    for own in [SHARED, SECOND] {
        // A program chooses one by binding it.
        let packet = udp((own, port), (ROUTER, 53), b"?");
        pair.host.give(TUN, Frame::from_packet(&packet));
        assert_eq!(pair.arrives((own, port)), Verdict::Forward(TUN));
        // And two of them talk to each other.
        for other in [SHARED, SECOND] {
            let packet = udp((own, port), (other, port + 1), b"?");
            pair.host.give(TUN, Frame::from_packet(&packet)).is_forwarded(TUN);
        }
        // What is another sharer's goes to that one.
        let packet = udp((own, port), (own, port.wrapping_add(4096)), b"?");
        let verdict = pair.host.give(TUN, Frame::from_packet(&packet)).verdict;
        assert!(!matches!(verdict, Verdict::Forward(TUN)), "{verdict:?}");
    }
    let foreign = udp((WHOLE, port), (ROUTER, 53), b"?");
    let verdict = pair.host.give(TUN, Frame::from_packet(&foreign)).verdict;
    assert_eq!(verdict, DropReason::SourceAddress.into());
    // Each grows by itself.
    let in_use: Vec<_> = pair.open(SECOND).into_iter().map(|port| (SECOND, port)).collect();
    pair.host.step(|node, now| node.observe(&in_use, now));
    pair.observe_ports(&[]);
    let of = |ip| pair.bound().iter().filter(|(other, _)| *other == ip).count();
    assert_eq!((of(SHARED), of(SECOND)), (1, 1), "less was needed when the answer came");
}

/// RFC 2131 §4.4.2, for every lease.
#[test]
fn all_leases_are_kept_over_a_restart() {
    let mut pair = Pair::new(two_addresses(), TWO_ADDRESSES);
    pair.observe(SHARED, 100);
    pair.events();
    let (kept, bound) = (pair.host.node.kept(), pair.bound());
    assert_eq!((kept.len(), bound.len()), (4, 4), "both grew");
    let now = pair.host.now;
    let config = LeasedConfig { stored: kept.clone(), ..two_addresses() };
    pair.host = Bench { node: LeasedHost::new(config, now), now };
    assert_eq!(pair.host.node.kept(), kept, "nothing is forgotten before it is answered");
    pair.join(3);
    assert_eq!(pair.bound(), bound);
    let host = pair.host.node.host().unwrap();
    let ports = |ip| host.address_of(ip).unwrap().ports();
    let count = |ip| ports(ip).into_iter().flat_map(PortRange::ports).count();
    assert_eq!((count(SHARED), count(SECOND)), (2 * 4096, 2 * 4096));
    // Without growth, the further ones are left to end.
    let config = LeasedConfig { stored: kept, grows: false, ..two_addresses() };
    assert_eq!(LeasedHost::new(config, now).clients().count(), 2);
}

#[test]
fn all_leases_are_given_back_at_the_end() {
    let mut pair = Pair::new(two_addresses(), TWO_ADDRESSES);
    pair.observe(SHARED, 100);
    let (sent, _) = pair.host.step(|node, now| node.release(now));
    for (_, frame) in sent {
        pair.router.give(LAN, frame);
    }
    assert_eq!((pair.bound().len(), pair.leases(LeaseState::Released).len()), (0, 4));
    assert!(pair.host.node.host().is_none());
}

/// Programs that send make somebody look; nobody does for a host at rest.
#[test]
fn looks_are_wanted_while_programs_send() {
    let mut pair = Pair::new(config(), POOLS);
    pair.host.pass(Duration::from_secs(5));
    assert!(!pair.host.node.wants_look());
    for _ in 0..3 {
        pair.host.give(TUN, Frame::from_packet(&udp((SHARED, 5000), (ROUTER, 53), b"?")));
        pair.host.pass(Duration::from_millis(250));
        assert!(pair.host.node.wants_look() && !pair.host.node.wants_look());
        // Until somebody has looked, again and again.
        pair.host.pass(Duration::from_millis(20));
        assert!(pair.host.node.wants_look());
        pair.observe_ports(&[5000]);
    }
    pair.host.pass(Duration::from_secs(200));
    assert!(!pair.host.node.wants_look());
    // What is sent while somebody looks is looked at, too.
    pair.host.give(TUN, Frame::from_packet(&udp((SHARED, 5000), (ROUTER, 53), b"?")));
    pair.host.pass(Duration::from_millis(1));
    assert!(pair.host.node.wants_look());
    pair.host.give(TUN, Frame::from_packet(&udp((SHARED, 5001), (ROUTER, 53), b"?")));
    let (host, now) = (&mut pair.host.node, pair.host.now);
    host.observe(&[(SHARED, 5000)], now);
    pair.host.pass(Duration::from_millis(250));
    assert!(pair.host.node.wants_look());
    pair.observe_ports(&[5000, 5001]);
    pair.host.pass(Duration::from_secs(100));
    assert!(!pair.host.node.wants_look());
    // With a further set, now and then.
    pair.observe(SHARED, 100);
    pair.host.node.wants_look();
    pair.host.pass(Duration::from_secs(5));
    assert!(pair.host.node.wants_look());
}

//! What is counted for each lease.

use dhcproto::v4::{DhcpOption, MessageType};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::node::Lessor;
use crate::node::router::accounts::Accounts;
use crate::node::support::dhcp::{from_client, message, request};
use crate::ports::Psid;

/// Leased to C.
const LEASED_WHOLE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
/// To a port of B, which owns 8192 to 12287.
const TO_B: Endpoint = (SHARED, 9000);
const NOTHING: Tally = Tally { packets: 0, bytes: 0, flows: 0, drops: 0 };

/// Stores what was given.
fn commit(bench: &mut Bench<Router>) {
    assert_eq!(bench.node.take_commits().len(), 1);
    bench.step(|router, now| router.committed(true, now));
}

fn lease(bench: &mut Bench<Router>, hardware: EthernetAddress, set: &str) {
    bench.give(LAN, from_client(hardware, &request(ROUTER, hardware, set)));
    commit(bench);
}

fn release(bench: &mut Bench<Router>, hardware: EthernetAddress, set: &str) {
    let mut message = request(ROUTER, hardware, set);
    message.set_ciaddr(SHARED);
    message.opts_mut().insert(DhcpOption::MessageType(MessageType::Release));
    bench.give(LAN, from_client(hardware, &message));
    commit(bench);
}

/// A and B lease their sets and C a whole address; the router knows the server.
fn router() -> Bench<Router> {
    let mut bench = super::dhcp::router();
    lease(&mut bench, A, "0,4,1");
    lease(&mut bench, B, "0,4,2");
    let options = [DhcpOption::ServerIdentifier(ROUTER), DhcpOption::RequestedIpAddress(LEASED_WHOLE)];
    bench.give(LAN, from_client(C, &message(MessageType::Request, C, &options)));
    commit(&mut bench);
    bench.give(OUTSIDE, plain_arp(1, (SERVER_MAC, SERVER), (EthernetAddress([0; 6]), OUTSIDE_ROUTER)));
    bench
}

fn whole_host_is_heard(bench: &mut Bench<Router>) {
    bench.give(LAN, plain_arp(1, (C, LEASED_WHOLE), (EthernetAddress([0; 6]), ROUTER)));
}

fn traffic_of(bench: &Bench<Router>, ip: Ipv4Addr, set: &str) -> Traffic {
    let set: Psid = set.parse().unwrap();
    let lease = bench.node.leases().find(|lease| lease.ip == ip && lease.set == set).unwrap();
    bench.node.traffic(lease).unwrap()
}

fn of_a(bench: &Bench<Router>) -> Traffic {
    traffic_of(bench, SHARED, "0,4,1")
}

fn of_b(bench: &Bench<Router>) -> Traffic {
    traffic_of(bench, SHARED, "0,4,2")
}

fn of_c(bench: &Bench<Router>) -> Traffic {
    traffic_of(bench, LEASED_WHOLE, "0,0,0")
}

fn tally(packets: u64, bytes: usize, flows: u64) -> Tally {
    Tally { packets, bytes: bytes as u64, flows, drops: 0 }
}

fn from_a(packet: &[u8]) -> Frame {
    ethernet(A, ROUTER_MAC, packet)
}

/// A connection: who sent the SYN began it.
#[test]
fn tcp_both_ways() {
    let mut bench = router();
    let syn_ack = |from, to| {
        let both = |packet: &mut smoltcp::wire::TcpPacket<&mut [u8]>| {
            packet.set_syn(true);
            packet.set_ack(true);
        };
        segment(from, to, both, b"")
    };
    bench.give(LAN, from_a(&tcp(TO_A, FROM_SERVER))).is_forwarded(OUTSIDE);
    bench.give(OUTSIDE, from_outside(&syn_ack(FROM_SERVER, TO_A))).is_forwarded(LAN);
    let data = segment(TO_A, FROM_SERVER, |packet| packet.set_ack(true), &[1; 100]);
    bench.give(LAN, from_a(&data)).is_forwarded(OUTSIDE);
    let traffic = of_a(&bench);
    // The frames are padded; the packets are not.
    assert_eq!(traffic, Traffic { to_host: tally(1, 40, 0), from_host: tally(2, 180, 1) });

    bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, TO_A))).is_forwarded(LAN);
    assert_eq!(of_a(&bench).to_host, tally(2, 80, 1));
    assert_eq!((of_b(&bench), of_c(&bench)), (Traffic::default(), Traffic::default()));
}

/// Neither shows a beginning, and ICMP goes to the account of the port or identifier that it is delivered by.
#[test]
fn udp_and_icmp() {
    let mut bench = router();
    let question = udp((SHARED, 9000), (SERVER, 53), b"?");
    bench.give(LAN, ethernet(B, ROUTER_MAC, &question)).is_forwarded(OUTSIDE);
    assert_eq!(of_b(&bench).from_host, tally(1, 29, 0));
    let error = icmp_error(SERVER, SHARED, (3, 3), &question);
    bench.give(OUTSIDE, from_outside(&error)).is_forwarded(LAN);
    bench.give(OUTSIDE, from_outside(&echo_reply(SERVER, SHARED, 9001))).is_forwarded(LAN);
    assert_eq!(of_b(&bench).to_host, tally(2, error.len() + 36, 0));
    bench.give(LAN, ethernet(B, ROUTER_MAC, &echo_request(SHARED, SERVER, 9001))).is_forwarded(OUTSIDE);
    // About a packet to B's own port.
    let about = udp((SERVER, 53), (SHARED, 9000), b"!");
    let own_error = icmp_error(SHARED, SERVER, (3, 3), &about);
    bench.give(LAN, ethernet(B, ROUTER_MAC, &own_error)).is_forwarded(OUTSIDE);
    assert_eq!(of_b(&bench).from_host, tally(3, 29 + 36 + own_error.len(), 0));
    // With the router itself.
    bench.give(LAN, ethernet(B, ROUTER_MAC, &echo_request(SHARED, ROUTER, 9001)));
    bench.give(OUTSIDE, from_outside(&echo_request(SERVER, SHARED, 9001)));
    assert_eq!((of_b(&bench).to_host.packets, of_b(&bench).from_host.packets), (2, 3));
    assert_eq!(of_a(&bench), Traffic::default());
}

#[test]
fn a_super_frame_counts_as_on_the_wire() {
    let mut bench = router();
    let with = |mut frame: Frame, kind, size, header_len, offset| {
        frame.offload.checksum = Some(Checksum { start: 20, offset });
        frame.offload.gso = Some(Gso { kind, size, header_len });
        frame
    };
    let frame = with(from_outside(&udp(FROM_SERVER, TO_A, &[7; 9000])), GsoKind::Udp, 1400, 28, 6);
    let mut segments = crate::wire::Segments::of(&frame, crate::wire::Medium::Ethernet).unwrap();
    let (mut one, mut packets, mut bytes) = (Frame::buffer(), 0, 0);
    while segments.next_into(&mut one) {
        (packets, bytes) = (packets + 1, bytes + one.len() - ETHERNET_HEADER);
    }
    bench.give(OUTSIDE, frame).is_forwarded(LAN);
    assert_eq!((packets, of_a(&bench).to_host), (7, tally(packets, bytes, 0)));

    let data = segment(TO_A, FROM_SERVER, |packet| packet.set_ack(true), &[7; 2800]);
    let kind = GsoKind::Tcp4 { ecn: false };
    bench.give(LAN, with(from_a(&data), kind, 1400, 40, 16)).is_forwarded(OUTSIDE);
    assert_eq!(of_a(&bench).from_host, tally(2, 2880, 0));
}

#[test]
fn drops_of_a_known_owner() {
    let mut bench = router();
    let dying = |packet| change(packet, |packet| packet.set_hop_limit(1));
    bench.give(OUTSIDE, from_outside(&dying(tcp(FROM_SERVER, TO_A))));
    bench.give(OUTSIDE, from_outside(&udp(FROM_SERVER, TO_A, &[0; 1473])));
    assert_eq!(of_a(&bench), Traffic { to_host: Tally { drops: 2, ..NOTHING }, from_host: NOTHING });
    bench.give(LAN, from_a(&dying(tcp(TO_A, FROM_SERVER))));
    bench.give(LAN, from_a(&tcp(TO_A, ("192.168.9.9".parse().unwrap(), 1))));
    assert_eq!(of_a(&bench).from_host, Tally { drops: 2, ..NOTHING });
    // Nobody has that port, and no later fragment has one.
    bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, (SHARED, 20_000))));
    let fragment = change(udp(FROM_SERVER, TO_A, &[0; 64]), |packet| packet.set_frag_offset(64));
    bench.give(OUTSIDE, from_outside(&fragment));
    // One that A sent and B did not get.
    bench.give(LAN, from_a(&dying(tcp(TO_A, TO_B))));
    assert_eq!((of_a(&bench).to_host.drops, of_a(&bench).from_host.drops), (2, 3));
    assert_eq!(of_b(&bench), Traffic { to_host: Tally { drops: 1, ..NOTHING }, from_host: NOTHING });
}

/// The link did not take a frame that was counted.
#[test]
fn what_does_not_leave_is_a_drop() {
    let mut bench = router();
    let outcome = bench.give(LAN, from_a(&tcp(TO_A, TO_B)));
    bench.step(|router, _| router.send_failed(LAN, &outcome.frame));
    let lost = Tally { drops: 1, ..NOTHING };
    assert_eq!(of_a(&bench), Traffic { to_host: NOTHING, from_host: lost });
    assert_eq!(of_b(&bench), Traffic { to_host: lost, from_host: NOTHING });
    // What the router said itself was not counted, either: an error, and an answer for the shared address.
    let dying = change(tcp(TO_A, FROM_SERVER), |packet| packet.set_hop_limit(1));
    let error = bench.give(LAN, from_a(&dying)).only_frame(LAN).clone();
    let answer = bench.give(LAN, from_a(&echo_request(SHARED, SHARED, 5000))).only_frame(LAN).clone();
    for frame in [error, answer] {
        bench.step(|router, _| router.send_failed(LAN, &frame));
    }
    assert_eq!(of_a(&bench).to_host, NOTHING);
}

/// Both hosts are behind this router, even on one address.
#[test]
fn hairpin_counts_for_both() {
    let mut bench = router();
    whole_host_is_heard(&mut bench);
    bench.give(LAN, from_a(&tcp(TO_A, TO_B))).is_forwarded(LAN);
    bench.give(LAN, ethernet(C, ROUTER_MAC, &udp((LEASED_WHOLE, 7), TO_B, b"x"))).is_forwarded(LAN);
    assert_eq!(of_a(&bench), Traffic { to_host: NOTHING, from_host: tally(1, 40, 1) });
    assert_eq!(of_b(&bench), Traffic { to_host: tally(2, 69, 1), from_host: NOTHING });
    assert_eq!(of_c(&bench), Traffic { to_host: NOTHING, from_host: tally(1, 29, 0) });
}

/// All that a whole address sends and gets, ports or not.
#[test]
fn a_whole_address() {
    let mut bench = router();
    whole_host_is_heard(&mut bench);
    let to = (LEASED_WHOLE, 80);
    bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, to))).is_forwarded(LAN);
    bench.give(OUTSIDE, from_outside(&gre(SERVER, LEASED_WHOLE))).is_forwarded(LAN);
    bench.give(OUTSIDE, from_outside(&echo_request(SERVER, LEASED_WHOLE, 1))).is_forwarded(LAN);
    let fragment = change(udp(FROM_SERVER, to, &[0; 64]), |packet| packet.set_frag_offset(64));
    bench.give(OUTSIDE, from_outside(&fragment)).is_forwarded(LAN);
    bench.give(LAN, ethernet(C, ROUTER_MAC, &echo_reply(LEASED_WHOLE, SERVER, 1))).is_forwarded(OUTSIDE);
    let traffic = of_c(&bench);
    assert_eq!(traffic, Traffic { to_host: tally(4, 40 + 28 + 36 + 92, 1), from_host: tally(1, 36, 0) });
}

/// A packet that waits is counted when it leaves, or is given up.
#[test]
fn what_waits_is_counted_at_its_end() {
    let mut bench = router();
    let packet = tcp(FROM_SERVER, (LEASED_WHOLE, 80));
    let outcome = bench.give(OUTSIDE, from_outside(&packet));
    assert_eq!((outcome.verdict, of_c(&bench)), (Verdict::Pending, Traffic::default()));
    whole_host_is_heard(&mut bench);
    assert_eq!(of_c(&bench).to_host, tally(1, 40, 1));

    let unknown = udp(TO_A, (Ipv4Addr::new(203, 0, 113, 99), 1), b"?");
    assert_eq!(bench.give(LAN, from_a(&unknown)).verdict, Verdict::Pending);
    assert_eq!(of_a(&bench).from_host, NOTHING);
    bench.pass(Duration::from_secs(4));
    assert_eq!(of_a(&bench).from_host, Tally { drops: 1, ..NOTHING });
    // The next one is refused at once.
    bench.give(LAN, from_a(&unknown));
    assert_eq!(of_a(&bench).from_host.drops, 2);
}

/// A renewal goes on with the account; another client, or the same one later, begins with an empty one.
#[test]
fn an_account_is_of_one_lease_of_one_client() {
    let mut bench = router();
    let use_it = |bench: &mut Bench<Router>| {
        bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, (SHARED, 9000)))).is_forwarded(LAN);
    };
    use_it(&mut bench);
    bench.pass(Duration::from_secs(300));
    lease(&mut bench, B, "0,4,2");
    use_it(&mut bench);
    assert_eq!(of_b(&bench).to_host, tally(2, 80, 2), "renewed");

    // What is over is still told while the set rests.
    release(&mut bench, B, "0,4,2");
    bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, TO_B)));
    assert_eq!(of_b(&bench).to_host, Tally { drops: 1, ..tally(2, 80, 2) });
    bench.pass(Duration::from_secs(300));
    lease(&mut bench, C, "0,4,2");
    assert_eq!(of_b(&bench), Traffic::default(), "another client");
    use_it(&mut bench);
    assert_eq!(of_b(&bench).to_host, tally(1, 40, 1));

    release(&mut bench, C, "0,4,2");
    bench.pass(Duration::from_secs(1));
    lease(&mut bench, C, "0,4,2");
    assert_eq!(of_b(&bench), Traffic::default(), "the same one again");
}

/// One client with two sets of an address has one binding, and two accounts.
#[test]
fn two_leases_of_one_host() {
    let mut bench = router();
    lease(&mut bench, A, "0,4,3");
    for _ in 0..3 {
        bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, TO_A))).is_forwarded(LAN);
        bench.give(OUTSIDE, from_outside(&udp(FROM_SERVER, (SHARED, 13_000), b""))).is_forwarded(LAN);
        bench.give(LAN, from_a(&udp((SHARED, 13_000), FROM_SERVER, b""))).is_forwarded(OUTSIDE);
    }
    assert_eq!(of_a(&bench), Traffic { to_host: tally(3, 120, 3), from_host: NOTHING });
    let other = traffic_of(&bench, SHARED, "0,4,3");
    assert_eq!(other, Traffic { to_host: tally(3, 84, 0), from_host: tally(3, 84, 0) });
}

/// Who sent it, and why, is nobody's account.
#[test]
fn a_forged_source_is_not_counted() {
    let mut bench = router();
    bench.give(OUTSIDE, from_outside(&tcp(TO_A, TO_B))).is_silent_drop(DropReason::SpoofedAddress);
    bench.give(LAN, from_a(&tcp(TO_B, FROM_SERVER))).is_silent_drop(DropReason::SpoofedPort);
    assert_eq!((of_a(&bench), of_b(&bench)), (Traffic::default(), Traffic::default()));
}

/// Whatever comes: what was forwarded to the LAN is what was counted to its hosts, and every drop there is one.
#[test]
fn the_accounts_add_up() {
    let mut bench = router();
    whole_host_is_heard(&mut bench);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut expected = NOTHING;
    for _ in 0..3000 {
        let to = if rng.random_bool(0.3) { LEASED_WHOLE } else { SHARED };
        let to = (to, rng.random_range(4000..13_000));
        let size = rng.random_range(0..1600);
        let packet = match rng.random_range(0..5) {
            0 => tcp(FROM_SERVER, to),
            1 => echo_reply(SERVER, to.0, to.1),
            2 => icmp_error(SERVER, to.0, (3, 1), &udp(to, FROM_SERVER, b"?")),
            3 => segment(FROM_SERVER, to, |packet| packet.set_ack(true), &vec![0; size]),
            _ => udp(FROM_SERVER, to, &vec![0; size]),
        };
        let packet = change(packet, |packet| packet.set_hop_limit(rng.random_range(1..4)));
        let owned = to.0 == LEASED_WHOLE || (4096..12_288).contains(&to.1);
        match bench.give(OUTSIDE, from_outside(&packet)).verdict {
            Verdict::Forward(LAN) => {
                expected.packets += 1;
                expected.bytes += packet.len() as u64;
                // TCP, SYN alone.
                expected.flows += u64::from(packet[9] == 6 && packet[33] == 2);
            }
            _ => expected.drops += u64::from(owned),
        }
    }
    let all = [of_a(&bench), of_b(&bench), of_c(&bench)];
    let sum = |of: fn(&Tally) -> u64| all.iter().map(|traffic| of(&traffic.to_host)).sum();
    let counted = Tally {
        packets: sum(|to| to.packets),
        bytes: sum(|to| to.bytes),
        flows: sum(|to| to.flows),
        drops: sum(|to| to.drops),
    };
    assert_eq!(counted, expected);
    assert!(all.iter().all(|traffic| traffic.from_host == NOTHING && traffic.to_host.packets > 100));
}

/// A lease that is over makes way for one that overlaps with it, and without leases nothing is kept.
#[test]
fn accounts_of_an_address_do_not_overlap() {
    let mut accounts = Accounts::new(1);
    let (port, set) = (Psid::single(5000), "0,4,1".parse().unwrap());
    let [first, second] = [1, 2].map(Instant::from_secs);
    accounts.open(SHARED, port, first);
    assert_eq!(accounts.traffic(SHARED, port, first), Some(Traffic::default()));
    assert_eq!(accounts.traffic(SHARED, port, second), None);
    accounts.open(SHARED, "0,4,2".parse().unwrap(), first);
    accounts.open(SHARED, set, second);
    assert_eq!(accounts.traffic(SHARED, port, first), None);
    assert_eq!(accounts.traffic(SHARED, set, second), Some(Traffic::default()));
    accounts.open(SHARED, Psid::FULL, second);
    assert_eq!(accounts.traffic(SHARED, set, second), None);
    assert!(router_with_neighbors().node.accounts.is_none());
}

//! The swarm in memory: who gets a frame, and what comes of it.

use std::collections::BTreeSet;

use smoltcp::wire::{TcpPacket, TcpSeqNumber};

use super::*;
use crate::node::support::*;
use crate::ports::FIRST_USER_PORT;
use crate::wire::pe_arp::{DEFAULT_PRO, Message, PeAddress, Record};
use crate::wire::{pe_arp, pe_arp_frame};

const FIRST: EthernetAddress = EthernetAddress([2, 0, 0, 0x10, 0, 1]);
/// Another shared address of the swarm.
const NEXT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 4);
const CLIENT: Endpoint = (SERVER, 40_000);

fn config(hosts: usize, scheme: &str) -> SwarmConfig {
    SwarmConfig {
        lan: "lan".to_owned(),
        hardware: FIRST,
        addresses: vec!["198.51.100.2/24".parse().unwrap(), "198.51.100.4/24".parse().unwrap()],
        scheme: scheme.parse().unwrap(),
        skip: 0,
        hosts,
        gateway: Some(ROUTER),
        mtu: 1500,
        pro: DEFAULT_PRO,
        seed: 1,
    }
}

fn start(config: SwarmConfig) -> Bench<Swarm> {
    let now = Instant::from_secs(1);
    Bench { node: Swarm::new(config, now).unwrap(), now }
}

/// A swarm whose hosts hold their sets.
fn swarm(hosts: usize, scheme: &str) -> Bench<Swarm> {
    let mut bench = start(config(hosts, scheme));
    bench.pass(Duration::from_secs(5));
    assert!(bench.node.is_settled());
    bench
}

/// Fifteen hosts of 4096 ports on each address; they know their gateway.
fn swarm_with_gateway() -> Bench<Swarm> {
    let mut bench = swarm(20, "0,4");
    bench.give(LAN, announce(ROUTER_MAC, ROUTER, FULL));
    bench
}

fn hardware(number: usize) -> EthernetAddress {
    hardware_of(FIRST, number - 1).unwrap()
}

fn messages(sent: &[(LinkId, Frame)]) -> Vec<Message> {
    sent.iter().filter_map(|(_, frame)| message_of(frame)).collect()
}

fn broadcast(message: &Message) -> Frame {
    pe_arp_frame(EthernetAddress::BROADCAST, message, DEFAULT_PRO)
}

/// The router asks for the owner of a port.
fn resolve(ip: Ipv4Addr, port: u16) -> Frame {
    let target = shared(ip).with_port(6, Some(port));
    broadcast(&Message::resolve(
        ROUTER_MAC,
        PeAddress { router: true, ..PeAddress::new(ROUTER) },
        target,
        &[],
    ))
}

fn to_host(number: usize, packet: &[u8]) -> Frame {
    ethernet(ROUTER_MAC, hardware(number), packet)
}

#[test]
fn every_host_probes_then_announces_its_own_set() {
    let mut bench = start(config(4032, "0,12"));
    let start = bench.now;
    let mut sent: Vec<_> = core::iter::from_fn(|| bench.node.poll_transmit(bench.now)).collect();
    while !bench.node.is_settled() {
        // PE-ARP rule 56: a probe, then 200 ms.
        sent.extend(bench.pass(Duration::from_millis(10)).0);
    }
    assert!(bench.now - start < Duration::from_millis(800), "{}", bench.now - start);
    let (mut probes, mut announced) = (BTreeSet::new(), BTreeSet::new());
    for message in messages(&sent) {
        let [record] = message.records[..] else { panic!("{message:?}") };
        let claim = format!("{}", record.claim);
        match message.kind() {
            pe_arp::Kind::Probe => assert!(probes.insert((message.sender_hardware, claim))),
            pe_arp::Kind::Announce => assert!(announced.insert((message.sender_hardware, claim))),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((probes.len(), probes), (4032, announced));
    assert_eq!(bench.node.hosts().len(), 4032);
    let ports: BTreeSet<_> = bench.node.hosts().flat_map(|one| one.host.set().ranges()).collect();
    assert_eq!(ports.len(), 4032, "no two have the same");
    assert!(ports.first().unwrap().first() >= FIRST_USER_PORT);
}

/// Rules 1 and 7.
#[test]
fn the_owner_answers_and_nobody_else() {
    let mut bench = swarm(20, "0,4");
    for number in 1..=20 {
        let (ip, first) = if number <= 15 { (SHARED, number * 4096) } else { (NEXT, (number - 15) * 4096) };
        for port in [first, first + 4095] {
            let outcome = bench.give(LAN, resolve(ip, port as u16));
            outcome.is(Verdict::Delivered, &[("delivered", 1), ("arp_sent", 1)]);
            let answer = message_of(outcome.only_frame(LAN)).unwrap();
            assert_eq!((answer.sender_hardware, answer.sender.port), (hardware(number), Some(port as u16)));
            assert_eq!(addresses(outcome.only_frame(LAN)), (hardware(number), ROUTER_MAC));
        }
    }
    // What nobody of the swarm has, and another address.
    for (ip, port) in [(SHARED, 80), (SHARED, 4095), (NEXT, 6 * 4096), (WHOLE, 5000)] {
        let outcome = bench.give(LAN, resolve(ip, port));
        outcome.is(Verdict::Delivered, &[("delivered", 1)]);
        assert!(outcome.sent.is_empty(), "{ip}:{port}");
    }
    // Plain ARP is the router's to answer (rule 3).
    let request = plain_arp(1, (ROUTER_MAC, ROUTER), (EthernetAddress([0; 6]), SHARED));
    assert!(bench.give(LAN, request).sent.is_empty());
    let claim = plain_arp(1, (C, SHARED), (EthernetAddress([0; 6]), SHARED));
    bench.give(LAN, claim).is_silent_drop(DropReason::PlainForShared);
}

/// Rule 84.
#[test]
fn all_owners_of_an_address_answer_a_router_that_asks_for_them() {
    let mut bench = swarm(20, "0,4");
    let solicit = broadcast(&Message::solicit_all(ROUTER_MAC, PeAddress::new(ROUTER), SHARED));
    assert_eq!(bench.give(LAN, solicit.clone()).verdict, Verdict::Delivered);
    let (sent, _) = bench.pass(Duration::from_secs(2));
    let answers = messages(&sent);
    let from: BTreeSet<_> = answers.iter().map(|answer| answer.sender_hardware).collect();
    assert_eq!(from, (1..=15).map(hardware).collect());
    assert!(answers.iter().all(|answer| answer.kind() == pe_arp::Kind::Reply && answer.records.len() == 1));
    // A flood of them is not passed on.
    let limited = (0..100)
        .filter(|_| bench.give(LAN, solicit.clone()).verdict == Verdict::Dropped(DropReason::SwarmLimit))
        .count();
    assert_eq!(limited, 100 - WIDE_PER_SECOND as usize);
}

/// Rules 54, 55 and 57.
#[test]
fn those_who_are_claimed_against_defend_their_sets() {
    let claims: [(Record, Vec<usize>); 5] = [
        (psid("0,4,3"), vec![3]),
        (record(pe_arp::Claim::Range("8200-8300".parse().unwrap())), vec![2]),
        (record(pe_arp::Claim::Range("8191-12288".parse().unwrap())), vec![1, 2, 3]),
        (psid("0,3,3"), vec![6, 7]),
        (FULL, (1..=15).collect()),
    ];
    for (claim, disputed) in claims {
        let expected: BTreeSet<_> = disputed.into_iter().map(hardware).collect();
        let mut bench = swarm(20, "0,4");
        let probe = Message::probe(A, shared(SHARED).with_port(0, Some(8192)), &[claim]);
        let objections = messages(&bench.give(LAN, broadcast(&probe)).sent);
        assert!(objections.iter().all(|objection| objection.kind() == pe_arp::Kind::Conflict));
        assert_eq!(objections.iter().map(|one| one.sender_hardware).collect::<BTreeSet<_>>(), expected);
        let defences = messages(&bench.give(LAN, announce(A, SHARED, claim)).sent);
        assert!(defences.iter().all(|defence| defence.kind() == pe_arp::Kind::Announce));
        assert_eq!(defences.iter().map(|one| one.sender_hardware).collect::<BTreeSet<_>>(), expected);
    }
}

#[test]
fn a_set_in_use_is_given_up_and_the_others_go_on() {
    let mut bench = start(config(3, "0,4"));
    let probed: Vec<_> = core::iter::from_fn(|| bench.node.poll_transmit(bench.now)).collect();
    let probe = messages(&probed).into_iter().find(|one| one.sender_hardware == hardware(2)).unwrap();
    let disputed = shared(SHARED).with_port(0, probe.target.port);
    let objection = Message::conflict(A, disputed, hardware(2), &[psid("0,4,2")]);
    bench.give(LAN, pe_arp_frame(hardware(2), &objection, DEFAULT_PRO));
    bench.pass(Duration::from_millis(300));
    assert!(bench.node.is_settled());
    let phases: Vec<_> = bench.node.hosts().map(|one| one.host.phase().holds()).collect();
    assert_eq!(phases, [true, false, true]);
}

#[test]
fn frames_that_are_for_no_host_are_counted() {
    let mut bench = swarm(20, "0,4");
    let packet = udp(CLIENT, (SHARED, 4096), b"x");
    bench.give(LAN, ethernet(ROUTER_MAC, A, &packet)).is_silent_drop(DropReason::NotOurFrame);
    bench.give(LAN, ethernet(ROUTER_MAC, hardware(21), &packet)).is_silent_drop(DropReason::NotOurFrame);
    bench.give(LAN, ethernet(hardware(3), hardware(4), &packet)).is_silent_drop(DropReason::OwnEcho);
    bench.give(LAN, Frame::from_ethernet(&[2; 13])).is_silent_drop(DropReason::ShortFrame);
    let group = udp(CLIENT, ([224, 0, 0, 251].into(), 5353), b"x");
    let to_all = ethernet(ROUTER_MAC, EthernetAddress::BROADCAST, &group);
    bench.give(LAN, to_all).is_silent_drop(DropReason::NoPrograms);
    let mut bad = resolve(SHARED, 4096);
    bad.bytes_mut()[14 + 36] = 0xF0;
    bench.give(LAN, bad).is_silent_drop(DropReason::PeArpVersion);
    // By the host that it was sent to.
    bench.give(LAN, to_host(2, &packet)).is_silent_drop(DropReason::NotOurPort);
    let ping = echo_request(SERVER, SHARED, 9000);
    bench.give(LAN, to_host(1, &ping)).is_silent_drop(DropReason::EchoIdentifier);
}

/// Rule 61: where the router leaves it to them, hosts answer requests with their identifiers.
#[test]
fn a_host_without_programs_answers_pings() {
    let mut bench = swarm_with_gateway();
    let outcome = bench.give(LAN, to_host(1, &echo_request(SERVER, SHARED, 4096)));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("forwarded", 1)]);
    let frame = outcome.only_frame(LAN);
    assert_eq!((icmp_of(packet_of(frame)).kind, identifier_of(packet_of(frame))), ((0, 0), 4096));
}

#[test]
fn every_host_echoes_datagrams_on_its_lowest_port() {
    let mut bench = swarm_with_gateway();
    for one in 1..=20 {
        let (ip, port) = if one <= 15 { (SHARED, one * 4096) } else { (NEXT, (one - 15) * 4096) };
        let (ip, port) = (ip, port as u16);
        let outcome = bench.give(LAN, to_host(one, &udp(CLIENT, (ip, port), b"hello")));
        outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("forwarded", 1)]);
        let answer = outcome.only_frame(LAN);
        assert_eq!(addresses(answer), (hardware(one), ROUTER_MAC));
        let packet = packet_of(answer);
        assert_eq!(
            (&packet[12..20], &packet[28..]),
            (&[ip.octets(), SERVER.octets()].concat()[..], &b"hello"[..])
        );
        assert_eq!(packet[20..24], [port.to_be_bytes(), CLIENT.1.to_be_bytes()].concat());
    }
}

/// A client that says no more than it must.
struct Client<'a> {
    bench: &'a mut Bench<Swarm>,
    from: Endpoint,
    to: Endpoint,
    number: usize,
    sent: i32,
    acknowledged: Option<TcpSeqNumber>,
}

impl Client<'_> {
    /// Sends a segment; the data of the answers, and whether they end the stream.
    fn send(&mut self, set: impl FnOnce(&mut TcpPacket<&mut [u8]>), data: &[u8]) -> (Vec<u8>, bool) {
        let (sent, acknowledged) = (self.sent, self.acknowledged);
        let packet = segment(
            self.from,
            self.to,
            |packet| {
                packet.set_seq_number(TcpSeqNumber(sent));
                packet.set_ack(acknowledged.is_some());
                packet.set_ack_number(acknowledged.unwrap_or(TcpSeqNumber(0)));
                set(packet);
            },
            data,
        );
        let outcome = self.bench.give(LAN, to_host(self.number, &packet));
        self.sent += data.len() as i32 + i32::from(acknowledged.is_none());
        let (mut received, mut ended) = (Vec::new(), false);
        for (_, frame) in outcome.sent.iter().filter(|(_, frame)| frame.bytes()[12..14] == [8, 0]) {
            let packet = packet_of(frame);
            let segment = TcpPacket::new_checked(&packet[20..]).unwrap();
            assert!(!segment.rst(), "{segment}");
            received.extend_from_slice(segment.payload());
            ended |= segment.fin();
            self.acknowledged = Some(segment.seq_number() + segment.segment_len());
        }
        (received, ended)
    }
}

fn connect(bench: &mut Bench<Swarm>, number: usize, to: Endpoint) -> Client<'_> {
    connect_from(CLIENT, bench, number, to)
}

fn connect_from(from: Endpoint, bench: &mut Bench<Swarm>, number: usize, to: Endpoint) -> Client<'_> {
    let mut client = Client { bench, from, to, number, sent: 100, acknowledged: None };
    client.send(|packet| packet.set_syn(true), b"");
    client.send(|_| (), b"");
    client
}

#[test]
fn every_host_has_a_page_and_echoes_bytes() {
    let mut bench = swarm_with_gateway();
    for number in [1, 2, 15] {
        let lowest = number as u16 * 4096;
        let mut client = connect(&mut bench, number, (SHARED, lowest));
        assert_eq!(client.send(|_| (), b"GET / HTTP/1.1\r\nHost: x\r\n"), (Vec::new(), false));
        let (page, ended) = client.send(|_| (), b"\r\n");
        let page = String::from_utf8(page).unwrap();
        assert!(ended && page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        let expected = format!(
            "\r\n\r\ns{number} 198.51.100.2 {lowest}-{}\nyou are {SERVER}:40000\n",
            lowest as u32 + 4095
        );
        assert!(page.ends_with(&expected), "{page}");

        let mut client = connect(&mut bench, number, (SHARED, lowest + 1));
        assert_eq!(client.send(|_| (), b"as it is"), (b"as it is".to_vec(), false));
    }
}

#[test]
fn other_requests_are_answered_as_they_deserve() {
    let mut bench = swarm_with_gateway();
    let long = [b'x'; 1000];
    for (number, request, status) in [
        (1, &b"HEAD / HTTP/1.1\r\n\r\n"[..], "200 OK"),
        (2, b"POST / HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        (3, b"\r\n\r\n", "405 Method Not Allowed"),
        (4, &long, "431 Request Header Fields Too Large"),
    ] {
        let mut client = connect(&mut bench, number, (SHARED, number as u16 * 4096));
        let (mut answer, mut ended) = client.send(|_| (), request);
        for _ in 0..2 {
            if !ended {
                let more = client.send(|_| (), &long);
                answer.extend(more.0);
                ended = more.1;
            }
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(ended && answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "no body: {answer}");
    }
}

/// PE-ARP rules 6 and 90.
#[test]
fn hosts_of_a_swarm_reach_each_other() {
    let mut bench = swarm(20, "0,4");
    // Host 1 answers a datagram that says it comes from host 2: what it asks and sends stays inside, but for the
    // question.
    let outcome = bench.give(LAN, to_host(1, &udp((SHARED, 8200), (SHARED, 4096), b"x")));
    assert_eq!(outcome.verdict, Verdict::Delivered);
    let [question] = &messages(&outcome.sent)[..] else { panic!("{:?}", outcome.sent) };
    assert_eq!((question.kind(), question.target.port), (pe_arp::Kind::Resolve, Some(8200)));
    // Port 8200 is closed at host 2, which says so; about that nobody has to hear.
    assert!(outcome.counted["received"] >= 3 && outcome.counted["forwarded"] >= 1, "{:?}", outcome.counted);
    assert_eq!(outcome.counted.get("pending"), None);
}

#[test]
fn connections_end_and_take_no_more_memory() {
    let mut bench = swarm_with_gateway();
    for _ in 0..3 {
        for port in 0..20 {
            let syn = tcp((SERVER, 50_000 + port), (SHARED, 4096));
            bench.give(LAN, to_host(1, &syn));
        }
        // Nobody goes on with these.
        bench.pass(Duration::from_secs(60));
        bench.give(LAN, announce(ROUTER_MAC, ROUTER, FULL));
    }
    let mut client = connect(&mut bench, 1, (SHARED, 4096));
    assert!(client.send(|_| (), b"GET / HTTP/1.1\r\n\r\n").1);
}

/// A connection that the service has closed waits in TIME-WAIT, but not at the cost of new ones.
#[test]
fn many_clients_in_a_row_get_the_page() {
    let mut bench = swarm_with_gateway();
    for port in 50_000..50_020 {
        let mut client = connect_from((SERVER, port), &mut bench, 1, (SHARED, 4096));
        assert!(client.send(|_| (), b"GET / HTTP/1.1\r\n\r\n").1, "{port}");
        client.send(|packet| packet.set_fin(true), b"");
    }
}

#[test]
fn every_set_is_released_at_the_end() {
    let mut bench = swarm(20, "0,4");
    let (sent, _) = bench.step(|node, now| node.release(now));
    let released: BTreeSet<_> = messages(&sent)
        .iter()
        .filter(|message| message.kind() == pe_arp::Kind::Release)
        .map(|message| message.sender_hardware)
        .collect();
    assert_eq!(released, (1..=20).map(hardware).collect());
}

#[test]
fn impossible_swarms_are_refused() {
    let refused = |config| Swarm::new(config, Instant::ZERO).unwrap_err();
    assert_eq!(refused(config(0, "0,4")), SwarmError::Hosts(0));
    assert_eq!(refused(config(31, "0,4")), SwarmError::Room { room: 30, taken: 0 });
    assert_eq!(
        refused(SwarmConfig { skip: 20, ..config(11, "0,4") }),
        SwarmError::Room { room: 30, taken: 20 }
    );
    let highest = EthernetAddress([0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE]);
    let high = SwarmConfig { hardware: highest, ..config(3, "0,4") };
    assert_eq!(refused(high), SwarmError::Hardware(highest));
    let skipping = start(SwarmConfig { skip: 14, ..config(2, "0,4") });
    let hosts: Vec<_> =
        skipping.node.hosts().map(|one| (one.host.address().address(), one.host.set().first())).collect();
    assert_eq!(hosts, [(SHARED, 15 * 4096), (NEXT, 4096)]);
}

#[test]
fn a_frame_that_the_link_does_not_take_is_counted() {
    let mut bench = swarm_with_gateway();
    let outcome = bench.give(LAN, to_host(1, &udp(CLIENT, (SHARED, 4096), b"hello")));
    let frame = outcome.only_frame(LAN).clone();
    let (_, counted) = bench.step(|node, _| node.send_failed(LAN, &frame));
    assert_eq!(counted.into_iter().collect::<Vec<_>>(), [("forwarded", -1), ("link_error", 1)]);
}

//! The host, packet by packet: the verdict, what it sends, and every counter that changes.

mod echo;
mod fragments;
mod inbound;
mod leaks;
mod life;
mod outbound;
mod portless;

use smoltcp::time::Duration;
use smoltcp::wire::{EthernetAddress, Ipv4Packet};

use super::*;
use crate::node::support::*;
use crate::node::{StreamId, StreamState};
use crate::wire::pe_arp::{Claim, Kind};

/// A program of the host, and one port of its stack part.
const PROGRAM: Endpoint = (SHARED, 5000);
const STACK: Endpoint = (SHARED, 8000);
/// Another sharer's port.
const OTHER: Endpoint = (SHARED, 9000);
const WEB: Endpoint = (SERVER, 443);

fn from_program(packet: &[u8]) -> Frame {
    Frame::from_packet(packet)
}

fn from_lan(packet: &[u8]) -> Frame {
    ethernet(ROUTER_MAC, A, packet)
}

/// Rule 91: the stack part is the top eighth of the set, and at least two ports.
#[test]
fn the_set_is_divided() {
    let bench = host();
    let part = |bitmap: &PortBitmap| bitmap.ranges().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(part(bench.node.program_part()), ["4096-7679"]);
    assert_eq!(part(bench.node.stack_part()), ["7680-8191"]);
    let small = host_with(host_config(A, "0,12,256"));
    assert_eq!(part(small.node.stack_part()), ["4110-4111"]);
    let scattered = host_with(host_config(A, "6,8,0x34"));
    assert_eq!(scattered.node.stack_part().count(), 252 / 8);
    assert_eq!(part(scattered.node.stack_part()).last().unwrap(), "64720-64723");
}

/// Rule 86: what is not on the link goes to the gateway, unchanged behind the Ethernet header.
#[test]
fn a_program_sends_by_the_gateway() {
    let mut bench = host_with_gateway();
    let packet = tcp(PROGRAM, WEB);
    let outcome = bench.give(TUN, from_program(&packet));
    outcome.is_forwarded(LAN);
    assert_eq!(addresses(&outcome.frame), (A, ROUTER_MAC));
    assert_eq!(packet_of(&outcome.frame), packet);
}

/// Rules 39, 40 and 3: an unknown gateway is asked for by RESOLVE for port 0 and, in the same tick, by plain ARP with
/// sender 0.0.0.0.
#[test]
fn the_gateway_is_asked_for_both_ways() {
    let mut bench = host();
    let outcome = bench.give(TUN, from_program(&tcp(PROGRAM, WEB)));
    outcome.is(Verdict::Pending, &[("pending", 1), ("arp_sent", 2)]);
    let [(LAN, resolve), (LAN, plain)] = &outcome.sent[..] else { panic!("{:?}", outcome.sent) };
    let message = message_of(resolve).unwrap();
    assert_eq!((message.kind(), message.target.ip), (Kind::Resolve, ROUTER));
    assert_eq!((message.target.protocol, message.target.port), (0, Some(0)));
    assert_eq!(message.sender, shared(SHARED));
    assert_eq!(&plain.bytes()[28..32], [0; 4], "the sender's address");
    let answered = bench.give(LAN, reply(ROUTER_MAC, resolve, FULL));
    answered.is(Verdict::Delivered, &[("delivered", 1), ("pending", -1), ("forwarded", 1)]);
    assert_eq!(addresses(answered.only_frame(LAN)), (A, ROUTER_MAC));
}

/// Rules 87 and 88: a source port outside the program part never reaches the LAN; the program is told.
#[test]
fn a_leaking_program_is_told() {
    let mut bench = host_with_gateway();
    for port in [3000, OTHER.1, STACK.1, 4095] {
        let packet = tcp((SHARED, port), WEB);
        let outcome = bench.give(TUN, from_program(&packet));
        let counted = [("source_port", 1), ("originated", 1), ("forwarded", 1)];
        outcome.is(Verdict::Dropped(DropReason::SourcePort), &counted);
        let icmp = icmp_of(outcome.only_packet(TUN));
        assert_eq!((icmp.from, icmp.to, icmp.kind, icmp.data), (SHARED, SHARED, (3, 13), &packet[..]));
    }
    let outcome = bench.give(TUN, from_program(&tcp((WHOLE, 5000), WEB)));
    assert_eq!(outcome.verdict, Verdict::Dropped(DropReason::SourceAddress));
    assert_eq!(icmp_of(outcome.only_packet(TUN)).kind, (3, 13));
}

/// Rule 90: the own part of the address comes back, other sharers are on the LAN.
#[test]
fn the_own_address_is_ports_of_several_hosts() {
    let mut bench = host();
    bench.give(LAN, announce(B, SHARED, psid("0,4,2")));
    let own = tcp(PROGRAM, (SHARED, 4100));
    let outcome = bench.give(TUN, from_program(&own));
    outcome.is_forwarded(TUN);
    assert_eq!(outcome.frame.bytes(), own);
    let outcome = bench.give(TUN, from_program(&tcp(PROGRAM, OTHER)));
    outcome.is_forwarded(LAN);
    assert_eq!(addresses(&outcome.frame), (A, B));
}

/// Rule 89: what comes from the LAN for the program part goes to the TUN without padding; the rest is nobody's.
#[test]
fn the_lan_reaches_the_owner_only() {
    let mut bench = host();
    let packet = udp(WEB, PROGRAM, b"!");
    let outcome = bench.give(LAN, from_lan(&packet));
    outcome.is_forwarded(TUN);
    assert_eq!(outcome.frame.bytes(), packet);
    bench.give(LAN, from_lan(&udp(WEB, OTHER, b"!"))).is_silent_drop(DropReason::NotOurPort);
    bench.give(LAN, from_lan(&udp(WEB, (WHOLE, 5000), b"!"))).is_silent_drop(DropReason::NotOurAddress);
    let broadcast = ethernet(ROUTER_MAC, EthernetAddress::BROADCAST, &packet);
    bench.give(LAN, broadcast).is_silent_drop(DropReason::NotOurAddress);
    bench.give(LAN, ethernet(ROUTER_MAC, B, &packet)).is_silent_drop(DropReason::NotOurFrame);
    bench.give(LAN, from_lan(&gre(SERVER, SHARED))).is_silent_drop(DropReason::Portless);
    let mut damaged = packet.clone();
    damaged[10] ^= 1;
    bench.give(LAN, from_lan(&damaged)).is_silent_drop(DropReason::HeaderChecksum);
}

/// Rule 93: identifiers are mapped into the stack part, and back in replies and in errors.
#[test]
fn ping_is_mapped_there_and_back() {
    let mut bench = host_with_gateway();
    let outcome = bench.give(TUN, from_program(&echo_request(SHARED, SERVER, 12)));
    outcome.is_forwarded(LAN);
    let sent = packet_of(&outcome.frame).to_vec();
    let mapped = identifier_of(&sent);
    assert!((7680..=8191).contains(&mapped));
    let outcome = bench.give(LAN, from_lan(&echo_reply(SERVER, SHARED, mapped)));
    outcome.is_forwarded(TUN);
    assert_eq!(identifier_of(outcome.frame.bytes()), 12);
    let outcome = bench.give(LAN, from_lan(&icmp_error(ROUTER, SHARED, (11, 0), &sent)));
    outcome.is_forwarded(TUN);
    assert_eq!(identifier_of(icmp_of(outcome.frame.bytes()).data), 12);
    let foreign = from_lan(&echo_reply(SERVER, SHARED, if mapped == 8000 { 8001 } else { 8000 }));
    bench.give(LAN, foreign).is_silent_drop(DropReason::EchoIdentifier);
    // Rule 61: requests with identifiers of the set are answered where the router lets them through.
    bench.give(LAN, from_lan(&echo_request(SERVER, SHARED, 5000))).is_forwarded(TUN);
    bench.give(TUN, from_program(&echo_reply(SHARED, SERVER, 5000))).is_forwarded(LAN);
    let foreign = DropReason::EchoIdentifier;
    bench.give(LAN, from_lan(&echo_request(SERVER, SHARED, 9000))).is_silent_drop(foreign);
    bench.give(TUN, from_program(&echo_reply(SHARED, SERVER, 9000))).is_silent_drop(foreign);
}

/// Rule 92: a ping of the own address is answered by the host, one of another shared address by the router.
#[test]
fn ping_of_a_shared_address() {
    let mut bench = host_with_gateway();
    let outcome = bench.give(TUN, from_program(&echo_request(SHARED, SHARED, 12)));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("forwarded", 1)]);
    let icmp = icmp_of(outcome.only_packet(TUN));
    assert_eq!((icmp.kind, icmp.data), ((0, 0), &b"abcdefgh"[..]));
    bench.give(LAN, announce(C, SCATTERED, psid("6,4,3")));
    let outcome = bench.give(TUN, from_program(&echo_request(SHARED, SCATTERED, 12)));
    outcome.is_forwarded(LAN);
    assert_eq!(addresses(&outcome.frame).1, ROUTER_MAC);
}

/// Rules 62 and 94: ICMP errors by the packet that they embed, in both directions.
#[test]
fn icmp_errors_belong_to_the_embedded_packet() {
    let mut bench = host_with_gateway();
    let sent = udp(PROGRAM, (SERVER, 53), b"?");
    let outcome = bench.give(LAN, from_lan(&icmp_error(ROUTER, SHARED, (3, 1), &sent)));
    outcome.is_forwarded(TUN);
    let of_other = udp(OTHER, (SERVER, 53), b"?");
    let frame = from_lan(&icmp_error(ROUTER, SHARED, (3, 1), &of_other));
    bench.give(LAN, frame).is_silent_drop(DropReason::NotOurPort);

    let received = udp((SERVER, 53), PROGRAM, b"!");
    bench.give(TUN, from_program(&icmp_error(SHARED, SERVER, (3, 3), &received))).is_forwarded(LAN);
    for foreign in [udp((SERVER, 53), OTHER, b"!"), udp((SERVER, 53), (WHOLE, 5000), b"!")] {
        let frame = from_program(&icmp_error(SHARED, SERVER, (3, 3), &foreign));
        bench.give(TUN, frame).is_silent_drop(DropReason::ForeignError);
    }
}

/// Rule 67: multicast and broadcast as on any LAN.
#[test]
fn groups_are_delivered_as_ever() {
    let mut bench = host();
    let outcome = bench.give(TUN, from_program(&udp(PROGRAM, ("224.0.0.251".parse().unwrap(), 5353), b"?")));
    outcome.is_forwarded(LAN);
    assert_eq!(addresses(&outcome.frame).1, EthernetAddress([1, 0, 0x5E, 0, 0, 0xFB]));
    let outcome = bench.give(TUN, from_program(&udp(PROGRAM, ("198.51.100.255".parse().unwrap(), 9), b"?")));
    outcome.is_forwarded(LAN);
    assert_eq!(addresses(&outcome.frame).1, EthernetAddress::BROADCAST);
    let group = udp(WEB, ("224.0.0.251".parse().unwrap(), 5353), b"!");
    let frame = ethernet(ROUTER_MAC, EthernetAddress([1, 0, 0x5E, 0, 0, 0xFB]), &group);
    bench.give(LAN, frame).is_forwarded(TUN);
}

/// Rule 56: nothing is sent, taken or answered before the set is known to be free.
#[test]
fn a_set_is_not_used_before_it_was_probed() {
    let now = Instant::from_secs(1);
    let mut bench = Bench { node: Host::new(host_config(A, "0,4,1"), now).unwrap(), now };
    let (sent, _) = bench.pass(Duration::from_millis(199));
    let kinds: Vec<_> = sent.iter().map(|(_, frame)| message_of(frame).unwrap().kind()).collect();
    assert_eq!(kinds, [Kind::Probe]);
    bench.give(TUN, from_program(&tcp(PROGRAM, WEB))).is_silent_drop(DropReason::SetNotHeld);
    bench.give(LAN, from_lan(&tcp(WEB, PROGRAM))).is_silent_drop(DropReason::SetNotHeld);
    let (sent, _) = bench.pass(Duration::from_secs(3));
    let kinds: Vec<_> = sent.iter().map(|(_, frame)| message_of(frame).unwrap().kind()).collect();
    assert_eq!(kinds, [Kind::Announce, Kind::Announce]);
    let (sent, _) = bench.step(|node, now| node.release(now));
    let [(LAN, release)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(message_of(release).unwrap().kind(), Kind::Release);
    bench.give(LAN, from_lan(&tcp(WEB, PROGRAM))).is_silent_drop(DropReason::SetNotHeld);
}

/// Rule 57: a set in use is not taken, and the host knows by whom.
#[test]
fn a_set_in_use_is_given_up() {
    let now = Instant::from_secs(1);
    let mut thief = Bench { node: Host::new(host_config(C, "4096-5000"), now).unwrap(), now };
    let (sent, _) = thief.step(|_, _| {});
    let [(LAN, probe)] = &sent[..] else { panic!("{sent:?}") };
    let mut owner = host();
    let objection = owner.give(LAN, probe.clone());
    objection.is(Verdict::Delivered, &[("delivered", 1), ("arp_sent", 1)]);
    thief.give(LAN, objection.only_frame(LAN).clone());
    assert_eq!(thief.node.phase(), ClaimPhase::Lost);
    assert_eq!(thief.node.take_lost(), Some((OwnId::FIRST, A)));
}

/// Rules 7 and 91: a closed port of the stack part is refused by its owner's stack, a packet at a time.
#[test]
fn the_stack_answers_for_its_part() {
    let mut bench = host_with_gateway();
    let outcome = bench.give(LAN, from_lan(&tcp(WEB, STACK)));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("forwarded", 1)]);
    let packet = packet_of(outcome.only_frame(LAN));
    assert_eq!(Ipv4Packet::new_unchecked(packet).dst_addr(), SERVER);
    assert_eq!(packet[33] & 0x04, 0x04, "RST");
    let outcome = bench.give(LAN, from_lan(&udp(WEB, (SHARED, 7680), b"echo me")));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("forwarded", 1)]);
    assert_eq!(&packet_of(outcome.only_frame(LAN))[28..], b"echo me");
}

/// Reads what a stream has.
fn read(bench: &mut Bench<Host>, stream: StreamId) -> Vec<u8> {
    let mut space = [0; 4096];
    let now = bench.now;
    let len = bench.node.stream_receive(stream, &mut space, now);
    space[..len].to_vec()
}

/// Rule 73: connections of the stack take a random port of the stack part, reach another sharer, and give it back.
#[test]
fn two_stacks_talk_although_their_address_is_the_same() {
    let (mut one, mut two) = (host(), host_with(host_config(B, "0,4,2")));
    let (_, echo) = two.node.stack_use();
    let now = one.now;
    let stream = one.node.connect(SHARED, echo.unwrap(), now).unwrap();
    let port = one.node.stream_port(stream).unwrap();
    assert!((7681..=8191).contains(&port));
    join(&mut one, &mut two, Duration::from_millis(20));
    assert_eq!(one.node.stream_state(stream), StreamState::Open { readable: true, writable: true });
    let now = one.now;
    assert_eq!(one.node.stream_send(stream, b"hello", now), 5);
    join(&mut one, &mut two, Duration::from_millis(20));
    assert_eq!(read(&mut one, stream), b"hello");
    let now = one.now;
    one.node.stream_close(stream, now);
    join(&mut one, &mut two, Duration::from_millis(20));
    assert!(matches!(
        one.node.stream_state(stream),
        StreamState::Open { readable: false, .. } | StreamState::Closed
    ));
    let now = one.now;
    one.node.stream_leave(stream, now);
    assert_eq!(one.node.stack_use().0, 2, "in TIME-WAIT the port is still taken");
    one.pass(Duration::from_secs(60));
    assert_eq!(one.node.stack_use().0, 1, "only the echo service is left");
}

/// Rule 90: the stack reaches itself, without the LAN.
#[test]
fn the_stack_reaches_its_own_echo_service() {
    let mut bench = host();
    let now = bench.now;
    let stream = bench.node.connect(SHARED, 7680, now).unwrap();
    bench.node.stream_send(stream, b"hello", now);
    let (sent, _) = bench.pass(Duration::from_millis(100));
    assert!(sent.is_empty(), "{sent:?}");
    assert_eq!(read(&mut bench, stream), b"hello");
}

/// Every port of the stack part in use: a clear error, and nothing else is harmed.
#[test]
fn an_exhausted_stack_part() {
    let mut config = host_config(A, "0,4,1");
    config.options.stack_ports = Some(3);
    let mut bench = host_with(config);
    let now = bench.now;
    let connect = |bench: &mut Bench<Host>| bench.node.connect(SERVER, 80, now);
    assert!(connect(&mut bench).is_ok() && connect(&mut bench).is_ok());
    assert_eq!(connect(&mut bench), Err(StackError::NoPort));
    assert_eq!(bench.node.connect("127.0.0.1".parse().unwrap(), 80, now), Err(StackError::Address));
    let mut config = host_config(A, "0,4,1");
    config.options.echo = EchoPort::Port(5000);
    assert_eq!(Host::new(config, now).unwrap_err(), StackError::EchoPort(5000));
}

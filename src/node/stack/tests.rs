//! The host's own sockets, through the host and over a wire.

use smoltcp::time::Duration;
use smoltcp::wire::{TcpPacket, TcpSeqNumber};

use super::*;
use crate::node::support::{
    A, B, Bench, FULL, LAN, ROUTER, ROUTER_MAC, SERVER, SHARED, announce, ethernet, host, host_config,
    host_with, host_with_gateway, icmp_of, join, packet_of, segment, tcp, udp,
};
use crate::node::{Host, Node, Verdict};
use crate::wire::Frame;

const OPEN: StreamState = StreamState::Open { readable: true, writable: true };

/// A sharer of the same address, with 8192 to 12287; its echo service is on 11776.
fn other() -> Bench<Host> {
    host_with(host_config(B, "0,4,2"))
}

fn connect(host: &mut Bench<Host>, to: (Ipv4Addr, u16)) -> StreamId {
    host.node.connect(to.0, to.1, host.now).unwrap()
}

fn read(host: &mut Bench<Host>, stream: StreamId) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let len = host.node.stream_receive(stream, &mut bytes, host.now);
    bytes.truncate(len);
    bytes
}

/// Rule 90.
#[test]
fn a_stream_to_the_own_echo_service_never_leaves() {
    let mut host = host();
    let stream = connect(&mut host, (SHARED, 7680));
    assert_eq!(host.node.stream_state(stream), OPEN);
    assert_eq!(host.node.stream_send(stream, b"hello", host.now), 5);
    assert_eq!(read(&mut host, stream), b"hello");
    let (sent, _) = host.step(|_, _| {});
    assert!(sent.is_empty(), "{sent:?}");
    // Handshake, data and what acknowledges it: originated here, delivered here.
    let counters = host.node.counters();
    assert_eq!(counters.originated, counters.delivered);
    assert!(counters.originated >= 5, "{counters:?}");
}

/// Rules 6 and 91.
#[test]
fn two_sharers_talk_from_their_stack_parts() {
    let (mut one, mut two) = (host(), other());
    let stream = connect(&mut one, (SHARED, 11776));
    assert_eq!(one.node.stream_state(stream), StreamState::Connecting);
    let elsewhere = join(&mut one, &mut two, Duration::from_millis(100));
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert_eq!(one.node.stream_state(stream), OPEN);
    assert!(one.node.stack_part().contains(one.node.stream_port(stream).unwrap()));

    let data: Vec<_> = (0..50_000u32).map(|n| n as u8).collect();
    assert_eq!(one.node.stream_send(stream, &data, one.now), data.len());
    let mut received = Vec::new();
    for _ in 0..100 {
        join(&mut one, &mut two, Duration::from_millis(20));
        received.extend(read(&mut one, stream));
    }
    assert_eq!(received.len(), data.len());
    assert!(received == data);
}

#[test]
fn a_full_stream_takes_what_it_has_room_for_and_goes_on() {
    let (mut one, mut two) = (host(), other());
    let stream = connect(&mut one, (SHARED, 11776));
    join(&mut one, &mut two, Duration::from_millis(50));
    let data = vec![7; 1 << 20];
    assert_eq!(one.node.stream_send(stream, &data, one.now), TCP_BUFFER);
    assert_eq!(one.node.stream_send(stream, &data, one.now), 0);
    // Nobody reads: the echo service stops when both directions are full.
    let mut taken = TCP_BUFFER;
    for _ in 0..40 {
        join(&mut one, &mut two, Duration::from_millis(50));
        taken += one.node.stream_send(stream, &data, one.now);
    }
    assert!(taken <= 4 * TCP_BUFFER, "{taken}");
    let mut received = 0;
    for _ in 0..200 {
        received += read(&mut one, stream).len();
        join(&mut one, &mut two, Duration::from_millis(20));
    }
    assert_eq!(received, taken, "the window opens again");
}

/// Rule 89.
#[test]
fn a_closed_port_of_the_stack_part_is_refused() {
    let (mut one, mut two) = (host(), other());
    let stream = connect(&mut one, (SHARED, 12000));
    join(&mut one, &mut two, Duration::from_millis(50));
    assert_eq!(one.node.stream_state(stream), StreamState::Closed);

    let mut host = host_with_gateway();
    let outcome = host.give(LAN, ethernet(ROUTER_MAC, A, &tcp((SERVER, 80), (SHARED, 8000))));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("forwarded", 1)]);
    let answer = packet_of(outcome.only_frame(LAN));
    assert_eq!(answer[33], 0x14, "RST and ACK");
    let packet = udp((SERVER, 80), (SHARED, 8000), b"");
    let outcome = host.give(LAN, ethernet(ROUTER_MAC, A, &packet));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("forwarded", 1)]);
    let answer = packet_of(outcome.only_frame(LAN));
    assert_eq!((answer[9], &answer[20..22]), (1, &[3, 3][..]));
    assert_eq!(icmp_of(answer).to, SERVER);
}

#[test]
fn an_orderly_end_gives_the_port_back() {
    let (mut one, mut two) = (host(), other());
    let (idle, _) = one.node.stack_use();
    let stream = connect(&mut one, (SHARED, 11776));
    join(&mut one, &mut two, Duration::from_millis(50));
    one.node.stream_send(stream, b"last words", one.now);
    one.node.stream_close(stream, one.now);
    join(&mut one, &mut two, Duration::from_millis(50));
    // The echo service closed, too; what it sent can still be read.
    assert_eq!(one.node.stream_state(stream), StreamState::Open { readable: true, writable: false });
    assert_eq!(read(&mut one, stream), b"last words");
    assert_eq!(one.node.stream_state(stream), StreamState::Open { readable: false, writable: false });
    one.node.stream_leave(stream, one.now);
    assert_eq!(one.node.stack_use().0, idle + 1, "in TIME-WAIT");
    join(&mut one, &mut two, Duration::from_secs(10));
    assert_eq!(one.node.stack_use().0, idle);
    assert_eq!(one.node.stream_port(stream), None);
}

/// A server that is played by hand: it has answered the SYN of the stream, and its segments are acceptable.
struct Server {
    host: Bench<Host>,
    stream: StreamId,
    port: u16,
    /// What the stack sends next, and what it expects.
    next: TcpSeqNumber,
    expected: TcpSeqNumber,
}

/// A TCP segment of the stack: its flags as a letter each, and how many bytes of data.
fn flags(frame: &Frame) -> (String, usize) {
    let packet = TcpPacket::new_checked(&packet_of(frame)[20..]).unwrap();
    let all = [(packet.syn(), 'S'), (packet.fin(), 'F'), (packet.rst(), 'R'), (packet.ack(), 'A')];
    let set = all.into_iter().filter_map(|(set, letter)| set.then_some(letter)).collect();
    (set, packet.payload().len())
}

fn served() -> Server {
    let mut host = host_with_gateway();
    let stream = connect(&mut host, (SERVER, 80));
    let (sent, _) = host.step(|_, _| {});
    let next = TcpPacket::new_checked(&packet_of(&sent[0].1)[20..]).unwrap().seq_number() + 1;
    let port = host.node.stream_port(stream).unwrap();
    let mut server = Server { host, stream, port, next, expected: TcpSeqNumber(7) };
    server.says(|packet| packet.set_syn(true), b"");
    server.expected += 1;
    assert_eq!(server.host.node.stream_state(stream), OPEN);
    server
}

impl Server {
    /// Sends a segment that acknowledges everything; what the stack answers.
    fn says(&mut self, set: impl FnOnce(&mut TcpPacket<&mut [u8]>), data: &[u8]) -> Vec<(String, usize)> {
        let numbers = |packet: &mut TcpPacket<&mut [u8]>| {
            packet.set_seq_number(self.expected);
            packet.set_ack_number(self.next);
            packet.set_ack(true);
            set(packet);
        };
        let packet = segment((SERVER, 80), (SHARED, self.port), numbers, data);
        let outcome = self.host.give(LAN, ethernet(ROUTER_MAC, A, &packet));
        outcome.sent.iter().map(|(_, frame)| flags(frame)).collect()
    }

    fn leave(&mut self) -> Vec<(String, usize)> {
        let stream = self.stream;
        let (sent, _) = self.host.step(|node, now| node.stream_leave(stream, now));
        sent.iter().map(|(_, frame)| flags(frame)).collect()
    }

    fn ports_used(&self) -> usize {
        self.host.node.stack_use().0
    }
}

#[test]
fn a_stream_that_was_left_sends_what_it_had() {
    let mut server = served();
    let (stream, now) = (server.stream, server.host.now);
    // More than the server's window of 1000 bytes.
    server.host.node.stream_send(stream, &[1; 1500], now);
    let mut sent = server.host.step(|_, _| {}).0.iter().map(|(_, frame)| flags(frame)).collect::<Vec<_>>();
    sent.extend(server.leave());
    let (mut arrived, mut closed) = (0, false);
    while !sent.is_empty() {
        let len = sent.iter().map(|(_, len)| len).sum::<usize>();
        closed = sent.last().unwrap().0 == "FA";
        arrived += len;
        server.next += len + usize::from(closed);
        sent = server.says(|_| {}, b"");
    }
    assert_eq!((arrived, closed), (1500, true));
    assert_eq!(server.says(|packet| packet.set_fin(true), b""), [("A".to_owned(), 0)]);
    // In TIME-WAIT for 10 s; then only the echo port is left.
    assert_eq!(server.ports_used(), 2);
    server.host.pass(Duration::from_secs(10));
    assert_eq!(server.ports_used(), 1);
}

/// RFC 1122 §4.2.2.13.
#[test]
fn what_arrives_for_a_stream_that_was_left_is_refused() {
    let mut server = served();
    assert_eq!(server.leave(), [("FA".to_owned(), 0)]);
    server.next += 1;
    let answer = server.says(|_| {}, b"nobody reads this");
    assert_eq!(answer.last().unwrap().0, "RA", "{answer:?}");
    assert_eq!(server.ports_used(), 1);
}

#[test]
fn a_server_that_never_closes_does_not_keep_the_port() {
    let mut server = served();
    server.leave();
    server.next += 1;
    server.says(|_| {}, b"");
    server.host.pass(Duration::from_secs(17));
    // It is alive, and that is all.
    server.says(|_| {}, b"");
    server.host.pass(TIMEOUT - Duration::from_secs(18));
    assert_eq!(server.ports_used(), 2);
    let due = server.host.node.poll_timeout(server.host.now);
    assert_eq!(due, Some(server.host.now + Duration::from_secs(1)));
    server.host.give(LAN, announce(ROUTER_MAC, ROUTER, FULL));
    let (sent, _) = server.host.pass(Duration::from_secs(1));
    let packets = sent.iter().filter(|(_, frame)| frame.bytes()[12..14] == [8, 0]);
    assert_eq!(packets.map(|(_, frame)| flags(frame).0).next_back().as_deref(), Some("RA"));
    assert_eq!(server.ports_used(), 1);
}

/// TIME-WAIT that begins just before the time to leave is over lasts longer than that: no deadline stays due.
#[test]
fn a_server_that_closes_at_the_last_moment() {
    let mut server = served();
    server.leave();
    server.next += 1;
    server.says(|_| {}, b"");
    for _ in 0..2 {
        // It is alive.
        server.host.pass(TIMEOUT / 2 - Duration::from_secs(1));
        server.says(|_| {}, b"");
    }
    server.says(|packet| packet.set_fin(true), b"");
    server.host.pass(Duration::from_secs(5));
    assert_eq!(server.ports_used(), 2, "in TIME-WAIT");
    server.host.pass(Duration::from_secs(5));
    assert_eq!(server.ports_used(), 1);
}

#[test]
fn a_port_in_time_wait_gives_way_to_a_new_stream() {
    let mut config = host_config(A, "0,4,1");
    config.options.stack_ports = Some(2);
    let mut one = host_with(config);
    let mut two = other();
    let first = connect(&mut one, (SHARED, 11776));
    let port = one.node.stream_port(first);
    join(&mut one, &mut two, Duration::from_millis(50));
    assert_eq!(one.node.connect(SHARED, 11776, one.now), Err(StackError::NoPort));
    one.node.stream_close(first, one.now);
    join(&mut one, &mut two, Duration::from_millis(50));
    one.node.stream_leave(first, one.now);
    let second = connect(&mut one, (SHARED, 11776));
    assert_eq!(one.node.stream_port(second), port);
    join(&mut one, &mut two, Duration::from_millis(50));
    assert_eq!(one.node.stream_state(second), OPEN);
}

#[test]
fn a_stream_left_while_it_opens_does_not_stay() {
    let mut host = host_with_gateway();
    let stream = connect(&mut host, (SERVER, 80));
    let port = host.node.stream_port(stream).unwrap();
    host.node.stream_leave(stream, host.now);
    assert_eq!(host.node.stack_use().0, 1, "the echo port");
    host.step(|_, _| {});
    // What answers now is refused.
    let outcome = host.give(LAN, ethernet(ROUTER_MAC, A, &tcp((SERVER, 80), (SHARED, port))));
    assert_eq!(packet_of(outcome.only_frame(LAN))[33] & 4, 4, "RST");
}

#[test]
fn a_peer_that_never_closes_does_not_keep_the_port() {
    let (mut one, mut two) = (host(), other());
    let stream = connect(&mut one, (SHARED, 11776));
    join(&mut one, &mut two, Duration::from_millis(50));
    one.node.stream_leave(stream, one.now);
    // The other host is gone.
    one.pass(Duration::from_secs(29));
    assert_eq!(one.node.stack_use().0, 2);
    one.pass(Duration::from_secs(60));
    assert_eq!(one.node.stack_use().0, 1);
}

#[test]
fn nobody_answers() {
    // The stack's own packets are lost without a word to programs.
    let mut host = host();
    let _ = connect(&mut host, (SERVER, 80));
    let (sent, counted) = host.pass(Duration::from_secs(4));
    assert!(counted["unreachable"] > 0 && sent.iter().all(|(link, _)| *link == LAN), "{counted:?}");

    let mut host = host_with_gateway();
    let stream = connect(&mut host, (SERVER, 80));
    let (sent, _) = host.pass(Duration::from_secs(28));
    assert!(sent.len() > 2, "SYN is repeated");
    assert_eq!(host.node.stream_state(stream), StreamState::Connecting);
    host.pass(Duration::from_secs(10));
    assert_eq!(host.node.stream_state(stream), StreamState::Closed);
    host.node.stream_leave(stream, host.now);
    assert_eq!(host.node.stack_use().0, 1);
}

/// Rule 73.
#[test]
fn every_port_once_and_then_none() {
    let mut config = host_config(A, "0,4,1");
    config.options.stack_ports = Some(4);
    let mut host = host_with(config);
    host.give(LAN, announce(ROUTER_MAC, ROUTER, FULL));
    let streams: Vec<_> = (0..3).map(|_| connect(&mut host, (SERVER, 80))).collect();
    let mut ports: Vec<_> = streams.iter().map(|stream| host.node.stream_port(*stream).unwrap()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [8189, 8190, 8191], "8188 is the echo service's");
    assert_eq!(host.node.connect(SERVER, 80, host.now), Err(StackError::NoPort));
    host.node.stream_leave(streams[1], host.now);
    let again = connect(&mut host, (SERVER, 80));
    assert_eq!(host.node.stack_use(), (4, Some(8188)));
    assert!(ports.contains(&host.node.stream_port(again).unwrap()));
}

#[test]
fn streams_are_bounded() {
    let mut host = host_with_gateway();
    for _ in 0..MAX_STREAMS {
        connect(&mut host, (SERVER, 80));
    }
    assert_eq!(host.node.connect(SERVER, 80, host.now), Err(StackError::TooManyStreams));
}

#[test]
fn addresses_that_no_host_has() {
    let mut host = host_with_gateway();
    for (to, port) in [(SERVER, 0), ([224, 0, 0, 1].into(), 80), ([255; 4].into(), 80), ([0; 4].into(), 80)] {
        assert_eq!(host.node.connect(to, port, host.now), Err(StackError::Address), "{to}:{port}");
    }
    assert_eq!(host.node.stack_use().0, 1, "no port was kept");
}

#[test]
fn the_echo_port_is_one_of_the_stack_part() {
    let with = |echo| {
        let mut config = host_config(A, "0,4,1");
        config.options.echo = echo;
        Host::new(config, Instant::ZERO).map(|host| host.stack_use())
    };
    assert_eq!(with(EchoPort::Port(8191)).unwrap(), (1, Some(8191)));
    assert_eq!(with(EchoPort::Off).unwrap(), (0, None));
    assert_eq!(with(EchoPort::Port(5000)).unwrap_err(), StackError::EchoPort(5000));
}

#[test]
fn a_vanished_client_does_not_keep_the_echo_service() {
    let (mut one, mut two) = (host(), other());
    for _ in 0..8 {
        connect(&mut one, (SHARED, 11776));
    }
    join(&mut one, &mut two, Duration::from_millis(50));
    // All are taken.
    let refused = connect(&mut one, (SHARED, 11776));
    join(&mut one, &mut two, Duration::from_millis(50));
    assert_eq!(one.node.stream_state(refused), StreamState::Closed);

    // The client's host starts anew: it knows nothing of its connections, and hears nothing for a time.
    two.pass(Duration::from_secs(60));
    let mut config = host_config(A, "0,4,1");
    config.options.seed = 99;
    let mut one = host_with(config);
    one.pass(two.now - one.now);
    let stream = connect(&mut one, (SHARED, 11776));
    join(&mut one, &mut two, Duration::from_secs(1));
    assert_eq!(one.node.stream_state(stream), OPEN);
    // One that is there and silent keeps its connection.
    join(&mut one, &mut two, Duration::from_secs(35));
    assert_eq!(one.node.stream_state(stream), OPEN);
}

#[test]
fn udp_echo_falls_silent_where_it_is_flooded() {
    let mut host = host_with_gateway();
    let mut answered = 0;
    for _ in 0..1500 {
        let packet = udp((SERVER, 9), (SHARED, 7680), b"x");
        answered += host.give(LAN, ethernet(ROUTER_MAC, A, &packet)).sent.len();
    }
    assert_eq!(answered, 1000);
}

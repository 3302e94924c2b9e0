//! A leased host against a router that leases.

mod losses;
mod portless;
mod random;
mod several;

use dhcproto::v4::{self, DhcpOption, MessageType};
use dhcproto::{Decodable, Decoder, Encodable};
use smoltcp::time::Duration;
use smoltcp::wire::Ipv4Cidr;

use super::*;
use crate::dhcp::{Config, LeaseState, Server, ServerLink};
use crate::node::support::dhcp::Stored;
use crate::node::support::*;
use crate::node::{Lessor, Router, RouterConfig};
use crate::ports::Psid;

const POOLS: &str = "lease = 600\n[[shared]]\naddresses = \"198.51.100.2\"\nscheme = [0, 4]\n\
                     [[reservation]]\nlink_address = \"02:00:00:00:00:0a\"\naddress = \"198.51.100.2\"\npsid = 1\n";

fn router() -> Bench<Stored<Router>> {
    router_with(POOLS)
}

fn router_with(pools: &str) -> Bench<Stored<Router>> {
    let now = Instant::from_secs(1);
    let config = RouterConfig { authority: true, shared: Vec::new(), ..router_config() };
    let links = vec![ServerLink { link: LAN.0, address: config.links[LAN.0].address, router: Some(ROUTER) }];
    let mut node = Router::new(config, now);
    node.serve_dhcp(Server::new(Config::parse(pools, links, 1).unwrap(), [], now), now);
    Bench { node: Stored(node), now }
}

fn config() -> LeasedConfig {
    LeasedConfig {
        options: host_config(A, "0,4,1").options,
        client: client::Config {
            hardware: A,
            iaid: 1,
            host_name: Some("h1".to_owned()),
            shares: true,
            wish: Wish::Any,
            seed: 1,
        },
        addresses: 1,
        grows: true,
        stored: Vec::new(),
    }
}

fn host_with(config: LeasedConfig) -> Bench<LeasedHost> {
    let now = Instant::from_secs(1);
    Bench { node: LeasedHost::new(config, now), now }
}

fn bound() -> (Bench<LeasedHost>, Bench<Stored<Router>>) {
    let (mut host, mut router) = (host_with(config()), router());
    join(&mut host, &mut router, Duration::from_secs(3));
    let Some(LeaseEvent::Bound(_)) = host.node.poll_event() else { panic!("{:?}", host.node.client()) };
    (host, router)
}

fn state(router: &Bench<Stored<Router>>) -> LeaseState {
    router.node.0.leases().next().unwrap().state
}

fn dhcp_kind(frame: &Frame) -> MessageType {
    let packet = Ipv4Packet::new_checked(packet_of(frame)).unwrap();
    let udp = UdpPacket::new_checked(packet.payload()).unwrap();
    assert_eq!((udp.src_port(), udp.dst_port()), (68, 67));
    assert!(udp.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into()));
    v4::Message::decode(&mut Decoder::new(udp.payload())).unwrap().opts().msg_type().unwrap()
}

/// PE-ARP rules 102 and 107.
#[test]
fn a_host_gets_its_set_and_uses_it() {
    let (mut host, mut router) = (host_with(config()), router());
    assert!(host.node.host().is_none());
    // Programs have to wait.
    let packet = udp((SHARED, 5000), (SERVER, 53), b"?");
    let mut nobody = host_with(config());
    nobody.step(|_, _| ());
    nobody.give(TUN, Frame::from_packet(&packet)).is_silent_drop(DropReason::SetNotHeld);
    join(&mut host, &mut router, Duration::from_millis(150));
    assert_eq!(host.node.client().state(), ClientState::Probing);
    assert_eq!(host.node.poll_event(), None, "it is being probed");
    host.give(TUN, Frame::from_packet(&packet)).is_silent_drop(DropReason::SetNotHeld);
    join(&mut host, &mut router, Duration::from_secs(3));
    let Some(LeaseEvent::Bound(lease)) = host.node.poll_event() else { panic!("{host:?}") };
    assert_eq!((lease.address, lease.set), (Ipv4Cidr::new(SHARED, 24), "0,4,1".parse::<Psid>().unwrap()));
    assert_eq!(lease.gateway, Some(ROUTER));
    assert_eq!(host.node.host().unwrap().set().to_string(), "4096-8191");

    // The gateway is asked for, and then the packet leaves.
    let outcome = host.give(TUN, Frame::from_packet(&packet));
    assert_eq!(outcome.verdict, Verdict::Pending);
    for (_, question) in outcome.sent {
        for (_, answer) in router.give(LAN, question).sent {
            host.give(LAN, answer);
        }
    }
    host.give(TUN, Frame::from_packet(&packet)).is_forwarded(LAN);
    // The messages from before there was a host are counted, too.
    let counters = host.node.counters();
    assert!(counters.originated == 2 && counters.delivered >= 2, "{counters:?}");
    let known = router.node.neighbors(router.now);
    let binding = known.iter().find(|(_, entry)| entry.ip == SHARED).unwrap();
    assert_eq!((binding.1.hardware, binding.1.source), (Some(A), "lease"));
}

#[test]
fn a_lease_is_renewed_while_it_is_used() {
    let (mut host, mut router) = bound();
    router.now += Duration::from_secs(290);
    host.now = router.now;
    join(&mut host, &mut router, Duration::from_secs(10));
    let Some(LeaseEvent::Changed(lease)) = host.node.poll_event() else { panic!("{host:?}") };
    assert!(lease.until > Instant::from_secs(890), "{lease:?}");
    // Beyond the end of the first lease.
    host.pass(Duration::from_secs(400));
    let packet = udp((SHARED, 5000), (SERVER, 53), b"?");
    let outcome = host.give(TUN, Frame::from_packet(&packet));
    assert!(!matches!(outcome.verdict, Verdict::Dropped(_)), "{outcome:?}");
}

#[test]
fn a_lease_that_ends_takes_the_host_with_it() {
    let (mut host, _) = bound();
    let (_, counted) = host.pass(Duration::from_secs(700));
    assert_eq!(host.node.poll_event(), Some(LeaseEvent::Lost(SHARED)));
    assert!(host.node.host().is_none() && counted.contains_key("forwarded"), "it asks again");
    let packet = udp((SHARED, 5000), (SERVER, 53), b"?");
    host.give(TUN, Frame::from_packet(&packet)).is_silent_drop(DropReason::SetNotHeld);
    host.give(LAN, ethernet(B, A, &udp((SERVER, 53), (SHARED, 5000), b"!")))
        .is_silent_drop(DropReason::SetNotHeld);
}

/// A packet that waits for its next hop when the lease ends.
#[test]
fn nothing_waits_for_a_host_that_is_gone() {
    let (mut host, _) = bound();
    let packet = udp((SHARED, 5000), (WHOLE, 53), b"?");
    assert_eq!(host.give(TUN, Frame::from_packet(&packet)).verdict, Verdict::Pending);
    host.step(|node, now| node.release(now));
    assert_eq!(host.node.counters().pending, 0);
    assert_eq!(host.node.counters().dropped(DropReason::SetNotHeld), 1);
}

/// PE-ARP rule 99, RFC 2131 §3.1 item 5.
#[test]
fn a_set_that_is_in_use_is_declined() {
    let (mut host, mut router) = (host_with(config()), router());
    join(&mut host, &mut router, Duration::from_millis(150));
    assert_eq!(host.node.client().state(), ClientState::Probing);
    let outcome = host.give(LAN, announce(B, SHARED, psid("0,4,1")));
    let kinds: Vec<_> = outcome
        .sent
        .iter()
        .filter(|(_, frame)| message_of(frame).is_none())
        .map(|(_, f)| dhcp_kind(f))
        .collect();
    assert_eq!(kinds, [MessageType::Decline]);
    assert_eq!(host.node.poll_event(), Some(LeaseEvent::Lost(SHARED)));
    assert!(host.node.host().is_none());
    for (_, frame) in outcome.sent {
        router.give(LAN, frame);
    }
    assert_eq!(state(&router), LeaseState::Quarantined);
}

#[test]
fn a_lease_that_is_given_back_is_free() {
    let (mut host, mut router) = bound();
    let (sent, _) = host.step(|node, now| node.release(now));
    assert!(host.node.host().is_none());
    for (_, frame) in sent {
        router.give(LAN, frame);
    }
    assert_eq!(state(&router), LeaseState::Released);
    assert!(!router.node.neighbors(router.now).iter().any(|(_, entry)| entry.ip == SHARED));
    // And it stays quiet.
    let (sent, counted) = host.pass(Duration::from_secs(1000));
    assert!(sent.is_empty() && counted.is_empty(), "{sent:?} {counted:?}");
}

#[test]
fn what_comes_to_port_68() {
    let (mut host, _) = bound();
    let none = core::net::Ipv4Addr::UNSPECIFIED;
    let mut message = v4::Message::new_with_id(1, none, SHARED, none, none, A.as_bytes());
    message.set_opcode(v4::Opcode::BootReply);
    message.opts_mut().insert(DhcpOption::MessageType(MessageType::Ack));
    let bytes = message.to_vec().unwrap();
    let of = |bytes: &[u8]| ethernet(ROUTER_MAC, A, &udp((ROUTER, 67), (SHARED, 68), bytes));
    host.give(LAN, of(&bytes)).is_silent_drop(DropReason::DhcpUnexpected);
    for length in 0..240 {
        host.give(LAN, of(&bytes[..length])).is_silent_drop(DropReason::DhcpInvalid);
    }
    let mut damaged = udp((ROUTER, 67), (SHARED, 68), &bytes);
    *damaged.last_mut().unwrap() ^= 1;
    host.give(LAN, ethernet(ROUTER_MAC, A, &damaged)).is_silent_drop(DropReason::DhcpInvalid);
    let fragment = change(udp((ROUTER, 67), (SHARED, 68), &bytes), |packet| packet.set_more_frags(true));
    host.give(LAN, ethernet(ROUTER_MAC, A, &fragment)).is_silent_drop(DropReason::DhcpInvalid);
    let own = ethernet(A, A, &udp((ROUTER, 67), (SHARED, 68), &bytes));
    host.give(LAN, own).is_silent_drop(DropReason::OwnEcho);
    // For somebody else on a flooding bridge: no business of the client.
    let other = ethernet(ROUTER_MAC, B, &udp((ROUTER, 67), (SHARED, 68), &bytes));
    host.give(LAN, other).is_silent_drop(DropReason::NotOurFrame);
    assert!(host.node.client().lease().is_some());
}

/// An echo port of the configuration that is in nobody's power.
#[test]
fn an_echo_port_outside_the_set_is_off() {
    for (port, echo) in [(80, None), (8000, Some(8000))] {
        let mut config = config();
        config.options.echo = EchoPort::Port(port);
        let mut host = host_with(config);
        join(&mut host, &mut router(), Duration::from_secs(1));
        assert_eq!(host.node.host().unwrap().stack_use().1, echo);
    }
}

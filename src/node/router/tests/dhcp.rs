//! DHCP: packets in and out, and leases that become bindings.

use dhcproto::Encodable;
use dhcproto::v4::{DhcpOption, MessageType};

use super::*;
use crate::dhcp::{Config, Server, ServerLink};
use crate::node::support::dhcp::{answer, from_client, message, request};
use crate::node::{Lessor, RouterConfig};

const POOLS: &str = "lease = 600\n[[shared]]\naddresses = \"198.51.100.2\"\nscheme = [0, 4]\n\
                     [[whole]]\naddresses = \"198.51.100.100\"\n\
                     [[whole]]\naddresses = \"10.0.0.9\"\nnetwork = \"10.0.0.0/24\"\nrouter = \"10.0.0.1\"\n\
                     [[reservation]]\nlink_address = \"02:00:00:00:00:0a\"\naddress = \"198.51.100.2\"\npsid = 1\n";
const EVERYBODY: Ipv4Addr = Ipv4Addr::BROADCAST;
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

pub(super) fn router() -> Bench<Router> {
    let now = Instant::from_secs(1);
    let config = RouterConfig { authority: true, ..router_config() };
    let links = vec![ServerLink { link: LAN.0, address: config.links[LAN.0].address, router: Some(ROUTER) }];
    let mut node = Router::new(config, now);
    node.serve_dhcp(Server::new(Config::parse(POOLS, links, 1).unwrap(), [], now), now);
    let mut bench = Bench { node, now };
    bench.step(|_, _| ());
    bench
}

fn lease(bench: &mut Bench<Router>) {
    bench.give(LAN, from_client(A, &request(ROUTER, A, "0,4,1"))).is(Verdict::Delivered, &[("delivered", 1)]);
    assert_eq!(bench.node.take_commits().len(), 1);
    bench.step(|router, now| router.committed(true, now));
}

/// Rule 107: the acknowledgement and the binding come when the lease is stored, and not before.
#[test]
fn a_lease_becomes_a_binding_when_it_is_stored() {
    let mut bench = router();
    let outcome = bench.give(LAN, from_client(A, &message(MessageType::Discover, A, &[])));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("forwarded", 1)]);
    let offer = outcome.only_frame(LAN);
    assert_eq!(addresses(offer), (ROUTER_MAC, A));
    let (to, offer) = answer(ROUTER, offer);
    assert!(to == SHARED && offer.opts().has_msg_type(MessageType::Offer));

    let outcome = bench.give(LAN, from_client(A, &request(ROUTER, A, "0,4,1")));
    outcome.is(Verdict::Delivered, &[("delivered", 1)]);
    bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, TO_A))).is_refused();
    let commits = bench.node.take_commits();
    assert_eq!(commits.len(), 1);
    let (sent, _) = bench.step(|router, now| router.committed(true, now));
    let [(LAN, ack)] = &sent[..] else { panic!("{sent:?}") };
    let (to, ack) = answer(ROUTER, ack);
    assert!(to == SHARED && ack.opts().has_msg_type(MessageType::Ack));
    bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, TO_A))).is_forwarded(LAN);
    // Who has no lease is not believed.
    bench.give(LAN, announce(B, SHARED, psid("0,4,2"))).is_silent_drop(DropReason::NotLeased);
}

impl Outcome {
    fn is_refused(&self) {
        assert_eq!(self.verdict, Verdict::Dropped(DropReason::NoOwner));
    }
}

#[test]
fn without_storage_there_is_no_lease() {
    let mut bench = router();
    bench.give(LAN, from_client(A, &request(ROUTER, A, "0,4,1")));
    assert_eq!(bench.node.take_commits().len(), 1);
    let (sent, _) = bench.step(|router, now| router.committed(false, now));
    assert!(sent.is_empty(), "{sent:?}");
    bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, TO_A))).is_refused();
}

#[test]
fn the_end_of_a_lease_ends_the_binding() {
    let mut bench = router();
    lease(&mut bench);
    bench.pass(Duration::from_secs(599));
    bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, TO_A))).is_forwarded(LAN);
    bench.pass(Duration::from_secs(2));
    bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, TO_A))).is_refused();
}

#[test]
fn a_release_ends_the_binding() {
    let mut bench = router();
    lease(&mut bench);
    let mut release = request(ROUTER, A, "0,4,1");
    release.set_ciaddr(SHARED);
    release.opts_mut().insert(DhcpOption::MessageType(MessageType::Release));
    // By unicast, from the address.
    let packet = udp((SHARED, 68), (ROUTER, 67), &release.to_vec().unwrap());
    bench.give(LAN, ethernet(A, ROUTER_MAC, &packet)).is(Verdict::Delivered, &[("delivered", 1)]);
    bench.give(OUTSIDE, from_outside(&tcp(FROM_SERVER, TO_A))).is_refused();
    assert_eq!(bench.node.take_commits().len(), 1);
}

#[test]
fn what_is_not_for_the_server() {
    let mut bench = router();
    let discover = message(MessageType::Discover, A, &[]);
    let data = discover.to_vec().unwrap();
    // Of another than the sender.
    bench.give(LAN, from_client(B, &discover)).is_silent_drop(DropReason::DhcpInvalid);
    let broadcast = |packet: &[u8]| ethernet(A, EthernetAddress::BROADCAST, packet);
    let packet = udp((NOBODY, 68), (EVERYBODY, 67), b"no message");
    bench.give(LAN, broadcast(&packet)).is_silent_drop(DropReason::DhcpInvalid);
    let mut packet = udp((NOBODY, 68), (EVERYBODY, 67), &data);
    packet[200] ^= 1;
    bench.give(LAN, broadcast(&packet)).is_silent_drop(DropReason::DhcpInvalid);
    // Another port, another link, and for somebody else.
    let packet = udp((NOBODY, 68), (EVERYBODY, 69), &data);
    bench.give(LAN, broadcast(&packet)).is_silent_drop(DropReason::NotOurFrame);
    let outside =
        ethernet(SERVER_MAC, EthernetAddress::BROADCAST, &udp((NOBODY, 68), (EVERYBODY, 67), &data));
    bench.give(OUTSIDE, outside).is_silent_drop(DropReason::NotOurFrame);
    // A server elsewhere is reached through the router.
    let packet = udp((WHOLE, 68), (SERVER, 67), &data);
    let outcome = bench.give(LAN, ethernet(A, ROUTER_MAC, &packet));
    assert_eq!(outcome.verdict, Verdict::Pending);
    let mut flood = 0;
    while bench.give(LAN, from_client(A, &discover)).verdict == Verdict::Delivered {
        flood += 1;
    }
    assert_eq!(flood, 40);
    bench.give(LAN, from_client(A, &discover)).is_silent_drop(DropReason::DhcpLimit);
}

/// RFC 2131 §4.1: to port 67 of the relay, by the routing table.
#[test]
fn a_relay_is_answered_by_routing() {
    let mut bench = router();
    let mut discover = message(MessageType::Discover, A, &[]);
    discover.set_giaddr(Ipv4Addr::new(10, 0, 0, 1));
    let packet = udp((Ipv4Addr::new(10, 0, 0, 1), 67), (ROUTER, 67), &discover.to_vec().unwrap());
    let outcome = bench.give(LAN, ethernet(B, ROUTER_MAC, &packet));
    assert_eq!(outcome.verdict, Verdict::Delivered);
    // 10.0.0.0/8 is behind a router outside, whose link-layer address is asked for.
    assert_eq!((outcome.counted["originated"], outcome.counted["pending"]), (1, 1));
}

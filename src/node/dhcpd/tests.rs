//! The DHCP server beside a router, frame by frame.

use dhcproto::Encodable;
use dhcproto::v4::{DhcpOption, MessageType, OptionCode};
use smoltcp::time::Duration;
use smoltcp::wire::{ArpPacket, ArpRepr};

use super::{LAN, *};
use crate::dhcp::{self, ServerLink, client};
use crate::node::support::dhcp::{Stored, answer, from_client, message, request};
use crate::node::support::*;
use crate::node::{LeasedConfig, LeasedHost};
use crate::wire::ETHERNET_HEADER;
use crate::wire::pe_arp::Claim;
use crate::wire::pe_arp::{Kind, Message, PeAddress};

/// The node, with [`AUTHORITY`] as its link-layer address.
const OWN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 5);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const POOLS: &str = "lease = 600\n[[shared]]\naddresses = \"198.51.100.2\"\nscheme = [0, 4]\n\
                     [[whole]]\naddresses = \"198.51.100.100\"\n\
                     [[whole]]\naddresses = \"10.0.0.9\"\nnetwork = \"10.0.0.0/24\"\nrouter = \"10.0.0.1\"\n\
                     [[reservation]]\nlink_address = \"02:00:00:00:00:0a\"\naddress = \"198.51.100.2\"\npsid = 1\n";

fn dhcpd_with(gateway: Option<Ipv4Addr>, leases: &[Lease]) -> Bench<Dhcpd> {
    let now = Instant::from_secs(1);
    let address = Ipv4Cidr::new(OWN, 24);
    let link = ServerLink { link: LAN.0, address, router: Some(ROUTER) };
    let server = Server::new(dhcp::Config::parse(POOLS, vec![link], 1).unwrap(), leases.to_vec(), now);
    let config = DhcpdConfig {
        lan: "lan".to_owned(),
        hardware: AUTHORITY,
        address,
        gateway,
        pro: crate::wire::pe_arp::DEFAULT_PRO,
        seed: 1,
    };
    Bench { node: Dhcpd::new(config, server, now), now }
}

fn dhcpd() -> Bench<Dhcpd> {
    dhcpd_with(Some(ROUTER), &[])
}

/// The same after A has leased 4096 to 8191.
fn dhcpd_with_a_lease() -> Bench<Dhcpd> {
    let mut bench = dhcpd();
    bench.give(LAN, from_client(A, &request(OWN, A, "0,4,1"))).is(Verdict::Delivered, &[("delivered", 1)]);
    assert_eq!(bench.node.take_commits().len(), 1);
    bench.step(|dhcpd, now| dhcpd.committed(true, now));
    bench
}

/// B asks who has a port.
fn question(port: u16) -> Frame {
    let asked = shared(SHARED).with_port(6, Some(port));
    let message = Message::resolve(B, PeAddress::new(WHOLE), asked, &[]);
    crate::wire::pe_arp_frame(EthernetAddress::BROADCAST, &message, crate::wire::pe_arp::DEFAULT_PRO)
}

fn owners(bench: &Bench<Dhcpd>) -> Vec<(Ipv4Addr, Option<EthernetAddress>, &'static str)> {
    let entries = bench.node.neighbors(bench.now);
    entries.into_iter().map(|(_, entry)| (entry.ip, entry.hardware, entry.source)).collect()
}

/// Rule 107: the acknowledgement and the binding come when the lease is stored, and not before.
#[test]
fn a_set_is_leased_when_it_is_stored() {
    let mut bench = dhcpd();
    let outcome = bench.give(LAN, from_client(A, &message(MessageType::Discover, A, &[])));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("forwarded", 1)]);
    let offer = outcome.only_frame(LAN);
    assert_eq!(addresses(offer), (AUTHORITY, A));
    let (to, offer) = answer(OWN, offer);
    assert!(to == SHARED && offer.opts().has_msg_type(MessageType::Offer));
    assert_eq!(offer.opts().get(OptionCode::ServerIdentifier), Some(&DhcpOption::ServerIdentifier(OWN)));
    // The router, which this node is not.
    assert_eq!(offer.opts().get(OptionCode::Router), Some(&DhcpOption::Router(vec![ROUTER])));

    let outcome = bench.give(LAN, from_client(A, &request(OWN, A, "0,4,1")));
    outcome.is(Verdict::Delivered, &[("delivered", 1)]);
    assert!(owners(&bench).is_empty());
    assert_eq!(bench.node.take_commits().len(), 1);
    let (sent, counted) = bench.step(|dhcpd, now| dhcpd.committed(true, now));
    let [(LAN, ack)] = &sent[..] else { panic!("{sent:?}") };
    let (to, ack) = answer(OWN, ack);
    assert!(to == SHARED && ack.opts().has_msg_type(MessageType::Ack));
    assert_eq!(counted, [("originated", 1), ("forwarded", 1)].into());
    assert_eq!(owners(&bench), [(SHARED, Some(A), "lease")]);

    // What a server that was killed finds in its file.
    let leases: Vec<_> = bench.node.leases().cloned().collect();
    assert_eq!(owners(&dhcpd_with(None, &leases)), [(SHARED, Some(A), "lease")]);
    bench.pass(Duration::from_secs(601));
    assert!(owners(&bench).is_empty(), "the lease has ended");
}

#[test]
fn without_storage_there_is_no_lease() {
    let mut bench = dhcpd();
    bench.give(LAN, from_client(A, &request(OWN, A, "0,4,1")));
    assert_eq!(bench.node.take_commits().len(), 1);
    let (sent, _) = bench.step(|dhcpd, now| dhcpd.committed(false, now));
    assert!(sent.is_empty() && owners(&bench).is_empty(), "{sent:?}");
}

/// Rule 121.
#[test]
fn it_knows_who_has_no_port() {
    let mut bench = dhcpd_with_a_lease();
    // The owner answers.
    let outcome = bench.give(LAN, question(5000));
    outcome.is(Verdict::Delivered, &[("delivered", 1)]);
    assert!(outcome.sent.is_empty());
    let outcome = bench.give(LAN, question(9000));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("arp_sent", 1)]);
    let answer = outcome.only_frame(LAN);
    assert_eq!(addresses(answer), (AUTHORITY, B));
    let nak = message_of(answer).unwrap();
    assert!(nak.kind() == Kind::Nak && nak.authority);
    assert_eq!(nak.records[0].claim, Claim::Psid("0,4,2".parse().unwrap()));
    bench.give(LAN, announce(B, SHARED, psid("0,4,2"))).is_silent_drop(DropReason::NotLeased);
}

/// Rule 1: a leased host believes the NAK of the server that leased, and tells its programs.
#[test]
fn a_host_that_leased_believes_it() {
    let client = client::Config {
        hardware: A,
        iaid: 1,
        host_name: None,
        shares: true,
        wish: client::Wish::Any,
        seed: 1,
    };
    let mut options = host_config(A, "0,4,1").options;
    options.authorities.clear();
    let now = Instant::from_secs(1);
    let mut host = Bench {
        node: LeasedHost::new(
            LeasedConfig { options, client, addresses: 1, grows: false, stored: Vec::new() },
            now,
        ),
        now,
    };
    let mut dhcpd = Bench { node: Stored(dhcpd().node), now };
    join(&mut host, &mut dhcpd, Duration::from_secs(3));
    assert!(host.node.host().is_some_and(|host| host.phase().holds()));
    let outcome = host.give(TUN, Frame::from_packet(&tcp((SHARED, 5000), (SHARED, 9000))));
    assert_eq!(outcome.verdict, Verdict::Pending);
    for (_, question) in outcome.sent {
        for (_, nak) in dhcpd.give(LAN, question).sent {
            let outcome = host.give(LAN, nak);
            outcome.is(
                Verdict::Delivered,
                &[("delivered", 1), ("pending", -1), ("no_owner", 1), ("originated", 1), ("forwarded", 1)],
            );
            assert_eq!(icmp_of(outcome.only_packet(TUN)).kind, (3, 1), "host unreachable");
        }
    }
    assert_eq!(host.node.counters().dropped(DropReason::NoOwner), 1);
}

/// Rules 2 and 3: plain ARP for its own address, and for no shared one.
#[test]
fn plain_arp_is_answered_for_the_own_address_only() {
    let mut bench = dhcpd_with_a_lease();
    let asks = |target| plain_arp(1, (C, WHOLE), (EthernetAddress([0; 6]), target));
    let outcome = bench.give(LAN, asks(OWN));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("arp_sent", 1)]);
    let bytes = &outcome.only_frame(LAN).bytes()[ETHERNET_HEADER..];
    let ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, .. } =
        ArpRepr::parse(&ArpPacket::new_checked(bytes).unwrap()).unwrap()
    else {
        panic!("{bytes:?}")
    };
    assert_eq!((source_hardware_addr, source_protocol_addr), (AUTHORITY, OWN));
    for target in [SHARED, ROUTER] {
        let outcome = bench.give(LAN, asks(target));
        outcome.is(Verdict::Delivered, &[("delivered", 1)]);
        assert!(outcome.sent.is_empty());
    }
}

#[test]
fn it_answers_ping() {
    let mut bench = dhcpd_with_a_lease();
    // To a sharer, by its identifier.
    let outcome = bench.give(LAN, ethernet(A, AUTHORITY, &echo_request(SHARED, OWN, 5000)));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("forwarded", 1)]);
    let reply = outcome.only_frame(LAN);
    assert_eq!(addresses(reply), (AUTHORITY, A));
    assert_eq!(packet_of(reply)[20..], echo_reply(OWN, SHARED, 5000)[20..]);
    // To somebody outside, by the gateway, which has to be found.
    let ping = || ethernet(ROUTER_MAC, AUTHORITY, &echo_request(SERVER, OWN, 7));
    let outcome = bench.give(LAN, ping());
    assert_eq!((outcome.verdict, outcome.counted["pending"]), (Verdict::Delivered, 1));
    let outcome = bench.give(LAN, plain_arp(2, (ROUTER_MAC, ROUTER), (AUTHORITY, OWN)));
    assert_eq!(addresses(outcome.only_frame(LAN)), (AUTHORITY, ROUTER_MAC));
    let mut alone = dhcpd_with(None, &[]);
    alone.give(LAN, ping()).is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("no_route", 1)]);
}

/// Nothing is forwarded, and whatever else comes is counted by its reason.
#[test]
fn everything_else_is_dropped() {
    let mut bench = dhcpd_with_a_lease();
    let to_us = |packet: &[u8]| ethernet(C, AUTHORITY, packet);
    let everybody = |packet: &[u8]| ethernet(C, EthernetAddress::BROADCAST, packet);
    let packet = tcp((WHOLE, 9), (SHARED, 5000));
    let damaged = change(echo_request(WHOLE, OWN, 7), |packet| packet.payload_mut()[9] ^= 1);
    let cases = [
        // For a sharer, for the outside, and for other hosts.
        (to_us(&packet), DropReason::NotOurAddress),
        (to_us(&tcp((WHOLE, 9), (SERVER, 80))), DropReason::NotOurAddress),
        (ethernet(C, B, &packet), DropReason::NotOurFrame),
        (everybody(&packet), DropReason::NotOurFrame),
        (everybody(&udp((WHOLE, 9), (Ipv4Addr::BROADCAST, 69), b"?")), DropReason::NotOurFrame),
        // No service of this node.
        (to_us(&tcp((WHOLE, 9), (OWN, 22))), DropReason::NoService),
        (to_us(&udp((WHOLE, 9), (OWN, 68), b"?")), DropReason::NoService),
        (to_us(&gre(WHOLE, OWN)), DropReason::NoService),
        (to_us(&damaged), DropReason::EchoDamaged),
        // Of nobody.
        (to_us(&echo_request(OWN, OWN, 7)), DropReason::MartianSource),
        (to_us(&echo_request(Ipv4Addr::new(198, 51, 100, 255), OWN, 7)), DropReason::MartianSource),
        (to_us(&echo_request(Ipv4Addr::UNSPECIFIED, OWN, 7)), DropReason::MartianSource),
        (ethernet(AUTHORITY, AUTHORITY, &packet), DropReason::OwnEcho),
        (to_us(&packet[..19]), DropReason::HeaderChecksum),
        // DHCP that is none, or another client's.
        (everybody(&udp((WHOLE, 68), (OWN, 67), b"no message")), DropReason::DhcpInvalid),
        (from_client(B, &message(MessageType::Discover, A, &[])), DropReason::DhcpInvalid),
    ];
    for (at, (frame, reason)) in cases.into_iter().enumerate() {
        let outcome = bench.give(LAN, frame);
        assert_eq!(outcome.verdict, Verdict::Dropped(reason), "case {at}");
        outcome.is_silent_drop(reason);
    }
    // What may answer a question of its own.
    let answers = [echo_reply(WHOLE, OWN, 7), icmp_error(ROUTER, OWN, (3, 1), &echo_reply(OWN, SERVER, 7))];
    for packet in answers {
        bench.give(LAN, to_us(&packet)).is(Verdict::Delivered, &[("delivered", 1)]);
    }
}

/// RFC 2131 §4.1: to port 67 of the relay; the router knows the way.
#[test]
fn a_relay_is_answered_by_the_gateway() {
    let mut discover = message(MessageType::Discover, A, &[]);
    discover.set_giaddr(RELAY);
    let packet = udp((RELAY, 67), (OWN, 67), &discover.to_vec().unwrap());
    let relayed = || ethernet(ROUTER_MAC, AUTHORITY, &packet);
    let mut bench = dhcpd();
    let outcome = bench.give(LAN, relayed());
    assert_eq!((outcome.verdict, outcome.counted["pending"]), (Verdict::Delivered, 1));
    let outcome = bench.give(LAN, plain_arp(2, (ROUTER_MAC, ROUTER), (AUTHORITY, OWN)));
    let offer = outcome.only_frame(LAN);
    assert_eq!(addresses(offer), (AUTHORITY, ROUTER_MAC));
    let packet = smoltcp::wire::Ipv4Packet::new_checked(packet_of(offer)).unwrap();
    assert_eq!(packet.dst_addr(), RELAY);
    let mut alone = dhcpd_with(None, &[]);
    let outcome = alone.give(LAN, relayed());
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("originated", 1), ("no_route", 1)]);
}

/// Cut anywhere, or with any byte changed: [`Bench`] sees that each frame ends once.
#[test]
fn no_frame_panics() {
    let mut bench = dhcpd_with_a_lease();
    let frames = [
        from_client(B, &message(MessageType::Discover, B, &[])),
        from_client(A, &request(OWN, A, "0,4,1")),
        question(9000),
        plain_arp(1, (C, WHOLE), (EthernetAddress([0; 6]), OWN)),
        ethernet(C, AUTHORITY, &echo_request(WHOLE, OWN, 7)),
    ];
    for frame in frames {
        for at in 0..frame.bytes().len() {
            bench.give(LAN, Frame::from_ethernet(&frame.bytes()[..at]));
            let mut damaged = frame.bytes().to_vec();
            damaged[at] ^= 0xFF;
            bench.give(LAN, Frame::from_ethernet(&damaged));
        }
    }
}

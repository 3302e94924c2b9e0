//! Rules 66 and 105: what has no port, from the reservation at the router to the one host that owns it.

use core::net::Ipv4Addr;

use super::*;
use crate::dhcp::Lease;
use crate::wire::pe_arp::Kind;

const AH: u8 = 51;

/// Of A with PSID 1, with this, and of B with PSID 2.
fn pools(more: &str) -> String {
    format!(
        "{POOLS}{more}[[reservation]]\nlink_address = \"02:00:00:00:00:0b\"\naddress = \"198.51.100.2\"\npsid = 2\n"
    )
}

/// A router that is told every owner of the address, and knows the server outside.
fn router(more: &str, leases: Vec<Lease>, now: Instant) -> Bench<Stored<Router>> {
    let config = RouterConfig { authority: true, ..router_config() };
    let links = vec![ServerLink { link: LAN.0, address: config.links[LAN.0].address, router: Some(ROUTER) }];
    let mut node = Router::new(config, now);
    node.serve_dhcp(Server::new(Config::parse(&pools(more), links, 1).unwrap(), leases, now), now);
    let mut bench = Bench { node: Stored(node), now };
    bench.step(|_, _| ());
    let nobody = EthernetAddress([0; 6]);
    bench.give(OUTSIDE, plain_arp(1, (SERVER_MAC, SERVER), (nobody, OUTSIDE_ROUTER)));
    bench
}

/// The leased hosts A and B, and the router.
fn lab(more: &str) -> ([Bench<LeasedHost>; 2], Bench<Stored<Router>>) {
    let mut router = router(more, Vec::new(), Instant::from_secs(1));
    let hosts = [A, B].map(|hardware| {
        let mut config = config();
        config.options.hardware = hardware;
        config.client.hardware = hardware;
        let mut host = Bench { node: LeasedHost::new(config, router.now), now: router.now };
        join(&mut host, &mut router, Duration::from_secs(3));
        assert_eq!(host.node.client().state(), ClientState::Bound);
        host.give(LAN, announce(ROUTER_MAC, ROUTER, FULL));
        host
    });
    (hosts, router)
}

fn esp(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    ip(from, to, AH, &[7; 24])
}

fn outside(packet: &[u8]) -> Frame {
    ethernet(SERVER_MAC, OUTSIDE_MAC, packet)
}

/// A packet from outside reaches A, and nobody else.
fn reaches_a([a, b]: &mut [Bench<LeasedHost>; 2], router: &mut Bench<Stored<Router>>, packet: &[u8]) {
    let outcome = router.give(OUTSIDE, outside(packet));
    outcome.is_forwarded(LAN);
    assert_eq!(addresses(&outcome.frame), (ROUTER_MAC, A));
    let delivered = a.give(LAN, Frame::from_ethernet(outcome.frame.bytes()));
    delivered.is_forwarded(TUN);
    assert_eq!(delivered.frame.bytes()[20..], packet[20..]);
    b.give(LAN, ethernet(ROUTER_MAC, B, packet)).is_silent_drop(DropReason::Portless);
}

/// The router drops it, and tells who sent it.
fn has_no_owner(router: &mut Bench<Stored<Router>>, packet: &[u8]) {
    let outcome = router.give(OUTSIDE, outside(packet));
    let counted = [("no_owner", 1), ("originated", 1), ("forwarded", 1)];
    outcome.is(Verdict::Dropped(DropReason::NoOwner), &counted);
    let error = icmp_of(packet_of(outcome.only_frame(OUTSIDE)));
    assert_eq!((error.to, error.kind), (SERVER, (3, 1)));
}

#[test]
fn what_has_no_port_reaches_its_owner() {
    for (more, of_gre, of_esp) in [
        ("portless = [47]\n", true, false),
        ("residual = true\n", true, true),
        ("portless = [51]\nresidual = true\n", true, true),
        ("", false, false),
    ] {
        let (mut hosts, mut router) = lab(more);
        for (packet, owned) in [(gre(SERVER, SHARED), of_gre), (esp(SERVER, SHARED), of_esp)] {
            if owned {
                reaches_a(&mut hosts, &mut router, &packet);
            } else {
                has_no_owner(&mut router, &packet);
            }
        }
        // Rule 62: an error about what A sent.
        let error = icmp_error(SERVER, SHARED, (3, 2), &gre(SHARED, SERVER));
        if of_gre {
            reaches_a(&mut hosts, &mut router, &error);
        }
        // Rule 87: and back.
        let [a, b] = &mut hosts;
        for (packet, owned) in [(gre(SHARED, SERVER), of_gre), (esp(SHARED, SERVER), of_esp)] {
            let outcome = a.give(TUN, Frame::from_packet(&packet));
            if owned {
                outcome.is_forwarded(LAN);
                let sent = router.give(LAN, Frame::from_ethernet(outcome.frame.bytes()));
                sent.is_forwarded(OUTSIDE);
                assert_eq!(packet_of(&sent.frame)[20..], packet[20..]);
            } else {
                assert_eq!(outcome.verdict, Verdict::Dropped(DropReason::Portless));
            }
            let outcome = b.give(TUN, Frame::from_packet(&packet));
            assert_eq!(outcome.verdict, Verdict::Dropped(DropReason::Portless));
        }
    }
}

/// Rule 107: a router that starts again knows from its leases who owns what has no port.
#[test]
fn a_restarted_router_knows_the_owner() {
    let (mut hosts, old) = lab("portless = [47]\n");
    let leases: Vec<_> = old.node.0.leases().cloned().collect();
    let mut again = router("portless = [47]\n", leases.clone(), old.now);
    reaches_a(&mut hosts, &mut again, &gre(SERVER, SHARED));
    has_no_owner(&mut again, &esp(SERVER, SHARED));
    // Another configuration holds at once.
    let mut other = router("", leases, old.now);
    has_no_owner(&mut other, &gre(SERVER, SHARED));
}

/// Rule 126: a renewal that tells of something else changes what is announced, and what is delivered.
#[test]
fn a_renewal_changes_what_is_owned() {
    let (mut hosts, old) = lab("portless = [47]\n");
    let leases: Vec<_> = old.node.0.leases().cloned().collect();
    // A lease of 600 s is renewed after half of it.
    let later = old.now + Duration::from_secs(280);
    let mut router = router("residual = true\n", leases, later);
    let [a, _] = &mut hosts;
    while a.node.poll_event().is_some() {}
    a.now = later;
    join(a, &mut router, Duration::from_secs(25));
    let Some(LeaseEvent::Changed(lease)) = a.node.poll_event() else { panic!("{a:?}") };
    assert_eq!(lease.portless.to_string(), "residual");
    assert_eq!(a.node.kept()[0].1.portless, lease.portless, "over a restart, too");
    assert_eq!(a.node.host().unwrap().addresses()[0].portless().to_string(), "residual");
    for packet in [gre(SERVER, SHARED), esp(SERVER, SHARED)] {
        reaches_a(&mut hosts, &mut router, &packet);
    }
}

/// Rule 125: sharers hear it from the owner; what another sharer sends to its own address goes there.
#[test]
fn a_sharer_reaches_the_owner() {
    let (mut hosts, mut router) = lab("portless = [47]\n");
    let [a, b] = &mut hosts;
    let error = icmp_error(SHARED, SHARED, (3, 2), &gre(SHARED, SHARED));
    assert_eq!(b.give(TUN, Frame::from_packet(&error)).verdict, Verdict::Dropped(DropReason::ForeignError));
    // An authority says who else could be asked.
    let asked = shared(SHARED).with_port(AH, None);
    let question = crate::wire::pe_arp::Message::resolve(C, shared(SHARED), asked, &[]);
    let frame =
        crate::wire::pe_arp_frame(EthernetAddress::BROADCAST, &question, crate::wire::pe_arp::DEFAULT_PRO);
    let answers = router.give(LAN, Frame::from_ethernet(frame.bytes()));
    assert_eq!(message_of(answers.only_frame(LAN)).unwrap().kind(), Kind::Nak);
    for host in [a, b] {
        assert!(host.give(LAN, Frame::from_ethernet(frame.bytes())).sent.is_empty(), "nobody owns AH");
    }
}

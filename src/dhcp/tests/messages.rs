//! Every message, by section of RFC 2131 and rule of PE-ARP §15.

use MessageType::{Ack, Decline, Discover, Inform, Nak, Offer, Release, Request};

use super::*;

/// Rule 95, RFC 7618 §9: option 159, byte for byte.
#[test]
fn option_159_is_as_in_rfc_7618() {
    let file = FILE.replace("[0, 4]", "[6, 8]")
        + "[[reservation]]\nlink_address = \"02:00:00:00:00:01\"\naddress = \"198.51.100.2\"\npsid = 0x34\n";
    let mut bench = Bench::new(&file);
    let offer = bench.answer(&ask(Discover, mac(1)), at(0));
    assert_eq!(offer.set(), Some(set("6,8,0x34")));
    let wire = [0x9f, 0x04, 0x06, 0x08, 0x34, 0x00];
    assert!(offer.bytes.windows(6).any(|window| window == wire), "{:02x?}", offer.bytes);
    let request = ask(Request, mac(1)).requested(SHARED).server().set(set("6,8,0x34"));
    assert!(request.bytes().windows(6).any(|window| window == wire));
    assert_eq!(bench.answer(&request, at(0)).kind(), Ack);
}

/// §4.3.1, table 3.
#[test]
fn an_offer_has_what_a_client_needs() {
    let mut bench = Bench::new(FILE);
    let offer = bench.answer(&ask(Discover, mac(1)).client(b"\xff\0\0\0\x01duid"), at(0));
    let message = &offer.message;
    assert_eq!(offer.kind(), Offer);
    assert_eq!((message.opcode(), message.xid(), message.hlen()), (v4::Opcode::BootReply, 7, 6));
    assert_eq!(message.chaddr(), mac(1).as_bytes());
    assert_eq!(message.yiaddr(), SHARED);
    assert_eq!(message.ciaddr(), Ipv4Addr::UNSPECIFIED);
    let options = message.opts();
    let expected = [
        DhcpOption::ServerIdentifier(SERVER),
        DhcpOption::AddressLeaseTime(3600),
        DhcpOption::Renewal(1800),
        DhcpOption::Rebinding(3150),
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::Router(vec![SERVER]),
        DhcpOption::DomainNameServer(vec![SERVER]),
        DhcpOption::DomainName("lab.example".to_owned()),
        // RFC 6842.
        DhcpOption::ClientIdentifier(b"\xff\0\0\0\x01duid".to_vec()),
    ];
    for option in expected {
        assert_eq!(options.get((&option).into()), Some(&option));
    }
    assert!(offer.bytes.len() >= 300, "RFC 1542 §2.1");
    assert_eq!(offer.destination, Destination::Client(mac(1), SHARED));
    assert!(bench.disk.is_empty() && bench.bindings.is_empty(), "an offer is no lease");
}

/// Rule 96.
#[test]
fn only_who_asks_for_159_shares() {
    let mut bench = Bench::new(FILE);
    let (ip, psid) = bench.lease(legacy(1), at(0));
    assert!(ip.octets()[3] >= 100 && psid == Psid::FULL);
    let (ip, psid) = bench.lease(sharer(2), at(0));
    assert!(ip == SHARED && psid.scheme() == "0,4".parse().unwrap() && psid.value() > 0);
    // What a legacy client asks for does not matter.
    let greedy = ask_legacy(Discover, mac(3)).requested(SHARED);
    assert_ne!(bench.answer(&greedy, at(0)).message.yiaddr(), SHARED);
    let request = ask_legacy(Request, mac(3)).requested(SHARED).server();
    assert_eq!(bench.answer(&request, at(0)).kind(), Nak);

    let shared_only = &FILE[..FILE.find("[[whole]]").unwrap()];
    let mut bench = Bench::new(shared_only);
    bench.nothing(&ask_legacy(Discover, mac(1)), at(0));
    // RFC 7618: a client that could share takes a whole address where nothing is shared.
    let whole_only = FILE.replace("[[shared]]\naddresses = \"198.51.100.2\"\nscheme = [0, 4]\n", "");
    let mut bench = Bench::new(&whole_only);
    assert_eq!(bench.lease(sharer(1), at(0)).1, Psid::FULL);
}

#[test]
fn a_full_pool_makes_no_offer() {
    let mut bench = Bench::new(FILE);
    let mut slots: Vec<_> = (1..=15).map(|last| bench.lease(sharer(last), at(0))).collect();
    slots.sort();
    slots.dedup();
    assert_eq!(slots.len(), 15);
    bench.nothing(&ask(Discover, mac(16)), at(0));
    for last in 20..23 {
        bench.lease(legacy(last), at(0));
    }
    bench.nothing(&ask_legacy(Discover, mac(30)), at(0));
    // Those who have one get it again.
    assert!(slots.contains(&bench.answer(&ask(Discover, mac(3)), at(1)).slot()));
}

/// §4.3.1: the client's lease, else its last one, else the address that it asks for.
#[test]
fn a_client_gets_what_it_had() {
    let mut bench = Bench::new(FILE);
    let first = bench.lease(sharer(1), at(0));
    assert_eq!(bench.answer(&ask(Discover, mac(1)), at(10)).slot(), first);
    bench.timeout(at(3600));
    assert_eq!(bench.state(first), Some(LeaseState::Released));
    assert_eq!(bench.lease(sharer(1), at(10_000)), first, "also long after it had expired");
    let wanted = ask(Discover, mac(2)).requested(SHARED).set(set("0,4,9"));
    let free = if first.1 == set("0,4,9") { first.1 } else { set("0,4,9") };
    assert_eq!(bench.answer(&wanted, at(10_000)).slot().1 == free, first.1 != free);
}

/// §4.3.2 SELECTING: nothing is acknowledged before it is stored.
#[test]
fn an_ack_follows_the_storage() {
    let mut bench = Bench::new(FILE);
    let slot = bench.lease(sharer(1), at(0));
    assert_eq!(bench.disk.len(), 1);
    assert_eq!((bench.disk[0].state, bench.disk[0].until), (LeaseState::Bound, at(3600)));
    assert_eq!(bench.bindings, [(SHARED, mac(1))]);
    assert_eq!(bench.leased(SHARED, mac(1), at(1)), [slot.1]);

    bench.disk_works = false;
    let offer = bench.answer(&ask(Discover, mac(2)), at(1));
    let request = ask(Request, mac(2)).requested(SHARED).server().set(offer.set().unwrap());
    bench.nothing(&request, at(1));
    assert_eq!(bench.state(offer.slot()), Some(LeaseState::Offered), "as before");
    assert_eq!(bench.leased(SHARED, mac(2), at(1)), []);
    // A renewal fails as well, and the lease stays what it was.
    bench.nothing(&ask(Request, mac(1)).ciaddr(SHARED).set(slot.1), at(2));
    assert_eq!(bench.leased(SHARED, mac(1), at(3599)), [slot.1]);
    assert_eq!(bench.leased(SHARED, mac(1), at(3600)), []);
    // No offers for a while; then the disk has room again.
    bench.nothing(&ask(Discover, mac(3)), at(11));
    bench.disk_works = true;
    assert_eq!(bench.answer(&request, at(11)).kind(), Ack);
    assert_eq!(bench.answer(&ask(Discover, mac(3)), at(11)).kind(), Offer);
}

/// §3.1.4: the client takes another server's offer, and ours is free again.
#[test]
fn an_offer_that_is_not_taken_is_withdrawn() {
    let mut bench = Bench::new(FILE);
    let slot = bench.answer(&ask(Discover, mac(1)), at(0)).slot();
    let other = DhcpOption::ServerIdentifier(Ipv4Addr::new(198, 51, 100, 7));
    bench.nothing(&ask(Request, mac(1)).requested(SHARED).set(slot.1).with(other), at(1));
    assert_eq!(bench.state(slot), Some(LeaseState::Released));
}

/// §4.3.2 SELECTING what somebody else has meanwhile.
#[test]
fn a_set_is_given_once() {
    let mut bench = Bench::new(FILE);
    let slot = bench.lease(sharer(1), at(0));
    let thief = ask(Request, mac(2)).requested(SHARED).set(slot.1).server();
    let nak = bench.answer(&thief, at(1));
    assert_eq!((nak.kind(), nak.destination), (Nak, Destination::Broadcast));
    assert_eq!(nak.message.yiaddr(), Ipv4Addr::UNSPECIFIED);
    assert!(nak.message.flags().broadcast());
    assert_eq!(nak.set(), None);
}

/// §4.3.2 RENEWING and REBINDING; rule 101.
#[test]
fn a_lease_is_renewed() {
    let mut bench = Bench::new(FILE);
    let (ip, psid) = bench.lease(sharer(1), at(0));
    let renew = ask(Request, mac(1)).ciaddr(ip).set(psid);
    let ack = bench.answer(&renew, at(1800));
    assert_eq!((ack.kind(), ack.slot()), (Ack, (ip, psid)));
    assert_eq!(ack.message.ciaddr(), ip, "table 3");
    assert_eq!(ack.destination, Destination::Client(mac(1), ip), "rule 100");
    assert_eq!(bench.disk[0].until, at(5400));
    // Without option 159: the only one that it has.
    assert_eq!(bench.answer(&ask(Request, mac(1)).ciaddr(ip), at(1900)).set(), Some(psid));
    // In the manner of INIT-REBOOT.
    let reboot = ask(Request, mac(1)).requested(ip).set(psid);
    assert_eq!(bench.answer(&reboot, at(2000)).slot(), (ip, psid));
    // After the end, while nobody else has it.
    bench.timeout(at(5600));
    assert_eq!(bench.answer(&renew, at(6000)).kind(), Ack);
    // Of another's, and of a set that no pool has.
    assert_eq!(bench.answer(&ask(Request, mac(2)).ciaddr(ip).set(psid), at(6000)).kind(), Nak);
    assert_eq!(bench.answer(&ask(Request, mac(3)).ciaddr(ip).set(set("0,6,9")), at(6000)).kind(), Nak);
}

/// §4.3.2 INIT-REBOOT.
#[test]
fn init_reboot_of_a_stranger_is_not_answered() {
    let mut bench = Bench::new(FILE);
    let (ip, psid) = bench.lease(sharer(1), at(0));
    let free = set(if psid == set("0,4,5") { "0,4,6" } else { "0,4,5" });
    bench.nothing(&ask(Request, mac(2)).requested(ip).set(free), at(1));
    assert_eq!(bench.answer(&ask(Request, mac(2)).requested(ip).set(psid), at(1)).kind(), Nak, "another's");
    assert_eq!(bench.answer(&ask(Request, mac(1)).requested(ip).set(free), at(1)).kind(), Nak, "not its own");
    let away = Ipv4Addr::new(10, 0, 0, 9);
    assert_eq!(
        bench.answer(&ask_legacy(Request, mac(9)).requested(away), at(1)).kind(),
        Nak,
        "other network"
    );
}

/// §4.3.3; rule 99.
#[test]
fn decline_quarantines_that_set_only() {
    let mut bench = Bench::new(FILE);
    let (ip, psid) = bench.lease(sharer(1), at(0));
    bench.nothing(&ask(Decline, mac(2)).requested(ip).set(psid).server(), at(1));
    assert_eq!(bench.state((ip, psid)), Some(LeaseState::Bound), "who has no lease declines nothing");
    bench.bindings.clear();
    bench.nothing(&ask(Decline, mac(1)).requested(ip).set(psid).server(), at(1));
    assert_eq!(bench.state((ip, psid)), Some(LeaseState::Quarantined));
    assert_eq!((&bench.bindings[..], bench.leased(ip, mac(1), at(1))), (&[(ip, mac(1))][..], vec![]));
    let next = bench.lease(sharer(1), at(2));
    assert_eq!(next.0, ip, "the address goes on");
    assert_ne!(next.1, psid);
    bench.restart(FILE, at(3));
    for last in 2..=14 {
        assert_ne!(bench.lease(sharer(last), at(3)).1, psid);
    }
    bench.nothing(&ask(Discover, mac(20)), at(3599));
    assert_eq!(bench.lease(sharer(20), at(3601)).1, psid);
}

/// §4.3.4; rules 74 and 107.
#[test]
fn a_released_set_rests() {
    let mut bench = Bench::new(FILE);
    let slots: Vec<_> = (1..=15).map(|last| bench.lease(sharer(last), at(0))).collect();
    bench.bindings.clear();
    bench.nothing(&ask(Release, mac(2)).ciaddr(SHARED).set(slots[0].1).server(), at(10));
    assert_eq!(bench.state(slots[0]), Some(LeaseState::Bound), "only its client releases it");
    bench.nothing(&ask(Release, mac(1)).ciaddr(SHARED).set(slots[0].1).server(), at(10));
    assert_eq!(bench.bindings, [(SHARED, mac(1))]);
    assert_eq!(bench.leased(SHARED, mac(1), at(10)), []);
    bench.restart(FILE, at(11));
    bench.nothing(&ask(Discover, mac(16)), at(249));
    assert_eq!(bench.lease(sharer(16), at(251)), slots[0]);
}

/// Its last client asks for it again, and then does not take it.
#[test]
fn an_offer_does_not_end_the_rest() {
    let mut bench = Bench::new(FILE);
    let slots: Vec<_> = (1..=15).map(|last| bench.lease(sharer(last), at(0))).collect();
    let release = ask(Release, mac(1)).ciaddr(SHARED).set(slots[0].1).server();
    for elsewhere in [false, true] {
        let start = if elsewhere { 1000 } else { 0 };
        bench.nothing(&release, at(start + 10));
        assert_eq!(bench.answer(&ask(Discover, mac(1)), at(start + 20)).slot(), slots[0]);
        if elsewhere {
            let other = DhcpOption::ServerIdentifier(Ipv4Addr::new(198, 51, 100, 7));
            bench
                .nothing(&ask(Request, mac(1)).requested(SHARED).set(slots[0].1).with(other), at(start + 21));
        }
        bench.nothing(&ask(Discover, mac(16)), at(start + 249));
        assert_eq!(bench.answer(&ask(Discover, mac(16)), at(start + 251)).slot(), slots[0]);
        bench.lease(sharer(1), at(start + 400));
    }
}

#[test]
fn an_expired_set_rests() {
    let mut bench = Bench::new(FILE);
    let slots: Vec<_> = (1..=15).map(|last| bench.lease(sharer(last), at(i64::from(last)))).collect();
    assert_eq!(bench.server.poll_timeout(), Some(at(3601)));
    bench.bindings.clear();
    bench.timeout(at(3601));
    assert_eq!(bench.bindings, [(SHARED, mac(1))]);
    bench.nothing(&ask(Discover, mac(16)), at(3840));
    assert_eq!(bench.lease(sharer(16), at(3841)), slots[0]);
    // The same without having been awake at the end.
    bench.restart(FILE, at(3603));
    assert_eq!(bench.state(slots[2]), Some(LeaseState::Released));
}

/// §4.3.5.
#[test]
fn inform_gives_no_lease() {
    let mut bench = Bench::new(FILE);
    let own = Ipv4Addr::new(198, 51, 100, 77);
    let ack = bench.answer(&ask_legacy(Inform, mac(1)).ciaddr(own), at(0));
    assert_eq!((ack.kind(), ack.message.yiaddr()), (Ack, Ipv4Addr::UNSPECIFIED));
    assert_eq!(ack.destination, Destination::Client(mac(1), own));
    assert!(!ack.message.opts().contains(OptionCode::AddressLeaseTime));
    assert!(ack.message.opts().contains(OptionCode::Router));
    assert!(bench.disk.is_empty());
}

/// RFC 2132 §3.5: the router of the client's own pool, else that of the link, else none.
#[test]
fn clients_are_told_their_router() {
    let [pools, link] = [250, 254].map(|last| Ipv4Addr::new(198, 51, 100, last));
    let two = "[[whole]]\naddresses = \"198.51.100.100\"\n[[shared]]\naddresses = \"198.51.100.2\"\n\
               scheme = [0, 4]\nrouter = \"198.51.100.250\"\n";
    let router_of = |bench: &mut Bench, ask: &Ask| {
        let answer = bench.answer(ask, at(0));
        answer.message.opts().get(OptionCode::Router).cloned()
    };
    let mut bench = Bench::new(FILE);
    bench.restart_with(config_with_router(two, Some(link)), at(0));
    for (ask, router) in [
        (ask_legacy(Discover, mac(1)), link),
        (ask(Discover, mac(2)), pools),
        (ask_legacy(Inform, mac(3)).ciaddr(Ipv4Addr::new(198, 51, 100, 77)), link),
    ] {
        assert_eq!(router_of(&mut bench, &ask), Some(DhcpOption::Router(vec![router])));
    }
    bench.restart_with(config_with_router("", None), at(0));
    let inform = ask_legacy(Inform, mac(1)).ciaddr(Ipv4Addr::new(198, 51, 100, 77));
    assert_eq!(router_of(&mut bench, &inform), None, "no empty option");
}

/// §4.1.
#[test]
fn the_broadcast_flag_is_honoured() {
    let mut bench = Bench::new(FILE);
    let mut discover = ask_legacy(Discover, mac(1));
    discover.message.set_flags(v4::Flags::default().set_broadcast());
    assert_eq!(bench.answer(&discover, at(0)).destination, Destination::Broadcast);
}

/// §4.4.5, RFC 2132 §9.2: shorter than configured if asked for, never longer.
#[test]
fn lease_times() {
    let mut bench = Bench::new(FILE);
    for (now, asked, given) in [(0, 600, 600), (1, 7200, 3600), (2, u32::MAX, 3600), (3, 1, 60)] {
        let discover = ask(Discover, mac(1)).with(DhcpOption::AddressLeaseTime(asked));
        let offer = bench.answer(&discover, at(now));
        assert_eq!(offer.seconds(OptionCode::AddressLeaseTime), given);
        assert_eq!(offer.seconds(OptionCode::Renewal), given / 2);
        assert_eq!(offer.seconds(OptionCode::Rebinding), given - given / 8);
    }
}

#[test]
fn host_names_are_kept() {
    let mut bench = Bench::new(FILE);
    bench.lease(|kind| ask(kind, mac(1)).with(DhcpOption::Hostname("h1".to_owned())), at(0));
    assert_eq!(bench.disk[0].host_name.as_deref(), Some("h1"));
    bench.lease(sharer(1), at(1));
    assert_eq!(bench.disk[0].host_name.as_deref(), Some("h1"), "also where a renewal has none");
    bench.lease(|kind| ask(kind, mac(2)).raw(12, b"evil\nname"), at(2));
    assert!(
        bench
            .disk
            .iter()
            .all(|lease| lease.client != ClientId::of_hardware(mac(2)) || lease.host_name.is_none())
    );
}

/// Rules 103 and 104: a further set, and an extra port, under another IAID.
#[test]
fn one_host_has_several_leases() {
    let file = FILE.to_owned()
        + "[[reservation]]\nclient = \"ff:00:00:00:02:00:01\"\naddress = \"198.51.100.2\"\nport = 443\n";
    let mut bench = Bench::new(&file);
    let of_iaid = |iaid: u8| move |kind| ask(kind, mac(1)).client(&[255, 0, 0, 0, iaid, 0, 1]);
    let first = bench.lease(of_iaid(0), at(0));
    let second = bench.lease(of_iaid(1), at(0));
    let port = bench.lease(of_iaid(2), at(0));
    assert!(!first.1.intersects(second.1));
    assert_eq!(port, (SHARED, Psid::single(443)));
    let mut held = bench.leased(SHARED, mac(1), at(1));
    held.sort();
    let mut expected = vec![first.1, second.1, port.1];
    expected.sort();
    assert_eq!(held, expected);
    // Nobody else gets the port.
    let other = ask(Request, mac(2)).requested(SHARED).set(port.1).server();
    assert_eq!(bench.answer(&other, at(1)).kind(), Nak);
}

#[test]
fn reservations() {
    let file = FILE.to_owned()
        + "[[reservation]]\nlink_address = \"02:00:00:00:00:01\"\naddress = \"198.51.100.2\"\npsid = 0\n"
        + "[[reservation]]\nlink_address = \"02:00:00:00:00:02\"\naddress = \"198.51.100.50\"\n"
        + "[[reservation]]\nlink_address = \"02:00:00:00:00:03\"\naddress = \"198.51.100.100\"\n";
    let mut bench = Bench::new(&file);
    assert_eq!(bench.lease(sharer(1), at(0)), (SHARED, set("0,4,0")), "with the system ports");
    assert_eq!(bench.lease(legacy(2), at(0)), (Ipv4Addr::new(198, 51, 100, 50), Psid::FULL), "in no pool");
    let of_pool: Vec<_> = (10..12).map(|last| bench.lease(legacy(last), at(0)).0.octets()[3]).collect();
    assert!(!of_pool.contains(&100), "kept");
    bench.nothing(&ask_legacy(Discover, mac(20)), at(0));
    assert_eq!(bench.lease(legacy(3), at(0)).0.octets()[3], 100);
    // A client that can share and has a whole address reserved is still one that shares here.
    assert_eq!(bench.lease(sharer(2), at(0)).0, SHARED);
}

/// The host has a new network card.
#[test]
fn the_binding_follows_the_client() {
    let mut bench = Bench::new(FILE);
    let of = |last| move |kind| ask(kind, mac(last)).client(b"\0me");
    let slot = bench.lease(of(1), at(0));
    bench.bindings.clear();
    assert_eq!(bench.lease(of(2), at(1)), slot);
    assert_eq!(bench.bindings, [(SHARED, mac(1)), (SHARED, mac(2))]);
    assert_eq!(bench.leased(SHARED, mac(1), at(1)), []);
    assert_eq!(bench.leased(SHARED, mac(2), at(1)), [slot.1]);
}

/// The pool was divided otherwise before the restart.
#[test]
fn leases_of_another_scheme_are_respected() {
    let mut bench = Bench::new(FILE);
    let old: Vec<_> = (1..=8).map(|last| bench.lease(sharer(last), at(0)).1).collect();
    let finer = FILE.replace("[0, 4]", "[0, 6]");
    bench.restart(&finer, at(10));
    let mut given = 0;
    for last in 20..90 {
        let Some(offer) = bench.give(&ask(Discover, mac(last)), at(i64::from(last))) else { continue };
        let psid = offer.set().unwrap();
        assert!(old.iter().all(|old| !old.intersects(psid)), "{psid}");
        given += 1;
    }
    assert!(given > 20, "{given}");
}

/// PE-ARP rule 103: a further set of the address that was named, and no other.
#[test]
fn a_further_set_is_of_the_address_that_was_asked_for() {
    let two = "lease = 3600\n[[shared]]\naddresses = \"198.51.100.2-198.51.100.3\"\nscheme = [0, 1]\n";
    let mut bench = Bench::new(two);
    let of = |host: u8, iaid: u8| move |kind| ask(kind, mac(host)).client(&[255, 0, 0, 0, iaid, 0, host]);
    let (ip, set) = bench.lease(of(2, 0), at(0));
    // A host without anything is offered what there is; one that has a set of the address can use no other.
    let elsewhere = bench.answer(&of(1, 9)(Discover).requested(ip), at(1)).slot();
    assert_ne!(elsewhere.0, ip);
    bench.nothing(&of(2, 1)(Discover).requested(ip), at(2));
    assert_eq!(bench.state(elsewhere), Some(LeaseState::Offered));
    // That it was offered another one is no reason to offer that again.
    bench.nothing(&of(2, 0)(Release).ciaddr(ip).set(set).server(), at(10));
    for later in [300, 400, 5000] {
        assert_eq!(bench.answer(&of(1, 9)(Discover).requested(ip), at(later)).slot(), (ip, set));
    }
}

/// PE-ARP rule 124, and what it costs to find out that there is no other address.
#[test]
fn further_addresses_have_the_same_set() {
    let big = "lease = 3600\n[[shared]]\naddresses = \"198.51.100.2-198.51.100.4\"\nscheme = [0, 16]\n";
    let mut bench = Bench::new(big);
    let of = |iaid: u8| move |kind| ask(kind, mac(1)).client(&[255, 0, 0, 0, iaid, 0, 1]);
    let slots: Vec<_> = (0..3).map(|iaid| bench.lease(of(iaid), at(0))).collect();
    assert!(slots.iter().all(|slot| slot.1 == slots[0].1));
    let addresses: std::collections::BTreeSet<_> = slots.iter().map(|slot| slot.0).collect();
    assert_eq!(addresses.len(), 3);
    // There is no fourth address: another set will do for a server.
    assert!(!slots.contains(&bench.lease(of(3), at(0))));
}

/// PE-ARP rule 124: a client that is offered what it cannot use gets another address as soon as there is one.
#[test]
fn what_was_offered_is_no_reason_to_stay_at_an_address() {
    let two =
        "lease = 3600\nrest = 5\n[[shared]]\naddresses = \"198.51.100.2-198.51.100.3\"\nscheme = [0, 2]\n";
    let mut bench = Bench::new(two);
    let of = |host: u8, iaid: u8| move |kind| ask(kind, mac(host)).client(&[255, 0, 0, 0, iaid, 0, host]);
    let (here, _) = bench.lease(of(1, 0), at(0));
    // The other address is used up by others.
    let rest: Vec<_> = (2..=6).map(|host| bench.lease(of(host, 0), at(0))).collect();
    let elsewhere = rest.iter().find(|slot| slot.0 != here).copied().unwrap();
    let taken: Vec<_> = rest.iter().filter(|slot| slot.0 == here).collect();
    let host = 2 + rest.iter().position(|slot| slot.0 == here).unwrap() as u8;
    // A set of its own address is left, and offered; always the same one.
    bench.give(&of(host, 0)(Release).ciaddr(here).set(taken[0].1).server(), at(1));
    let offered = bench.answer(&of(1, 1)(Discover), at(10)).slot();
    assert_eq!(offered.0, here);
    assert_eq!(bench.answer(&of(1, 1)(Discover), at(20)).slot(), offered);
    // And now the other address has one.
    let host = 2 + rest.iter().position(|slot| *slot == elsewhere).unwrap() as u8;
    bench.give(&of(host, 0)(Release).ciaddr(elsewhere.0).set(elsewhere.1).server(), at(21));
    assert_eq!(bench.answer(&of(1, 1)(Discover), at(30)).slot(), elsewhere);
}

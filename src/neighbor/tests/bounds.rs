//! What a flood may fill, and what it costs: rules 26, 29, 43, 50, 52 and 53.

use super::*;

/// Host `n` of many.
fn forger(n: u32) -> EthernetAddress {
    let [_, b, c, d] = n.to_be_bytes();
    EthernetAddress([2, 0x66, 0, b, c, d])
}

/// A router on a link with more addresses than it remembers.
fn wide_router() -> Rig {
    let own = OwnSet { ip: Ipv4Addr::new(10, 0, 0, 1), ..router().own[0].clone() };
    let prefix = Ipv4Cidr::new(Ipv4Addr::new(10, 0, 0, 0), 8);
    Rig::new(Config { own: vec![own], prefix, schemes: Vec::new(), ..router() })
}

/// Address `n` of the wide link.
fn wide(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + n)
}

/// Rules 26, 29: addresses that are known to be shared from claims alone are bounded, whether or not the claims leave
/// a binding behind.
#[test]
fn learned_shared_addresses_are_bounded() {
    let mut rig = wide_router();
    let bound = MAX_LEARNED_SHARED as u32;
    for n in 0..bound {
        // An owner that has nothing: nothing is kept of it, but the address is shared.
        assert_eq!(rig.hear(&announce(forger(n), wide(n), &[])), Ok(()));
    }
    assert_eq!(rig.engine.learned_shared.len(), MAX_LEARNED_SHARED);
    assert_eq!(rig.hear(&announce(A, wide(bound), &[])), Ok(()), "it says nothing that would be kept");
    assert_eq!(rig.hear(&announce(A, wide(bound), &[range(1, 9)])), Err(Refused::TableFull));
    assert!(!rig.engine.is_shared(wide(bound)));
    assert_eq!(rig.hear(&announce(A, wide(0), &[range(1, 9)])), Ok(()), "known already");
    let whole = PeAddress::new(wide(bound)).with_port(0, Some(0));
    assert_eq!(rig.hear(&Message::announce(B, whole, &[full()])), Ok(()), "not shared");
    rig.wait(SHARED_TIME);
    rig.wait(SHARED_SWEEP_TIME);
    assert_eq!(rig.engine.learned_shared.len(), 1, "with a binding it is remembered");
}

/// Rule 26: a claim that is refused does not make its address shared, and takes no legacy host's binding away.
#[test]
fn a_refused_claim_changes_nothing() {
    let mut rig = Rig::new(router());
    rig.ask(OTHER, 80);
    rig.hear_plain(&plain(ArpOperation::Reply, (C, OTHER), (ROUTER_MAC, ROUTER))).unwrap();
    // A has as many bindings as it may.
    for n in 0..MAX_BINDINGS_PER_HARDWARE as u8 {
        rig.hear(&announce(A, Ipv4Addr::new(192, 0, 2, 100 + n), &[range(1, 9)])).unwrap();
    }
    let entries = rig.engine.entries(rig.now);
    assert_eq!(rig.hear(&announce(A, OTHER, &[range(1, 9)])), Err(Refused::TableFull));
    assert!(!rig.engine.is_shared(OTHER));
    assert_eq!(rig.engine.entries(rig.now), entries);
    assert_eq!(rig.next_hop(tcp(OTHER, 80)), Some(C));
}

/// Rule 43: the gaps of one address are bounded; the oldest gives way.
#[test]
fn gaps_are_bounded() {
    let mut rig = Rig::new(Config { authorities: vec![AUTHORITY], ..router() });
    let port = |n: usize| (n * usize::from(QUESTION_BLOCK)) as u16;
    for n in 0..=MAX_GAPS {
        let question = rig.ask(OTHER, port(n));
        let (asked, gap) = (question.sender, lasting(3600, range(port(n), port(n))));
        let about = shared(OTHER).with_port(question.target.protocol, question.target.port);
        let nak = Message::nak(AUTHORITY, about, question.sender_hardware, asked, gap);
        assert_eq!(rig.hear(&nak), Ok(()), "{n}");
        // So that no limit of questions is in the way.
        rig.wait(secs(1));
    }
    let mut ends = |n| rig.enqueue(tcp(OTHER, port(n)), packet(1));
    assert_eq!(ends(0), Ok(()), "the oldest is asked for again");
    for n in 1..=MAX_GAPS {
        assert_eq!(ends(n), Err(Refused::NoOwner), "{n}");
    }
}

/// Rules 52, 53: a flood of claims to the same ports is reported at a limited rate.
#[test]
fn conflicts_are_reported_at_a_limited_rate() {
    let mut rig = Rig::new(router());
    rig.confirm(A, SHARED, &[range(100, 299)]);
    rig.events.clear();
    for n in 0..1000 {
        rig.hear(&announce(forger(n), SHARED, &[range(200, 399)])).unwrap();
    }
    let reported = core::mem::take(&mut rig.events);
    let most = CONFLICT_REPORTS_PER_SECOND as usize;
    assert!((most / 2..=most).contains(&reported.len()), "{}", reported.len());
    assert!(reported.iter().all(|event| matches!(event, Event::Conflict { .. })));
    assert_eq!(rig.owner(250), Some(A));
    rig.wait(secs(1));
    rig.events.clear();
    rig.hear(&announce(B, SHARED, &[range(200, 399)])).unwrap();
    assert!(!rig.events.is_empty(), "a second later there are more");
}

/// Rule 53: however many claim the same ports, all come behind each owner that is REACHABLE, and in front of each that
/// is not; the last one comes first.
#[test]
fn a_flood_comes_behind_all_that_stand() {
    let mut rig = Rig::new(router());
    rig.confirm(A, SHARED, &[range(100, 199)]);
    rig.hear(&announce(B, SHARED, &[range(200, 299)])).unwrap();
    rig.confirm(C, SHARED, &[range(300, 399)]);
    for n in 0..1000 {
        // Again and again, with another claim each time.
        let last = if n % 2 == 0 { 399 } else { 400 };
        rig.hear(&announce(forger(n % 10), SHARED, &[range(100, last)])).unwrap();
        assert_eq!([150, 350].map(|port| rig.owner(port)), [Some(A), Some(C)], "claim {n}");
    }
    // A and C do not answer: their bindings end, and a forger stands.
    rig.wait(secs(3));
    assert!(rig.owner(150).is_some_and(|owner| owner.0[1] == 0x66));
    assert_eq!([A, C].map(|owner| rig.state_of(owner)), [None; 2]);
}

/// Rule 29: who answers a question takes the place of whoever was not heard of for longest; who is not asked does not,
/// and nobody takes the place of an owner that is REACHABLE.
#[test]
fn an_answer_takes_the_place_of_the_oldest() {
    let mut rig = Rig::new(router());
    rig.confirm(A, SHARED, &[psid("0,4,1")]);
    for n in 0..MAX_BINDINGS_PER_ADDRESS as u16 {
        rig.wait(millis(1));
        let _ = rig.hear(&announce(mac(0x1000 + n), SHARED, &[psid("0,4,2")]));
    }
    assert_eq!(rig.hear(&announce(B, SHARED, &[psid("0,4,3")])), Err(Refused::TableFull));
    let question = rig.ask(SHARED, 12_288);
    assert_eq!(rig.hear(&reply(B, &question, &[psid("0,4,3")])), Ok(()));
    assert_eq!((rig.owner(12_288), rig.owner(4096)), (Some(B), Some(A)));
    let of_address = rig.engine.entries(rig.now).iter().filter(|entry| entry.ip == SHARED).count();
    assert_eq!(of_address, MAX_BINDINGS_PER_ADDRESS);
    assert_eq!(rig.state_of(mac(0x1000)), None, "the oldest");
    assert_eq!(rig.state_of(mac(0x1001)), Some("stale"));
}

/// The same for the addresses of one host: it answers for a new one, and an old one is forgotten.
#[test]
fn an_answer_takes_the_place_of_another_address() {
    let mut rig = Rig::new(router());
    let address = |n: usize| Ipv4Addr::new(192, 0, 2, 100 + n as u8);
    for n in 0..MAX_BINDINGS_PER_HARDWARE {
        rig.wait(millis(1));
        rig.hear(&announce(A, address(n), &[full()])).unwrap();
    }
    let last = address(MAX_BINDINGS_PER_HARDWARE);
    assert_eq!(rig.hear(&announce(A, last, &[full()])), Err(Refused::TableFull));
    let question = rig.ask(last, 80);
    assert_eq!(rig.hear(&reply(A, &question, &[full()])), Ok(()));
    assert_eq!(rig.next_hop(tcp(last, 80)), Some(A));
    assert_eq!((rig.next_hop(tcp(address(0), 80)), rig.next_hop(tcp(address(1), 80))), (None, Some(A)));
}

//! Two hosts claim one port: rules 31 and 51 to 53.

use super::*;

/// The first port that each host was asked for by unicast, in order.
fn take_asked(rig: &mut Rig) -> Vec<(EthernetAddress, u8, Option<u16>)> {
    let resolves = rig.take_pe(Kind::Resolve).into_iter();
    resolves.map(|(_, to, message)| (to, message.target.protocol, message.target.port)).collect()
}

fn count_conflicts(rig: &mut Rig) -> usize {
    core::mem::take(&mut rig.events).iter().filter(|event| matches!(event, Event::Conflict { .. })).count()
}

fn question_to(rig: &Rig, port: u16) -> Message {
    let target = shared(SHARED).with_port(TCP, Some(port));
    Message::resolve(ROUTER_MAC, PeAddress::new(rig.engine.config().own[0].ip), target, &[])
}

/// Owners of a port of A alone, of both, and of B alone.
fn owners(rig: &mut Rig) -> [Option<EthernetAddress>; 3] {
    [150, 250, 350].map(|port| rig.owner(port))
}

/// A is REACHABLE with 100 to 299, B claims 200 to 399.
fn disputed() -> Rig {
    let mut rig = Rig::new(router());
    rig.confirm(A, SHARED, &[range(100, 299)]);
    assert_eq!(rig.hear(&announce(B, SHARED, &[range(200, 399)])), Ok(()));
    rig
}

/// Rule 53: a REACHABLE incumbent is asked by unicast for the first disputed port, and keeps it meanwhile; ports
/// outside the intersection are not affected.
#[test]
fn a_reachable_incumbent_is_asked() {
    let mut rig = disputed();
    assert_eq!(take_asked(&mut rig), [(A, 0, Some(200))]);
    assert_eq!(count_conflicts(&mut rig), 1);
    assert_eq!(owners(&mut rig), [Some(A), Some(A), Some(B)]);
    rig.wait(millis(2500));
    assert_eq!(take_asked(&mut rig), [(A, 0, Some(200)); 2]);
    assert_eq!(owners(&mut rig), [Some(A), Some(A), Some(B)]);
}

/// Rule 53: it is asked in the narrower of the two scopes.
#[test]
fn the_question_has_the_narrower_scope() {
    let mut rig = Rig::new(router());
    rig.confirm(A, SHARED, &[range(100, 299)]);
    rig.hear(&announce(B, SHARED, &[of(UDP, range(200, 399))])).unwrap();
    assert_eq!(take_asked(&mut rig), [(A, UDP, Some(200))]);
    assert_eq!(rig.next_hop(Target { protocol: UDP, ..tcp(SHARED, 350) }), Some(B));
}

/// Rule 53: an incumbent that confirms keeps the port, and is left alone for 10 s.
#[test]
fn an_incumbent_that_answers_stays() {
    let mut rig = disputed();
    let question = question_to(&rig, 200);
    assert_eq!(rig.hear(&reply(A, &question, &[range(100, 299)])), Ok(()));
    assert_eq!(rig.state_of(A), Some("reachable"));
    take_asked(&mut rig);
    for _ in 0..9 {
        rig.wait(secs(1));
        rig.hear(&announce(B, SHARED, &[range(200, 399)])).unwrap();
        assert_eq!(owners(&mut rig), [Some(A), Some(A), Some(B)]);
    }
    assert!(take_asked(&mut rig).iter().all(|(to, ..)| *to == B), "A has its rest");
    rig.wait(secs(1));
    rig.hear(&announce(B, SHARED, &[range(200, 399)])).unwrap();
    assert!(take_asked(&mut rig).contains(&(A, 0, Some(200))), "10 s are over");
}

/// Rule 53: the 10 s begin with the answer, and hold for a set that A changes meanwhile.
#[test]
fn the_rest_begins_with_the_answer() {
    let mut rig = disputed();
    rig.wait(millis(2500));
    let question = question_to(&rig, 200);
    rig.hear(&reply(A, &question, &[range(100, 299)])).unwrap();
    rig.hear(&announce(A, SHARED, &[range(100, 298)])).unwrap();
    assert_eq!(rig.state_of(A), Some("stale"));
    take_asked(&mut rig);
    rig.wait(secs(10) - millis(1));
    rig.hear(&announce(B, SHARED, &[range(200, 399)])).unwrap();
    assert_eq!((owners(&mut rig), take_asked(&mut rig)), ([Some(A), Some(A), Some(B)], vec![]));
    rig.wait(millis(1));
    rig.hear(&announce(B, SHARED, &[range(200, 399)])).unwrap();
    assert_eq!(owners(&mut rig), [Some(A), Some(B), Some(B)]);
}

/// Rules 34, 53: an owner that gives the disputed part up keeps the rest: nobody answers for what it gave up.
#[test]
fn a_dispute_ends_with_the_claim_to_the_part() {
    let parts = [range(100, 199), lasting(10, range(200, 299))];
    let give_up: [fn(&mut Rig); 3] = [
        |rig| rig.hear(&release(A, SHARED, &[range(200, 299)])).unwrap(),
        |rig| rig.hear(&resolve(A, shared(SHARED), OTHER, 1, &[withdrawn(range(200, 299))])).unwrap(),
        // Two and a half seconds after the first question the time of the part is over.
        |rig| rig.wait(millis(2500)),
    ];
    for (case, give_up) in give_up.into_iter().enumerate() {
        let mut rig = Rig::new(router());
        rig.confirm(A, SHARED, &parts);
        rig.wait(millis(7500));
        rig.hear(&announce(B, SHARED, &[range(200, 399)])).unwrap();
        assert_eq!(take_asked(&mut rig), [(A, 0, Some(200))]);
        give_up(&mut rig);
        assert_eq!(rig.state_of(A), Some("stale"), "case {case}");
        rig.wait(secs(4));
        assert_eq!(owners(&mut rig), [Some(A), Some(B), Some(B)], "case {case}");
        rig.hear(&announce(C, SHARED, &[range(150, 160)])).unwrap();
        assert_eq!(rig.owner(150), Some(C), "case {case}: no shield of an old dispute");
    }
}

/// Rule 53: a dispute that is over does not shield the incumbent for ever.
#[test]
fn an_old_dispute_is_no_shield() {
    let mut rig = disputed();
    let question = question_to(&rig, 200);
    rig.hear(&reply(A, &question, &[range(100, 299)])).unwrap();
    rig.wait(secs(45));
    assert_eq!(rig.owner(150), Some(A));
    rig.wait(DELAY_FIRST_PROBE_TIME);
    assert_eq!(rig.state_of(A), Some("probe"));
    assert_eq!(take_asked(&mut rig).last(), Some(&(A, 0, Some(100))), "any port of it");
    rig.hear(&announce(C, SHARED, &[range(140, 160)])).unwrap();
    assert_eq!(rig.owner(150), Some(C));
}

/// Rule 53: an incumbent that is silent for 3 s is removed, and the newcomer stands.
#[test]
fn a_silent_incumbent_is_replaced() {
    let mut rig = disputed();
    rig.wait(secs(3) - millis(1));
    assert_eq!(rig.owner(250), Some(A));
    rig.wait(millis(1));
    assert_eq!(rig.owner(250), Some(B));
    assert_eq!(rig.state_of(A), None);
}

/// Rule 53: in STALE, DELAY and PROBE an incumbent is preceded at once, and not asked.
#[test]
fn an_unconfirmed_incumbent_is_preceded() {
    for (state, seconds) in [("stale", 0), ("delay", 1), ("probe", 6)] {
        let mut rig = Rig::new(router());
        rig.hear(&announce(A, SHARED, &[range(100, 299)])).unwrap();
        if seconds > 0 {
            assert_eq!(rig.owner(150), Some(A));
            rig.wait(secs(seconds));
        }
        assert_eq!(rig.state_of(A), Some(state));
        take_asked(&mut rig);
        rig.hear(&announce(B, SHARED, &[range(200, 399)])).unwrap();
        assert!(take_asked(&mut rig).is_empty(), "{state}");
        assert_eq!(owners(&mut rig), [Some(A), Some(B), Some(B)], "{state}");
    }
}

/// Rules 31, 53: an incumbent that is asked for a dispute is not taken for one that is probed for its own sake.
#[test]
fn a_third_claim_waits_for_the_answer_too() {
    let mut rig = disputed();
    rig.hear(&announce(C, SHARED, &[range(250, 260)])).unwrap();
    assert_eq!(rig.owner(250), Some(A));
    rig.wait(secs(3));
    assert!([Some(B), Some(C)].contains(&rig.owner(250)), "both claim it");
    assert_eq!(rig.owner(299), Some(B));
}

/// Rules 31, 52: a static binding wins without a question; the rest of the claim stands.
#[test]
fn a_static_binding_wins() {
    let mut rig = Rig::new(router());
    rig.engine.insert_static(SHARED, A, &[range(100, 299)], rig.now).unwrap();
    rig.hear(&announce(B, SHARED, &[range(200, 399)])).unwrap();
    rig.wait(secs(4));
    assert_eq!(count_conflicts(&mut rig), 1);
    assert!(take_asked(&mut rig).is_empty());
    assert_eq!(owners(&mut rig), [Some(A), Some(A), Some(B)]);
}

/// Rules 5, 24: of a claim that meets the own set the rest is learned; what is withdrawn is not claimed.
#[test]
fn only_what_both_claim_is_disputed() {
    let mut rig = Rig::new(sharer(A, "0,4,1"));
    assert_eq!(rig.hear(&announce(B, SHARED, &[psid("0,4,1"), range(8000, 9000)])), Err(Refused::Conflict));
    assert_eq!(rig.owner(9000), Some(B));
    rig.take_sent();
    rig.wait(secs(10));
    let moved = [psid("0,4,2"), withdrawn(psid("0,4,1"))];
    assert_eq!(rig.hear(&announce(B, SHARED, &moved)), Ok(()));
    assert!(rig.take_pe(Kind::Announce).is_empty(), "nothing to defend");
    assert_eq!(rig.owner(8200), Some(B));
}

/// Rule 52: a flood of claims is told of at a limited rate.
#[test]
fn conflicts_are_told_at_a_limited_rate() {
    let mut rig = Rig::new(router());
    rig.engine.insert_static(SHARED, A, &[range(100, 299)], rig.now).unwrap();
    for _ in 0..500 {
        rig.hear(&announce(B, SHARED, &[range(200, 399)])).unwrap();
    }
    // To look for a conflict costs as much as to tell of one.
    assert_eq!(count_conflicts(&mut rig), CONFLICT_REPORTS_PER_SECOND as usize / 2);
    rig.wait(secs(1));
    rig.hear(&announce(B, SHARED, &[range(200, 399)])).unwrap();
    assert_eq!(count_conflicts(&mut rig), 1);
}

/// Rule 31: of static bindings, a single port precedes the set around it, in whichever order they came.
#[test]
fn a_single_static_port_precedes_its_set() {
    for single_first in [true, false] {
        let mut rig = Rig::new(router());
        let mut bindings = [(A, range(443, 443)), (B, psid("0,4,0"))];
        if !single_first {
            bindings.reverse();
        }
        for (host, record) in bindings {
            rig.engine.insert_static(SHARED, host, &[record], rig.now).unwrap();
        }
        assert_eq!([442, 443, 444].map(|port| rig.owner(port)), [Some(B), Some(A), Some(B)]);
    }
}

/// Rule 51: other ports, other protocols, another address, or the same host are no conflict.
#[test]
fn what_does_not_intersect_is_no_conflict() {
    let mut rig = Rig::new(router());
    rig.confirm(A, SHARED, &[of(TCP, range(100, 299)), portless(GRE)]);
    for claim in [range(300, 399), of(UDP, range(100, 299)), portless(50)] {
        rig.hear(&announce(B, SHARED, &[claim])).unwrap();
    }
    rig.hear(&announce(C, OTHER, &[full()])).unwrap();
    rig.hear(&announce(A, SHARED, &[range(100, 399)])).unwrap();
    rig.events.retain(|event| !matches!(event, Event::Conflict { incumbent: B, newcomer: A, .. }));
    assert_eq!(count_conflicts(&mut rig), 0);
}

/// Rule 53: what plain ARP taught is learned like the rest: a REACHABLE legacy host is asked.
#[test]
fn a_legacy_incumbent_is_asked() {
    let mut rig = Rig::new(router());
    rig.ask(OTHER, 80);
    rig.hear_plain(&plain(ArpOperation::Reply, (A, OTHER), (ROUTER_MAC, ROUTER))).unwrap();
    rig.take_sent();
    let whole = PeAddress::new(OTHER).with_port(0, Some(0));
    rig.hear(&Message::announce(B, whole, &[full()])).unwrap();
    let request = plain_request(ROUTER_MAC, ROUTER, OTHER);
    assert_eq!(rig.take_sent(), [(rig.now, Output::Arp { destination: A, message: request })]);
    assert_eq!(rig.next_hop(tcp(OTHER, 80)), Some(A));
    rig.wait(secs(3));
    assert_eq!(rig.next_hop(tcp(OTHER, 80)), Some(B));
}

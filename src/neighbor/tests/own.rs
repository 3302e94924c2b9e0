//! Several own sets, of one address and of several.

use super::*;

/// Of SHARED, beside the first one.
const MORE: &str = "0,4,9";
/// Another shared address.
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 19);

fn set(ip: Ipv4Addr, record: Record) -> OwnSet {
    OwnSet {
        ip,
        records: vec![record],
        first_port: first_port(&[record]).unwrap(),
        shared: record != full(),
        authoritative: true,
        until: None,
    }
}

/// A host with a set of SHARED in use.
fn rig() -> Rig {
    Rig::new(sharer(A, "0,4,1"))
}

/// It begins to use a further set.
fn add(rig: &mut Rig, ip: Ipv4Addr, record: Record) -> OwnId {
    add_set(rig, set(ip, record))
}

fn add_set(rig: &mut Rig, set: OwnSet) -> OwnId {
    let id = rig.engine.add_own(set);
    rig.engine.claim_own(id, rig.now);
    rig.settle();
    id
}

/// What it says to B, which asks for a port.
fn answer(rig: &mut Rig, ip: Ipv4Addr, port: u16) -> Option<Vec<Record>> {
    rig.sent.clear();
    rig.hear(&resolve(B, shared(OTHER), ip, port, &[])).unwrap();
    let answers = rig.take_pe(Kind::Reply);
    assert!(answers.iter().all(|(_, to, message)| *to == B && message.complete && message.sender.ip == ip));
    answers.into_iter().next().map(|(_, _, message)| message.records)
}

fn lost(rig: &mut Rig) -> Vec<(OwnId, bool)> {
    let conflict = |event| match event {
        Event::OwnConflict { own, lost, .. } => Some((own, lost)),
        _ => None,
    };
    core::mem::take(&mut rig.events).into_iter().filter_map(conflict).collect()
}

/// Rules 2 and 56: a further set is probed for itself, and once it is in use every message names both.
#[test]
fn a_further_set_of_the_address() {
    let mut rig = rig();
    let more = add(&mut rig, SHARED, psid(MORE));
    rig.wait(millis(1));
    let probes = rig.take_pe(Kind::Probe);
    assert_eq!(probes.len(), 1);
    assert_eq!((&probes[0].2.records[..], probes[0].2.target.port), (&[psid(MORE)][..], Some(0x9000)));
    // Not in use yet: the first one alone is answered for, and named.
    assert_eq!(answer(&mut rig, SHARED, 0x1234), Some(vec![psid("0,4,1")]));
    assert_eq!(answer(&mut rig, SHARED, 0x9234), None);
    rig.wait(secs(3));
    assert!(matches!(rig.events[..], [Event::Ready { own }] if own == more));
    let both = vec![psid("0,4,1"), psid(MORE)];
    let announced = rig.take_pe(Kind::Announce);
    assert!(announced.iter().all(|(_, _, message)| message.complete && message.records == both));
    assert_eq!(announced.len(), 2);
    assert_eq!(answer(&mut rig, SHARED, 0x1234), Some(both.clone()));
    assert_eq!(answer(&mut rig, SHARED, 0x9234), Some(both.clone()));
    assert_eq!(rig.ask(OTHER, 80).records, both, "a question tells who asks");
}

/// Rules 25 and 2: what is given back is named alone, and no longer after that.
#[test]
fn a_set_is_given_back_alone() {
    for first in [true, false] {
        let mut rig = rig();
        let more = add(&mut rig, SHARED, psid(MORE));
        rig.wait(secs(3));
        rig.sent.clear();
        let (gone, kept, id) = if first { ("0,4,1", MORE, OwnId::FIRST) } else { (MORE, "0,4,1", more) };
        rig.engine.remove_own(id);
        rig.settle();
        let released = rig.take_pe(Kind::Release);
        assert_eq!(released.len(), 1);
        assert_eq!(
            released[0].2.records.iter().map(|record| record.claim).collect::<Vec<_>>(),
            [psid(gone).claim]
        );
        let Claim::Psid(kept_psid) = psid(kept).claim else { unreachable!() };
        assert_eq!(answer(&mut rig, SHARED, kept_psid.first()), Some(vec![psid(kept)]));
        assert_eq!(rig.engine.own_phase(id), ClaimPhase::Unclaimed);
        assert!(!rig.engine.owns(SHARED, TCP, first_port(&[psid(gone)])));
        // Twice is once.
        rig.engine.remove_own(id);
        rig.settle();
        assert!(rig.take_sent().is_empty());
    }
}

/// Rules 57 and 55: a set that is being probed is lost by itself; those in use are defended.
#[test]
fn each_set_is_disputed_by_itself() {
    let mut rig = rig();
    let more = add(&mut rig, SHARED, psid(MORE));
    rig.wait(millis(10));
    let all = Message::announce(B, shared(SHARED).with_port(0, Some(1024)), &[range(1024, 65535)]);
    assert_eq!(rig.hear(&all), Err(Refused::Conflict));
    assert_eq!(lost(&mut rig), [(OwnId::FIRST, false), (more, true)]);
    let defended = rig.take_pe(Kind::Announce);
    assert_eq!(defended.len(), 1, "what is in use");
    assert_eq!(defended[0].2.records, [psid("0,4,1")]);
    // A probe meets both: one objection, that names what is in use.
    rig.wait(secs(70));
    rig.sent.clear();
    rig.events.clear();
    assert!(rig.engine.own_phase(more).holds(), "it was free after all");
    let probe = Message::probe(B, shared(SHARED).with_port(0, Some(1024)), &[range(1024, 65535)]);
    assert_eq!(rig.hear(&probe), Ok(()));
    let objections = rig.take_pe(Kind::Conflict);
    assert_eq!(objections.len(), 1);
    assert_eq!(objections[0].2.records, [psid("0,4,1"), psid(MORE)]);
    assert!(lost(&mut rig).is_empty());
}

/// RFC 5227 §2.1.1: two that probe for the same set at the same time both give it up, and nothing else.
#[test]
fn probes_that_meet() {
    let mut rig = rig();
    let more = add(&mut rig, SHARED, psid(MORE));
    rig.wait(millis(10));
    let probe = Message::probe(B, shared(SHARED).with_port(0, Some(0x9000)), &[psid(MORE)]);
    assert_eq!(rig.hear(&probe), Ok(()));
    assert_eq!(lost(&mut rig), [(more, true)]);
    assert!(rig.engine.own_phase(OwnId::FIRST).holds());
}

/// Rule 122: each lease ends by itself, and is named with the time that it has left.
#[test]
fn each_lease_ends_by_itself() {
    let mut rig = rig();
    let until = Some(rig.now + secs(20));
    let more = add_set(&mut rig, OwnSet { until, ..set(SHARED, psid(MORE)) });
    rig.wait(secs(10));
    assert_eq!(answer(&mut rig, SHARED, 0x9234), Some(vec![psid("0,4,1"), lasting(10, psid(MORE))]));
    rig.events.clear();
    rig.engine.renew_own(more, rig.now + secs(15), rig.now);
    rig.wait(secs(15));
    assert!(matches!(rig.events[..], [Event::Expired { own }] if own == more));
    assert_eq!(answer(&mut rig, SHARED, 0x9234), None);
    assert_eq!(answer(&mut rig, SHARED, 0x1234), Some(vec![psid("0,4,1")]));
}

/// Rule 1: each address speaks for itself.
#[test]
fn sets_of_several_addresses() {
    let mut rig = rig();
    add(&mut rig, SECOND, psid("0,4,2"));
    rig.wait(secs(3));
    assert_eq!(answer(&mut rig, SHARED, 0x1234), Some(vec![psid("0,4,1")]));
    assert_eq!(answer(&mut rig, SECOND, 0x2234), Some(vec![psid("0,4,2")]));
    assert_eq!(answer(&mut rig, SECOND, 0x1234), None);
    assert_eq!(answer(&mut rig, SHARED, 0x2234), None);
    assert!(rig.engine.is_shared(SHARED) && rig.engine.is_shared(SECOND));
    // Asking about an own address, it is that one that asks.
    for ip in [SHARED, SECOND] {
        let question = rig.ask(ip, 0x3000);
        assert_eq!((question.sender.ip, question.records.len()), (ip, 1));
    }
    rig.sent.clear();
    // Rule 47: a router that asks for every owner of each gets an answer about each.
    for ip in [SHARED, SECOND] {
        rig.hear(&Message::solicit_all(ROUTER_MAC, PeAddress::new(ROUTER), ip)).unwrap();
    }
    rig.wait(secs(1));
    let answers: Vec<_> = rig.take_pe(Kind::Reply).into_iter().map(|(_, _, message)| message).collect();
    let mut told: Vec<_> =
        answers.iter().map(|message| (message.sender.ip, message.records.clone())).collect();
    told.sort_by_key(|(ip, _)| *ip);
    assert_eq!(told, [(SHARED, vec![psid("0,4,1")]), (SECOND, vec![psid("0,4,2")])]);
}

/// Rules 3 and 4: beside a part of an address a host may have a whole one, for which it answers plain ARP.
#[test]
fn a_whole_address_beside_a_part() {
    let mut rig = rig();
    let whole = add(&mut rig, OTHER, full());
    rig.wait(secs(3));
    rig.sent.clear();
    for (ip, answered) in [(OTHER, true), (SHARED, false)] {
        rig.hear_plain(&plain_request(B, Ipv4Addr::new(192, 0, 2, 50), ip)).unwrap();
        let arp = |(_, output): &(Instant, Output)| matches!(output, Output::Arp { destination, .. } if *destination == B);
        assert_eq!(rig.take_sent().iter().any(arp), answered, "{ip}");
    }
    // Another host that has the whole address disputes that one only.
    let claim = plain(ArpOperation::Request, (B, OTHER), (EthernetAddress([0; 6]), OTHER));
    assert_eq!(rig.hear_plain(&claim), Err(Refused::Conflict));
    assert_eq!(lost(&mut rig), [(whole, false)]);
}

/// Who has no set any more asks nobody: without a sender a question would be a probe.
#[test]
fn a_node_without_sets() {
    let mut rig = rig();
    rig.confirm(B, SHARED, &[psid("0,4,2")]);
    rig.ask(OTHER, 80);
    rig.engine.remove_own(OwnId::FIRST);
    rig.settle();
    assert!(!rig.engine.is_shared(OTHER) && !rig.engine.owns(SHARED, TCP, Some(0x1234)));
    assert_eq!(rig.take_pe(Kind::Release).len(), 1);
    rig.wait(secs(60));
    assert_eq!(rig.owner(0x2234), Some(B), "the use of what is stale would confirm it");
    rig.wait(secs(60));
    let asked = |(_, output): &(Instant, Output)| matches!(output, Output::Pe { .. });
    assert!(!rig.take_sent().iter().any(asked));
}

//! The own set: rules 1, 41, 54 to 58.

use super::*;

fn unclaimed(authoritative: bool, seed: u64) -> Rig {
    let config = sharer(A, "0,4,1");
    let own = OwnSet { authoritative, ..config.own[0].clone() };
    Rig::unclaimed(Config { own: vec![own], seed, ..config })
}

fn times(sent: &[(Instant, EthernetAddress, Message)], start: Instant) -> Vec<u64> {
    sent.iter().map(|(at, ..)| (*at - start).total_millis()).collect()
}

fn own_conflicts(rig: &mut Rig) -> Vec<(EthernetAddress, u16, bool)> {
    let conflict = |event| match event {
        Event::OwnConflict { own: _, hardware, port, lost } => Some((hardware, port, lost)),
        _ => None,
    };
    core::mem::take(&mut rig.events).into_iter().filter_map(conflict).collect()
}

/// The objection of `host`, who owns all of SHARED's port 5000, to A.
fn conflict(host: EthernetAddress) -> Message {
    Message::conflict(host, shared(SHARED).with_port(0, Some(5000)), A, &[range(5000, 5000)])
}

fn probe_of(host: EthernetAddress, candidate: Record) -> Message {
    Message::probe(host, shared(SHARED).with_port(0, first_port(&[candidate])), &[candidate])
}

/// Rule 56: a given set is probed once, and announced 200 ms later, twice, 2 s apart.
#[test]
fn a_given_set_is_probed_once() {
    let mut rig = unclaimed(true, 1);
    let start = rig.now;
    rig.claim_own();
    rig.wait(millis(199));
    let probes = rig.take_pe(Kind::Probe);
    assert_eq!(times(&probes, start), [0]);
    let (_, destination, probe) = &probes[0];
    assert_eq!(
        (*destination, probe.target),
        (EthernetAddress::BROADCAST, shared(SHARED).with_port(0, Some(4096)))
    );
    assert_eq!(probe.sender, PeAddress::new(Ipv4Addr::UNSPECIFIED));
    assert_eq!(probe.records, [psid("0,4,1")]);
    assert!(rig.events.is_empty() && !rig.engine.own_phase(OwnId::FIRST).holds());
    rig.wait(secs(10));
    let announced = rig.take_pe(Kind::Announce);
    assert_eq!(times(&announced, start), [200, 2200]);
    assert!(announced[0].2.complete && announced[0].2.records == [psid("0,4,1")]);
    assert!(matches!(rig.events[..], [Event::Ready { .. }]));
    assert_eq!(rig.engine.own_phase(OwnId::FIRST), ClaimPhase::Held);
}

/// Rule 56: a set that nobody gave waits 0..1 s, is probed three times 1..2 s apart, and used 2 s later.
#[test]
fn another_set_is_probed_three_times() {
    let mut waits = Vec::new();
    for seed in 0..30 {
        let mut rig = unclaimed(false, seed);
        let start = rig.now;
        rig.claim_own();
        rig.wait(secs(20));
        let sent = core::mem::take(&mut rig.sent);
        rig.sent = sent.clone();
        let probes = times(&rig.take_pe(Kind::Probe), start);
        rig.sent = sent;
        let announced = times(&rig.take_pe(Kind::Announce), start);
        assert_eq!((probes.len(), announced.len()), (3, 2));
        assert!(probes[0] <= 1000, "{probes:?}");
        assert!(probes.windows(2).all(|pair| (1000..=2000).contains(&(pair[1] - pair[0]))), "{probes:?}");
        assert_eq!((announced[0] - probes[2], announced[1] - announced[0]), (2000, 2000));
        waits.push(probes[0]);
    }
    assert!(waits.iter().max() > waits.iter().min(), "at random");
}

/// Rule 57: CONFLICT loses the set; a given one is probed again after 60..61 s, and used when it is free.
#[test]
fn a_conflict_loses_the_set() {
    let mut rig = unclaimed(true, 1);
    rig.claim_own();
    for _ in 0..2 {
        rig.sent.clear();
        rig.wait(millis(100));
        assert_eq!(rig.hear(&conflict(B)), Ok(()));
        assert_eq!(rig.engine.own_phase(OwnId::FIRST), ClaimPhase::Lost);
        assert_eq!(own_conflicts(&mut rig), [(B, 5000, true)]);
        rig.wait(secs(60) - millis(1));
        assert!(rig.take_sent().is_empty());
        let probed = (0..=100).any(|_| {
            rig.wait(millis(10));
            !rig.take_pe(Kind::Probe).is_empty()
        });
        assert!(probed);
    }
    rig.wait(millis(200));
    assert!(rig.engine.own_phase(OwnId::FIRST).holds());
}

/// Rules 14, 20, 51: a CONFLICT counts to the prober, about its set, while it probes.
#[test]
fn other_conflicts_are_dropped() {
    let mut rig = unclaimed(true, 1);
    rig.claim_own();
    assert_eq!(rig.hear(&but(conflict(B), |message| message.target_hardware = C)), Err(Refused::NotForUs));
    let elsewhere = but(conflict(B), |message| message.records = vec![range(1, 9)]);
    assert_eq!(rig.hear(&elsewhere), Err(Refused::Unsolicited));
    rig.wait(secs(1));
    assert_eq!(rig.hear(&conflict(B)), Err(Refused::Unsolicited));
    assert!(rig.engine.own_phase(OwnId::FIRST).holds());
    assert!(own_conflicts(&mut rig).is_empty());
}

/// Rule 54: of two hosts that probe at once, each takes the other's PROBE as a conflict.
#[test]
fn two_probers_conflict() {
    let mut rig = unclaimed(true, 1);
    rig.claim_own();
    assert_eq!(rig.hear(&probe_of(B, psid("0,4,2"))), Ok(()));
    assert!(rig.engine.own_phase(OwnId::FIRST).probing(), "another set");
    assert_eq!(rig.hear(&probe_of(B, range(8000, 9000))), Ok(()));
    assert_eq!(own_conflicts(&mut rig), [(B, 8000, true)]);
    assert!(rig.take_pe(Kind::Conflict).is_empty());
}

/// Rule 54: the owner objects to a PROBE for a part of its set, at once, by unicast, with its whole set.
#[test]
fn an_owner_objects_to_a_probe() {
    let mut rig = Rig::new(sharer(A, "0,4,1"));
    assert_eq!(rig.hear(&probe_of(B, psid("0,4,2"))), Ok(()));
    assert!(rig.take_sent().is_empty());
    assert_eq!(rig.hear(&probe_of(B, range(8000, 9000))), Ok(()));
    let (_, destination, objection) = rig.take_pe(Kind::Conflict).remove(0);
    assert_eq!((destination, objection.target_hardware), (B, B));
    assert_eq!(objection.sender, shared(SHARED).with_port(0, Some(8000)));
    assert_eq!(objection.target, PeAddress::new(Ipv4Addr::UNSPECIFIED));
    assert_eq!(objection.records, [psid("0,4,1")]);
    assert!(rig.engine.own_phase(OwnId::FIRST).holds());
}

/// Rule 55: a claim to a part of the own set is answered with one ANNOUNCE, at most every 10 s; a given set is
/// kept.
#[test]
fn an_owner_defends_its_set() {
    let mut rig = Rig::new(sharer(A, "0,4,1"));
    let claims = [
        announce(B, SHARED, &[range(8000, 9000)]),
        resolve(B, shared(SHARED), OTHER, 1, &[range(8000, 9000)]),
    ];
    for claim in claims.iter().cycle().take(4) {
        assert_eq!(rig.hear(claim), Err(Refused::Conflict));
        assert_eq!(rig.take_pe(Kind::Announce).len(), 1);
        assert_eq!(own_conflicts(&mut rig), [(B, 8000, false)]);
        rig.wait(secs(10) - millis(1));
        assert_eq!(rig.hear(claim), Err(Refused::Conflict));
        assert!(rig.take_pe(Kind::Announce).is_empty());
        rig.wait(millis(1));
    }
    assert_eq!(rig.hear(&announce(B, SHARED, &[psid("0,4,2")])), Ok(()), "no part of it");
    assert!(rig.take_sent().is_empty() && rig.engine.own_phase(OwnId::FIRST).holds());
}

/// Rule 55: a set that nobody gave is given up at the second conflict within 10 s.
#[test]
fn another_set_is_given_up() {
    let mut rig = unclaimed(false, 1);
    rig.engine.hold_own(OwnId::FIRST);
    let claim = announce(B, SHARED, &[psid("0,4,1")]);
    assert_eq!(rig.hear(&claim), Err(Refused::Conflict));
    rig.wait(secs(10));
    assert_eq!(rig.hear(&claim), Err(Refused::Conflict));
    assert!(rig.engine.own_phase(OwnId::FIRST).holds());
    rig.wait(secs(9));
    assert_eq!(rig.hear(&claim), Err(Refused::Conflict));
    assert_eq!(rig.engine.own_phase(OwnId::FIRST), ClaimPhase::Lost);
}

/// Rules 1, 41: a RESOLVE is answered if and only if the port is owned, at once and with the whole set.
#[test]
fn only_the_owner_answers() {
    let mut config = sharer(A, "6,8,0x34");
    config.own[0].records.extend([of(TCP, range(443, 443)), portless(GRE)]);
    let owned = config.own[0].records.clone();
    let mut rig = Rig::new(config);
    let any = |port| (0..=255).map(move |protocol| (protocol, Some(port)));
    let sampled = (0..=u16::MAX).step_by(7).chain([443, 1232, 1235, 1236, 64720]);
    let ports = sampled.flat_map(|port| [0, TCP, UDP].map(|protocol| (protocol, Some(port))));
    let portless = (1..=255).map(|protocol| (protocol, None));
    for (protocol, port) in ports.chain(any(1233)).chain(any(443)).chain(portless) {
        let asked = PeAddress::new(SHARED).with_port(protocol, port);
        let question = Message::resolve(ROUTER_MAC, PeAddress::new(ROUTER), asked, &[]);
        rig.hear(&question).unwrap();
        let expected = owned.iter().any(|record| record.contains(protocol, port));
        let answers = rig.take_pe(Kind::Reply);
        assert_eq!(answers.len(), usize::from(expected), "{protocol} {port:?}");
        for (_, to, answer) in answers {
            assert_eq!(to, ROUTER_MAC);
            assert_eq!(answer, reply(A, &question, &owned));
        }
    }
    rig.hear(&resolve(B, PeAddress::new(ROUTER), OTHER, 1233, &[])).unwrap();
    assert!(rig.take_sent().is_empty(), "another address");
}

/// Rule 41: the holder of a whole address answers for everything.
#[test]
fn a_whole_host_answers_for_all() {
    let mut rig = Rig::new(whole_host());
    for (protocol, port) in [(0, Some(0)), (TCP, Some(65535)), (GRE, None)] {
        let asked = PeAddress::new(OTHER).with_port(protocol, port);
        rig.hear(&Message::resolve(B, shared(SHARED), asked, &[])).unwrap();
        let answers = rig.take_pe(Kind::Reply);
        assert_eq!((answers.len(), &answers[0].2.records[..]), (1, &[full()][..]));
    }
}

/// Rule 58: RELEASE is broadcast once, of a set that was in use.
#[test]
fn a_set_is_given_back_once() {
    let mut rig = unclaimed(true, 1);
    rig.engine.release_own(OwnId::FIRST);
    rig.settle();
    assert!(rig.take_sent().is_empty());
    rig.engine.hold_own(OwnId::FIRST);
    rig.engine.release_own(OwnId::FIRST);
    rig.engine.release_own(OwnId::FIRST);
    rig.settle();
    let sent = rig.take_pe(Kind::Release);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].1, &sent[0].2), (EthernetAddress::BROADCAST, &release(A, SHARED, &[psid("0,4,1")])));
}

/// Rules 13, 41: SOLICIT-ALL of a router is answered after a random 0..1 s with {ip, 0}, once per second and asker.
#[test]
fn solicit_all_is_answered_later() {
    let mut waits = Vec::new();
    for seed in 0..30 {
        let mut rig = Rig::new(Config { seed, ..sharer(A, "0,4,1") });
        let start = rig.now;
        let question = Message::solicit_all(ROUTER_MAC, PeAddress::new(ROUTER), SHARED);
        let other = Message::solicit_all(mac(2), PeAddress::new(Ipv4Addr::new(192, 0, 2, 2)), SHARED);
        assert_eq!(rig.hear(&question), Ok(()));
        assert_eq!(rig.hear(&question), Err(Refused::Solicit), "too often");
        assert_eq!(rig.hear(&other), Ok(()), "another asker");
        rig.wait(secs(1));
        let answers = rig.take_pe(Kind::Reply);
        assert_eq!(answers.len(), 2);
        for (_, to, answer) in &answers {
            assert_eq!(answer.sender, shared(SHARED));
            assert_eq!((*to, &answer.records[..]), (answer.target_hardware, &[psid("0,4,1")][..]));
        }
        waits.extend(times(&answers, start));
        assert_eq!(rig.hear(&question), Ok(()), "a second later");
    }
    let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!(*least < 200 && (800..=1000).contains(most), "{least} to {most} ms");
}

/// Rule 41: a SOLICIT-ALL that comes within a second of the last answer is answered when the second is over.
#[test]
fn solicit_all_that_comes_too_soon_is_put_off() {
    let mut rig = Rig::new(sharer(A, "0,4,1"));
    let question = Message::solicit_all(ROUTER_MAC, PeAddress::new(ROUTER), SHARED);
    rig.hear(&question).unwrap();
    rig.wait(secs(1));
    let first = rig.take_pe(Kind::Reply);
    assert_eq!(first.len(), 1);
    assert_eq!(rig.hear(&question), Ok(()));
    assert_eq!(rig.hear(&question), Err(Refused::Solicit), "one answer is enough for both");
    rig.wait(secs(2));
    let second = rig.take_pe(Kind::Reply);
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].0 - first[0].0, secs(1));
}

/// Rule 13: SOLICIT-ALL without the router flag is dropped; for another address it is no business of ours.
#[test]
fn solicit_all_of_others() {
    let mut rig = Rig::new(sharer(A, "0,4,1"));
    let question = Message::solicit_all(B, PeAddress::new(ROUTER), SHARED);
    let of_a_host = but(question.clone(), |message| message.sender.router = false);
    assert_eq!(rig.hear(&of_a_host), Err(Refused::Solicit));
    assert_eq!(rig.hear(&Message::solicit_all(B, PeAddress::new(ROUTER), OTHER)), Ok(()));
    rig.wait(secs(2));
    assert!(rig.take_sent().is_empty());
    rig.hear(&question).unwrap();
    rig.engine.release_own(OwnId::FIRST);
    rig.settle();
    rig.wait(secs(2));
    assert!(rig.take_pe(Kind::Reply).is_empty(), "given back meanwhile");
}

/// Rule 41: the number of routers that wait for an answer is bounded.
#[test]
fn solicitors_are_bounded() {
    let mut rig = Rig::new(sharer(A, "0,4,1"));
    let ask = |n: u16| Message::solicit_all(mac(100 + n), PeAddress::new(ROUTER), SHARED);
    let taken = (0..40).filter(|n| rig.hear(&ask(*n)) == Ok(())).count();
    assert_eq!(taken, MAX_SOLICITORS);
    rig.wait(secs(1));
    assert_eq!(rig.take_pe(Kind::Reply).len(), MAX_SOLICITORS);
    // Each is remembered for a second after its answer.
    rig.wait(secs(1));
    assert_eq!(rig.hear(&ask(39)), Ok(()));
}

//! Sets that are leased: the own one, and those of others that an authority is told of.

use super::*;
use crate::wire::ESP;

/// A host whose lease of PSID 1 has 20 s left, in use.
fn leased() -> Rig {
    let config = sharer(A, "0,4,1");
    let own = OwnSet { until: Some(Instant::from_secs(1020)), ..config.own[0].clone() };
    Rig::new(Config { own: vec![own], ..config })
}

fn lifetimes(message: &Message) -> Vec<Lifetime> {
    message.records.iter().map(|record| record.lifetime).collect()
}

/// Rule 122: every record names the time that is left.
#[test]
fn messages_name_the_time_that_is_left() {
    let mut rig = leased();
    rig.wait(millis(4500));
    let question = resolve(B, PeAddress::new(ROUTER), SHARED, 5000, &[]);
    rig.hear(&question).unwrap();
    let replies = rig.take_pe(Kind::Reply);
    assert_eq!(lifetimes(&replies[0].2), [Lifetime::Seconds(15)]);
    rig.wait(millis(15_000));
    rig.hear(&question).unwrap();
    let replies = rig.take_pe(Kind::Reply);
    assert_eq!(lifetimes(&replies[0].2), [Lifetime::Seconds(1)], "a lifetime of 0 would be a withdrawal");
}

/// Rule 122: at the end of the lease the set is silent, however late the host notices.
#[test]
fn a_lease_ends_by_itself() {
    let question = resolve(B, PeAddress::new(ROUTER), SHARED, 5000, &[]);
    let probe = Message::probe(B, shared(SHARED).with_port(0, Some(4096)), &[psid("0,4,1")]);
    let mut rig = leased();
    assert_eq!(rig.engine.poll_timeout(), Some(Instant::from_secs(1020)));
    rig.wait(secs(20));
    assert!(matches!(rig.events[..], [Event::Expired { .. }]));
    assert_eq!(rig.engine.own_phase(OwnId::FIRST), ClaimPhase::Expired);
    rig.hear(&question).unwrap();
    rig.hear(&probe).unwrap();
    assert!(rig.take_sent().is_empty());
    // The process stood still for an hour: what it reads first is older than its timers.
    let mut rig = leased();
    rig.now += secs(3600);
    rig.hear(&probe).unwrap();
    rig.hear(&question).unwrap();
    assert!(rig.take_sent().is_empty());
}

/// Rule 122: a renewal is announced once; one that comes too late begins with a PROBE.
#[test]
fn a_renewal() {
    let mut rig = leased();
    rig.wait(secs(10));
    rig.engine.renew_own(OwnId::FIRST, Instant::from_secs(1030), rig.now);
    rig.settle();
    let announced = rig.take_pe(Kind::Announce);
    assert_eq!(announced.len(), 1);
    assert_eq!(lifetimes(&announced[0].2), [Lifetime::Seconds(20)]);
    rig.wait(secs(19));
    assert!(rig.take_sent().is_empty());
    rig.wait(secs(1));
    assert_eq!(rig.engine.own_phase(OwnId::FIRST), ClaimPhase::Expired);
    rig.engine.renew_own(OwnId::FIRST, Instant::from_secs(2000), rig.now);
    rig.settle();
    assert_eq!(rig.take_pe(Kind::Probe).len(), 1);
    rig.wait(secs(5));
    assert_eq!(rig.engine.own_phase(OwnId::FIRST), ClaimPhase::Held);
    rig.engine.release_own(OwnId::FIRST);
    rig.engine.renew_own(OwnId::FIRST, Instant::from_secs(3000), rig.now);
    rig.settle();
    assert_eq!(
        rig.engine.own_phase(OwnId::FIRST),
        ClaimPhase::Unclaimed,
        "what was given back is not renewed"
    );
}

/// A lease that ends while the set is probed.
#[test]
fn a_lease_too_short_to_begin() {
    let config = sharer(A, "0,4,1");
    let own = OwnSet { until: Some(Instant::from_millis(1_000_100)), ..config.own[0].clone() };
    let mut rig = Rig::unclaimed(Config { own: vec![own], ..config });
    rig.claim_own();
    rig.wait(secs(5));
    assert!(matches!(rig.events[..], [Event::Expired { .. }]));
    assert_eq!(rig.take_pe(Kind::Announce).len(), 0);
}

fn authority() -> Rig {
    Rig::new(Config { authority: true, authorities: Vec::new(), ..router() })
}

/// Rule 121: it delivers by what it was told, for as long as that stands, and asks nobody.
#[test]
fn an_authority_believes_what_it_is_told() {
    let mut rig = authority();
    rig.engine.grant(SHARED, A, &[lasting(30, psid("0,4,1"))], rig.now).unwrap();
    assert_eq!(rig.hear(&announce(B, SHARED, &[psid("0,4,1")])), Err(Refused::NotLeased));
    assert_eq!(rig.hear(&announce(B, SHARED, &[psid("0,4,2")])), Err(Refused::NotLeased));
    assert_eq!(rig.hear(&announce(A, SHARED, &[psid("0,4,1")])), Ok(()), "the owner may say so");
    assert_eq!(rig.hear(&release(A, SHARED, &[psid("0,4,1")])), Ok(()), "the server will tell");
    assert_eq!((rig.owner(5000), rig.owner(9000)), (Some(A), None));
    rig.wait(secs(29));
    assert_eq!(rig.owner(5000), Some(A));
    assert_eq!(rig.engine.entries(rig.now)[0].source, "lease");
    rig.wait(secs(1));
    assert_eq!(rig.owner(5000), None);
    assert!(rig.take_sent().is_empty());
    // Another address on the link has nothing to do with it.
    assert_eq!(rig.hear(&announce(B, OTHER, &[psid("0,4,1")])), Ok(()));
}

/// Rule 109: who has a lease claims that or a part of it; what it claims beside is counted, and changes nothing.
#[test]
fn a_lease_is_all_that_its_host_may_claim() {
    let mut rig = authority();
    rig.engine.grant(SHARED, A, &[psid("0,4,1"), portless(ESP)], rig.now).unwrap();
    for part in [psid("0,4,1"), range(4096, 8191), of(TCP, range(5000, 5010)), psid("0,8,16"), portless(ESP)]
    {
        assert_eq!(rig.hear(&announce(A, SHARED, &[part])), Ok(()), "{part:?}");
    }
    assert_eq!(rig.hear(&announce(A, SHARED, &[psid("0,4,1"), withdrawn(psid("0,4,2"))])), Ok(()));
    for more in [psid("0,4,2"), range(4096, 8192), psid("0,3,0"), full(), portless(TCP)] {
        let claim = announce(A, SHARED, &[psid("0,4,1"), more]);
        assert_eq!(rig.hear(&claim), Err(Refused::NotLeased), "{more:?}");
    }
    assert_eq!((rig.owner(5000), rig.owner(9000)), (Some(A), None));
}

/// Leases of a host replace each other; none are left with an empty list.
#[test]
fn leases_are_granted_anew_and_taken_back() {
    let mut rig = authority();
    rig.engine.grant(SHARED, A, &[psid("0,4,1"), psid("0,4,2")], rig.now).unwrap();
    rig.engine.grant(SHARED, A, &[psid("0,4,2")], rig.now).unwrap();
    assert_eq!((rig.owner(5000), rig.owner(9000)), (None, Some(A)));
    rig.engine.grant(SHARED, A, &[withdrawn(psid("0,4,2"))], rig.now).unwrap();
    assert_eq!(rig.owner(9000), None);
    rig.engine.grant(SHARED, A, &[psid("0,4,2")], rig.now).unwrap();
    rig.engine.grant(SHARED, A, &[], rig.now).unwrap();
    assert!(rig.engine.entries(rig.now).is_empty());
    rig.engine.insert_static(SHARED, A, &[psid("0,4,3")], rig.now).unwrap();
    rig.engine.grant(SHARED, A, &[], rig.now).unwrap();
    assert_eq!(rig.owner(12_288), Some(A), "what is configured is no lease");
    let elsewhere = Ipv4Addr::new(203, 0, 113, 1);
    assert_eq!(rig.engine.grant(elsewhere, A, &[full()], rig.now), Err(Refused::OffLink));
}

/// Rule 121: what nobody owns is answered with the PSID that it belongs to, or, where that has an owner, alone.
#[test]
fn an_authority_names_the_gap() {
    let mut rig = authority();
    rig.engine.grant(SHARED, A, &[psid("0,4,1"), of(TCP, range(9000, 9000))], rig.now).unwrap();
    let gap = |rig: &mut Rig, protocol, port| {
        let asked = PeAddress::new(SHARED).with_port(protocol, port);
        rig.hear(&Message::resolve(B, shared(SHARED), asked, &[])).unwrap();
        let mut naks = rig.take_pe(Kind::Nak);
        naks.pop().map(|(_, to, nak)| {
            assert_eq!((to, nak.authority, nak.sender), (B, true, shared(SHARED).with_port(protocol, port)));
            nak.records
        })
    };
    let minute = |record| vec![lasting(60, record)];
    assert_eq!(gap(&mut rig, TCP, Some(5000)), None, "the owner answers");
    assert_eq!(gap(&mut rig, TCP, Some(12_288)), Some(minute(psid("0,4,3"))));
    assert_eq!(gap(&mut rig, UDP, Some(9000)), Some(minute(of(UDP, range(9000, 9000)))), "TCP has an owner");
    assert_eq!(gap(&mut rig, TCP, Some(9001)), Some(minute(of(TCP, range(9001, 9001)))));
    assert_eq!(gap(&mut rig, TCP, Some(9000)), None);
    assert_eq!(gap(&mut rig, GRE, None), Some(minute(portless(GRE))));
    let elsewhere = PeAddress::new(OTHER).with_port(TCP, Some(80));
    rig.hear(&Message::resolve(B, shared(SHARED), elsewhere, &[])).unwrap();
    assert!(rig.take_sent().is_empty(), "it is told nothing of whole addresses");
}

/// Rule 121: an authority does not ask for what it would not believe.
#[test]
fn an_authority_asks_nobody() {
    let mut rig = authority();
    assert_eq!(rig.enqueue(tcp(SHARED, 5000), packet(1)), Err(Refused::NoOwner));
    assert!(rig.take_sent().is_empty());
    assert_eq!(rig.enqueue(tcp(OTHER, 5000), packet(2)), Ok(()));
}

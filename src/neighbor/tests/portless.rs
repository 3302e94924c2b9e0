//! What has no port: owners by protocol, and the residual owner (rules 15, 31, 34, 51, 66, 125, 126).

use super::*;
use crate::wire::pe_arp::{DEFAULT_PRO, Packet};

const ESP: u8 = 50;

fn residual() -> Record {
    Record::new(Claim::RESIDUAL, Lifetime::Unknown)
}

fn without_port(protocol: u8) -> Target {
    Target { ip: SHARED, protocol, port: None }
}

/// Who gets what of GRE and ESP.
fn owners(rig: &mut Rig) -> [Option<EthernetAddress>; 2] {
    [GRE, ESP].map(|protocol| rig.next_hop(without_port(protocol)))
}

/// A host with PSID 1 of SHARED that owns this, too, in use.
fn owner(more: &[Record]) -> Config {
    let mut config = sharer(A, "0,4,1");
    config.own[0].records.extend(more);
    config
}

/// The question of the router, who has asked nothing, for a portless protocol.
fn question(protocol: u8) -> Message {
    let asked = shared(SHARED).with_port(protocol, None);
    Message::resolve(ROUTER_MAC, PeAddress::new(ROUTER), asked, &[])
}

/// Makes the engine ask for a portless protocol and gives the question.
fn ask(rig: &mut Rig, protocol: u8) -> Message {
    rig.sent.clear();
    assert_eq!(rig.enqueue(without_port(protocol), packet(u32::from(protocol))), Ok(()));
    let mut asked = rig.take_pe(Kind::Resolve);
    assert_eq!(asked.len(), 1, "one question: {asked:?}");
    asked.remove(0).2
}

/// As it is on the wire.
fn sent(message: &Message) -> Message {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut Packet::new_unchecked(&mut bytes[..]), DEFAULT_PRO);
    Message::parse(&Packet::new_checked(&bytes[..], DEFAULT_PRO).unwrap()).unwrap()
}

/// Rule 125: every message of a residual owner says so in its own PE address, a PROBE in that which it is about, and none
/// by a record; an ANNOUNCE stays one.
#[test]
fn every_message_has_the_flag() {
    let mut rig = Rig::unclaimed(owner(&[portless(GRE), residual()]));
    let start = rig.now;
    rig.claim_own();
    rig.wait(secs(3));
    rig.hear(&question(ESP)).unwrap();
    rig.hear(&Message::probe(B, shared(SHARED).with_port(0, Some(5000)), &[range(5000, 5000)])).unwrap();
    rig.enqueue(tcp(OTHER, 80), packet(1)).unwrap();
    rig.engine.release_own(OwnId::FIRST);
    rig.settle();
    let messages = rig.take_sent().into_iter().filter_map(|(at, output)| match output {
        Output::Pe { message, .. } => Some((at, message)),
        Output::Arp { .. } => None,
    });
    let messages: Vec<_> = messages.collect();
    let kinds: Vec<_> = messages.iter().map(|(_, message)| message.kind()).collect();
    use Kind::{Announce, Conflict, Probe, Release, Reply, Resolve};
    assert_eq!(kinds, [Probe, Announce, Announce, Reply, Conflict, Resolve, Release]);
    for (at, message) in messages {
        assert_eq!(sent(&message), message);
        let kind = message.kind();
        assert_eq!(message.sender.residual, kind != Probe, "{kind:?}");
        let target = matches!(kind, Probe | Announce | Release);
        assert_eq!(message.target.residual, target, "{kind:?}");
        let claims: Vec<_> = message.records.iter().map(|record| record.claim).collect();
        assert_eq!(claims, [psid("0,4,1").claim, portless(GRE).claim], "{kind:?}");
        assert_eq!(message.claimed().last().map(|record| record.claim), Some(Claim::RESIDUAL), "{kind:?}");
        assert!(at >= start);
    }
}

/// Rules 56 and 125: of a set that is not in use nothing is said but its PROBE, and a RELEASE gives back what it names.
#[test]
fn the_flag_belongs_to_a_set() {
    let mut rig = Rig::new(sharer(A, "0,4,1"));
    let more = OwnSet { records: vec![psid("0,4,2"), residual()], ..sharer(A, "0,4,2").own[0].clone() };
    let more = rig.engine.add_own(more);
    rig.engine.claim_own(more, rig.now);
    rig.wait(millis(1));
    let probes = rig.take_pe(Kind::Probe);
    assert!(probes[0].2.target.residual);
    rig.hear(&question(GRE)).unwrap();
    rig.hear(&resolve(B, PeAddress::new(ROUTER), SHARED, 5000, &[])).unwrap();
    let replies = rig.take_pe(Kind::Reply);
    assert_eq!(replies.len(), 1, "for the port alone");
    assert!(!replies[0].2.sender.residual && !rig.engine.owns(SHARED, GRE, None));
    rig.wait(secs(3));
    rig.sent.clear();
    rig.engine.remove_own(OwnId::FIRST);
    rig.settle();
    let released = rig.take_pe(Kind::Release);
    assert!(!released[0].2.sender.residual, "it is of the set that stays");
    assert!(rig.engine.owns(SHARED, GRE, None));
    rig.engine.remove_own(more);
    rig.settle();
    assert!(rig.take_pe(Kind::Release)[0].2.sender.residual);
    assert!(!rig.engine.owns(SHARED, GRE, None));
}

/// Rules 2, 20, 25 and 125: what is learned with the flag, and what ends it.
#[test]
fn the_flag_is_learned_as_a_record() {
    let set = [psid("0,4,1"), residual()];
    let own = PeAddress { residual: true, ..shared(SHARED) };
    for case in 0..4 {
        let mut rig = Rig::new(router());
        let (learned, message) = match case {
            0 => (true, announce(A, SHARED, &set)),
            1 => (true, resolve(A, shared(SHARED), ROUTER, 1, &set)),
            2 => (true, resolve(A, own, ROUTER, 1, &[])),
            _ => (false, but(Message::solicit_all(A, own, ROUTER), |message| message.sender.router = true)),
        };
        rig.hear(&message).unwrap();
        let expected = [learned.then_some(A); 2];
        assert_eq!(owners(&mut rig), expected, "{case}");
        // Without COMPLETE nothing is taken back.
        rig.hear(&resolve(A, shared(SHARED), ROUTER, 1, &[psid("0,4,2")])).unwrap();
        rig.hear(&release(A, SHARED, &[psid("0,4,2")])).unwrap();
        assert_eq!(owners(&mut rig), expected, "{case}");
        let ends = [
            announce(A, SHARED, &[psid("0,4,1")]),
            announce(A, SHARED, &[]),
            release(A, SHARED, &[residual()]),
            resolve(A, shared(SHARED), ROUTER, 1, &[withdrawn(full())]),
        ];
        rig.hear(&ends[case]).unwrap();
        assert_eq!(owners(&mut rig), [None; 2], "{case}");
    }
    let mut rig = Rig::new(router());
    rig.hear(&Message::probe(A, shared(SHARED).with_port(0, Some(4096)), &set)).unwrap();
    assert_eq!(owners(&mut rig), [None; 2]);
}

/// Rules 23 and 125: a set of nothing else has no records, and is one all the same.
#[test]
fn residual_ownership_alone() {
    let mut rig = Rig::new(router());
    rig.hear(&announce(A, SHARED, &[psid("0,4,1")])).unwrap();
    let alone = announce(A, SHARED, &[residual()]);
    assert!(alone.records.is_empty());
    rig.hear(&alone).unwrap();
    assert_eq!((owners(&mut rig), rig.owner(5000)), ([Some(A); 2], None));
    rig.wait(DELAY_FIRST_PROBE_TIME);
    let asked = rig.take_pe(Kind::Resolve);
    // Rule 34: nobody has this protocol by name.
    assert_eq!((asked[0].1, asked[0].2.target), (A, shared(SHARED).with_port(255, None)));
    assert_eq!(rig.hear(&reply(A, &asked[0].2, &[residual()])), Ok(()));
    assert_eq!(rig.state_of(A), Some("reachable"));
}

/// Rule 125: the flag lasts as long as the record that ends first.
#[test]
fn the_flag_ends_with_the_first_record() {
    let mut rig = Rig::new(router());
    let set = [lasting(20, psid("0,4,1")), lasting(10, portless(GRE)), psid("0,4,2"), residual()];
    rig.hear(&announce(A, SHARED, &set)).unwrap();
    rig.wait(millis(9_999));
    assert_eq!(owners(&mut rig), [Some(A); 2]);
    rig.wait(millis(1));
    assert_eq!((owners(&mut rig), rig.owner(5000)), ([None; 2], Some(A)));
    rig.hear(&announce(A, SHARED, &[psid("0,4,1"), residual()])).unwrap();
    rig.wait(secs(1000));
    assert_eq!(owners(&mut rig), [Some(A); 2], "no record ends");
}

/// Rule 15: what contains a portless protocol, and what does not.
#[test]
fn an_answer_contains_the_asked_protocol() {
    let good: [&[Record]; 4] = [&[portless(GRE)], &[full()], &[residual()], &[psid("0,4,1"), residual()]];
    for records in good {
        let mut rig = Rig::new(router());
        let question = ask(&mut rig, GRE);
        assert_eq!(rig.hear(&reply(A, &question, records)), Ok(()), "{records:?}");
        assert_eq!(rig.take_ends(), [(GRE.into(), Ok(A))], "{records:?}");
    }
    let bad: [&[Record]; 4] = [&[portless(ESP)], &[psid("0,4,1")], &[range(0, 65535)], &[]];
    for records in bad {
        let mut rig = Rig::new(router());
        let question = ask(&mut rig, GRE);
        assert_eq!(rig.hear(&reply(A, &question, records)), Err(Refused::WithoutAsked), "{records:?}");
    }
    let mut rig = Rig::new(router());
    let question = rig.ask(SHARED, 5000);
    assert_eq!(rig.hear(&reply(A, &question, &[residual()])), Err(Refused::WithoutAsked), "a port is none");
}

/// Rule 125: a PORTLESS record of protocol 0 says nothing.
#[test]
fn a_record_of_protocol_0_is_ignored() {
    let any = |message: Message| but(message, |message| message.records.push(portless(0)));
    let mut rig = Rig::new(router());
    assert_eq!(rig.hear(&sent(&any(announce(A, SHARED, &[psid("0,4,1")])))), Ok(()));
    assert_eq!((owners(&mut rig), rig.owner(5000)), ([None; 2], Some(A)));
    let alone = but(any(announce(A, SHARED, &[])), |message| message.complete = false);
    assert_eq!(rig.hear(&alone), Err(Refused::NoRecords));
    let asked = ask(&mut rig, GRE);
    assert_eq!(rig.hear(&any(reply(B, &asked, &[]))), Err(Refused::WithoutAsked));
    let mut rig = Rig::new(owner(&[residual()]));
    assert_eq!(rig.hear(&any(announce(B, SHARED, &[psid("0,4,2")]))), Ok(()), "no claim to what is owned");
    assert!(rig.take_sent().is_empty());
}

/// Rules 31 and 66: by protocol first, whoever says so; then the residual owner; then nobody.
#[test]
fn an_owner_by_protocol_precedes() {
    for given in [false, true] {
        let mut rig = Rig::new(router());
        if given {
            rig.engine.insert_static(SHARED, A, &[psid("0,4,1"), residual()], rig.now).unwrap();
        } else {
            rig.confirm(A, SHARED, &[psid("0,4,1"), residual()]);
        }
        assert_eq!(owners(&mut rig), [Some(A); 2]);
        rig.hear(&announce(B, SHARED, &[portless(GRE)])).unwrap();
        assert_eq!(owners(&mut rig), [Some(B), Some(A)], "{given}");
        rig.hear(&release(B, SHARED, &[portless(GRE)])).unwrap();
        assert_eq!(owners(&mut rig), [Some(A); 2], "{given}");
        // Of two by protocol, the one that was given.
        rig.engine.insert_static(SHARED, C, &[portless(GRE)], rig.now).unwrap();
        rig.hear(&announce(B, SHARED, &[portless(GRE)])).unwrap();
        assert_eq!(owners(&mut rig), [Some(C), Some(A)], "{given}");
    }
    let mut rig = Rig::new(router());
    rig.hear(&announce(B, SHARED, &[portless(GRE)])).unwrap();
    assert_eq!(owners(&mut rig), [Some(B), None]);
}

/// Rule 51: residual owners conflict with each other and with a whole address, and not with owners by protocol.
#[test]
fn residual_owners_conflict() {
    for (claim, disputed) in
        [(residual(), true), (full(), true), (portless(GRE), false), (range(1, 9), false)]
    {
        let mut rig = Rig::new(router());
        rig.confirm(A, SHARED, &[psid("0,4,1"), residual()]);
        rig.hear(&announce(B, SHARED, &[claim])).unwrap();
        let conflicts = rig.events.iter().filter(|event| matches!(event, Event::Conflict { .. })).count();
        assert_eq!(conflicts, usize::from(disputed), "{claim:?}");
        let asked = rig.take_pe(Kind::Resolve);
        assert_eq!(asked.len(), usize::from(disputed), "{claim:?}");
        assert_eq!(rig.next_hop(without_port(ESP)), Some(A), "{claim:?}");
    }
    // Rule 53: the first disputed thing is what is asked for; an incumbent that is silent is replaced.
    let mut rig = Rig::new(router());
    rig.confirm(A, SHARED, &[psid("0,4,1"), residual()]);
    rig.hear(&announce(B, SHARED, &[residual()])).unwrap();
    let asked = rig.take_pe(Kind::Resolve).remove(0);
    assert_eq!((asked.1, asked.2.target), (A, shared(SHARED).with_port(255, None)));
    rig.hear(&reply(A, &asked.2, &[psid("0,4,1"), residual()])).unwrap();
    rig.wait(secs(4));
    assert_eq!(owners(&mut rig), [Some(A); 2], "it confirms");
    rig.wait(secs(7));
    rig.confirm(A, SHARED, &[psid("0,4,1"), residual()]);
    rig.hear(&announce(B, SHARED, &[residual()])).unwrap();
    rig.wait(secs(3));
    assert_eq!((owners(&mut rig), rig.owner(5000)), ([Some(B); 2], None));
}

/// Rules 54 and 55: residual ownership is probed and defended as ports are.
#[test]
fn residual_ownership_is_defended() {
    let mut rig = Rig::new(owner(&[residual()]));
    let probe = |claim| Message::probe(B, shared(SHARED).with_port(0, first_port(&[claim])), &[claim]);
    rig.hear(&probe(residual())).unwrap();
    let conflicts = rig.take_pe(Kind::Conflict);
    assert_eq!((conflicts.len(), conflicts[0].1), (1, B));
    assert!(conflicts[0].2.sender.residual);
    rig.hear(&probe(portless(GRE))).unwrap();
    assert!(rig.take_sent().is_empty(), "one may own a protocol beside it");
    assert_eq!(rig.hear(&announce(B, SHARED, &[psid("0,4,2"), residual()])), Err(Refused::Conflict));
    assert_eq!(rig.take_pe(Kind::Announce).len(), 1);
    assert_eq!(rig.owner(9000), Some(B), "the rest of the claim");
    // Rule 57: the objection to a probe.
    let mut prober = Rig::unclaimed(owner(&[residual()]));
    prober.claim_own();
    let objection = Message::conflict(B, shared(SHARED).with_port(0, Some(0)), A, &[psid("0,4,2")]);
    assert_eq!(prober.hear(&objection), Err(Refused::Unsolicited), "it has neither");
    let objection =
        Message::conflict(B, shared(SHARED).with_port(0, Some(0)), A, &[psid("0,4,2"), residual()]);
    assert_eq!(prober.hear(&objection), Ok(()));
    assert_eq!(prober.engine.own_phase(OwnId::FIRST), ClaimPhase::Lost);
}

/// Rules 1, 41: both the owner by protocol and the residual owner answer.
#[test]
fn owners_of_what_has_no_port_answer() {
    for (own, answered) in [
        (&[][..], [false, false]),
        (&[portless(GRE)], [true, false]),
        (&[residual()], [true, true]),
        (&[portless(ESP), residual()], [true, true]),
    ] {
        let mut rig = Rig::new(owner(own));
        for (protocol, answered) in [GRE, ESP].into_iter().zip(answered) {
            rig.hear(&question(protocol)).unwrap();
            let answers = rig.take_pe(Kind::Reply);
            assert_eq!(answers.len(), usize::from(answered), "{protocol} of {own:?}");
            for (_, _, answer) in answers {
                let named = answer.records.iter().any(|record| record.claim == Claim::Portless(protocol));
                assert!(named || answer.sender.residual);
            }
        }
    }
}

/// Rule 41: the residual owner is the faster one; what the owner by protocol says later stands.
#[test]
fn the_slower_answer_of_an_owner_by_protocol_is_taken() {
    let mut rig = Rig::new(router());
    let question = ask(&mut rig, GRE);
    assert_eq!(rig.hear(&reply(A, &question, &[psid("0,4,1"), residual()])), Ok(()));
    assert_eq!(owners(&mut rig), [Some(A); 2]);
    rig.wait(secs(2));
    assert_eq!(rig.hear(&reply(B, &question, &[psid("0,4,2"), portless(GRE)])), Ok(()));
    assert_eq!(owners(&mut rig), [Some(B), Some(A)]);
    rig.wait(millis(1));
    assert_eq!(rig.hear(&reply(C, &question, &[portless(GRE)])), Err(Refused::Unsolicited));
    // An owner by protocol leaves nothing to be waited for.
    let question = ask(&mut Rig::new(router()), GRE);
    let mut rig = Rig::new(router());
    ask(&mut rig, GRE);
    rig.hear(&reply(B, &question, &[portless(GRE), residual()])).unwrap();
    assert_eq!(rig.hear(&reply(C, &question, &[portless(GRE)])), Err(Refused::Unsolicited));
}

/// Rule 44: whoever owns all that nobody owns ends every negative about what has no port.
#[test]
fn a_residual_owner_ends_negatives() {
    let mut rig = Rig::new(router());
    ask(&mut rig, GRE);
    rig.wait(secs(3));
    assert_eq!(rig.enqueue(without_port(GRE), packet(0)), Err(Refused::Unreachable));
    let asked = ask(&mut rig, ESP);
    let gap = lasting(60, portless(ESP));
    let nak = Message::nak(AUTHORITY, asked.target, ROUTER_MAC, asked.sender, gap);
    rig.hear(&nak).unwrap();
    assert_eq!(rig.enqueue(without_port(ESP), packet(0)), Err(Refused::NoOwner));
    rig.hear(&announce(B, SHARED, &[portless(51)])).unwrap();
    assert_eq!(rig.enqueue(without_port(GRE), packet(0)), Err(Refused::Unreachable), "another protocol");
    rig.hear(&announce(A, SHARED, &[residual()])).unwrap();
    assert_eq!(owners(&mut rig), [Some(A); 2]);
    rig.hear(&release(A, SHARED, &[residual()])).unwrap();
    for protocol in [GRE, ESP] {
        ask(&mut rig, protocol);
    }
}

/// Rule 66: protocol 0 is nobody's by name, and the question for it must not ask every owner.
#[test]
fn protocol_0_is_the_residual_owners() {
    let mut rig = Rig::new(router());
    let question = ask(&mut rig, 0);
    assert_eq!(question.target, shared(SHARED).with_port(255, None));
    assert_eq!(rig.hear(&reply(B, &question, &[portless(GRE)])), Err(Refused::WithoutAsked));
    assert_eq!(rig.hear(&reply(A, &question, &[residual()])), Ok(()));
    assert_eq!(rig.take_ends(), [(0, Ok(A))]);
    assert_eq!(rig.next_hop(without_port(0)), Some(A));
}

/// Rules 36 and 121: an authority knows of each portless protocol whether it has an owner.
#[test]
fn an_authority_knows_what_has_no_port() {
    let mut rig = Rig::new(Config { authority: true, ..router() });
    let naks = |rig: &mut Rig| {
        [GRE, ESP].map(|protocol| {
            let asked = shared(SHARED).with_port(protocol, None);
            rig.hear(&Message::resolve(B, shared(SHARED), asked, &[])).unwrap();
            rig.take_pe(Kind::Nak).pop().map(|(_, _, nak)| nak.records)
        })
    };
    let gap = |protocol| Some(vec![lasting(60, portless(protocol))]);
    assert_eq!(naks(&mut rig), [gap(GRE), gap(ESP)]);
    rig.engine.grant(SHARED, A, &[psid("0,4,1"), portless(GRE)], rig.now).unwrap();
    assert_eq!(naks(&mut rig), [None, gap(ESP)]);
    assert_eq!(rig.enqueue(without_port(ESP), packet(1)), Err(Refused::NoOwner));
    rig.engine.grant(SHARED, C, &[lasting(10, psid("0,4,2")), lasting(10, residual())], rig.now).unwrap();
    assert_eq!((naks(&mut rig), owners(&mut rig)), ([None, None], [Some(A), Some(C)]));
    assert_eq!(rig.hear(&announce(B, SHARED, &[portless(ESP)])), Err(Refused::NotLeased));
    rig.wait(secs(10));
    assert_eq!(naks(&mut rig), [None, gap(ESP)], "the lease is over");
}

/// Rule 126: an own set that has other records is announced once, and no longer with what it does not have.
#[test]
fn a_set_with_other_records_is_announced() {
    let mut config = owner(&[portless(GRE)]);
    config.own[0].until = Some(Instant::from_secs(1020));
    let mut rig = Rig::new(config);
    for (records, flag) in [(vec![psid("0,4,1"), residual()], true), (vec![psid("0,4,1")], false)] {
        rig.sent.clear();
        rig.engine.change_own(OwnId::FIRST, records.clone(), Instant::from_secs(1100), rig.now);
        rig.settle();
        rig.wait(secs(5));
        let announced = rig.take_pe(Kind::Announce);
        assert_eq!(announced.len(), 1);
        let claims: Vec<_> = announced[0].2.claimed().iter().map(|record| record.claim).collect();
        assert_eq!(claims, records.iter().map(|record| record.claim).collect::<Vec<_>>());
        assert_eq!(announced[0].2.sender.residual, flag);
        assert_eq!([GRE, ESP].map(|protocol| rig.engine.owns(SHARED, protocol, None)), [flag; 2]);
    }
    assert!(rig.engine.own_phase(OwnId::FIRST).holds(), "the lease was renewed");
    rig.wait(secs(100));
    assert_eq!(rig.engine.own_phase(OwnId::FIRST), ClaimPhase::Expired);
}

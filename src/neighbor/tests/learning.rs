//! What is learned from which message: rules 14 to 29 and 43.

use super::*;

/// Rule 20: a solicited REPLY binds the whole set, REACHABLE; its packets leave.
#[test]
fn a_solicited_reply_binds() {
    let mut rig = Rig::new(router());
    let question = rig.ask(SHARED, 5000);
    assert_eq!(rig.hear(&reply(A, &question, &[psid("0,4,1")])), Ok(()));
    assert_eq!(rig.take_ends(), [(5000, Ok(A))]);
    assert_eq!(rig.state_of(A), Some("reachable"));
    assert_eq!([4095, 4096, 8191, 8192].map(|port| rig.owner(port)), [None, Some(A), Some(A), None]);
}

/// Rule 20: a REPLY to nothing, to another block, or to a question that is answered or over is dropped.
#[test]
fn an_unsolicited_reply_is_dropped() {
    let mut rig = Rig::new(router());
    let question = rig.ask(SHARED, 5000);
    let mut other_block = question.clone();
    other_block.target.port = Some(9000);
    assert_eq!(rig.hear(&reply(B, &other_block, &[psid("0,4,2")])), Err(Refused::Unsolicited));
    assert_eq!(rig.hear(&reply(A, &question, &[psid("0,4,1")])), Ok(()));
    assert_eq!(rig.hear(&reply(B, &question, &[psid("0,4,1")])), Err(Refused::Unsolicited));
    assert_eq!(rig.owner(5000), Some(A));
    let late = rig.ask(SHARED, 13000);
    rig.wait(secs(3));
    assert_eq!(rig.hear(&reply(B, &late, &[psid("0,4,3")])), Err(Refused::Unsolicited));
    assert_eq!(rig.state_of(B), None);
}

/// Rules 14, 15: for us, and with the asked port in its protocol.
#[test]
fn a_reply_that_answers_something_else_is_dropped() {
    let mut rig = Rig::new(router());
    let question = rig.ask(SHARED, 5000);
    let mut stray = reply(A, &question, &[psid("0,4,1")]);
    stray.target_hardware = C;
    assert_eq!(rig.hear(&stray), Err(Refused::NotForUs));
    for records in [&[psid("0,4,2")][..], &[of(UDP, psid("0,4,1"))], &[portless(TCP)], &[]] {
        assert_eq!(rig.hear(&reply(A, &question, records)), Err(Refused::WithoutAsked), "{records:?}");
    }
    assert_eq!(rig.state_of(A), None);
    assert_eq!(rig.hear(&reply(A, &question, &[full()])), Ok(()), "FULL holds every port");
}

/// Rules 9, 10: senders that cannot be.
#[test]
fn impossible_senders_are_dropped() {
    let mut rig = Rig::new(router());
    let good = announce(A, SHARED, &[psid("0,4,1")]);
    let now = rig.now;
    assert_eq!(rig.engine.handle_pe(B, &good, now), Err(Refused::SenderMismatch));
    assert_eq!(rig.engine.handle_pe(ROUTER_MAC, &good, now), Err(Refused::OwnEcho));
    for bad in [EthernetAddress::BROADCAST, EthernetAddress([0; 6]), EthernetAddress([3, 0, 0, 0, 0, 1])] {
        let message = announce(bad, SHARED, &[psid("0,4,1")]);
        assert_eq!(rig.hear(&message), Err(Refused::SenderMismatch));
    }
    for bad in [Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)] {
        assert_eq!(rig.hear(&announce(A, bad, &[range(1, 9)])), Err(Refused::BadAddress));
        let question = resolve(A, PeAddress::new(bad), ROUTER, 80, &[]);
        assert_eq!(rig.hear(&question), Err(Refused::BadAddress));
    }
    assert!(rig.take_sent().is_empty(), "rule 19: no answer");
    assert!(rig.engine.entries(now).is_empty());
}

/// Rule 21: claims to addresses of other links are not learned, and their senders are answered all the same.
#[test]
fn nothing_is_learned_off_the_prefix() {
    let mut rig = Rig::new(router());
    let far = Ipv4Addr::new(198, 51, 100, 7);
    assert_eq!(rig.hear(&announce(A, far, &[range(1, 9)])), Err(Refused::OffLink));
    assert_eq!(rig.hear(&resolve(A, shared(far), ROUTER, 80, &[range(1, 9)])), Err(Refused::OffLink));
    assert_eq!(rig.take_pe(Kind::Reply).len(), 1);
    assert_eq!(rig.next_hop(tcp(far, 5)), None);
}

/// Rules 20, 41: answers to SOLICIT-ALL are welcome for 2 s, each for a whole set.
#[test]
fn answers_to_solicit_all_bind() {
    let mut rig = Rig::new(router());
    rig.engine.solicit_all(SHARED, rig.now);
    rig.settle();
    let question = rig.take_pe(Kind::SolicitAll).remove(0).2;
    assert!(question.sender.router && question.records.is_empty());
    rig.wait(secs(2));
    assert_eq!(rig.hear(&reply(A, &question, &[psid("0,4,1")])), Ok(()));
    assert_eq!(rig.hear(&reply(B, &question, &[portless(GRE), psid("0,4,2")])), Ok(()));
    rig.wait(millis(1));
    assert_eq!(rig.hear(&reply(C, &question, &[psid("0,4,3")])), Err(Refused::Unsolicited));
    assert_eq!([5000, 9000, 13000].map(|port| rig.owner(port)), [Some(A), Some(B), None]);
    assert_eq!(rig.next_hop(Target { ip: SHARED, protocol: GRE, port: None }), Some(B));
}

/// Rule 47: SOLICIT-ALL goes out once per second and address.
#[test]
fn solicit_all_is_limited() {
    let mut rig = Rig::new(router());
    for ip in [SHARED, SHARED, OTHER] {
        rig.engine.solicit_all(ip, rig.now);
        rig.settle();
    }
    assert_eq!(rig.take_pe(Kind::SolicitAll).len(), 2);
    rig.wait(secs(1));
    rig.engine.solicit_all(SHARED, rig.now);
    rig.settle();
    assert_eq!(rig.take_pe(Kind::SolicitAll).len(), 1);
}

/// Rules 20, 22: a RESOLVE with records binds at a router always, at a host where it is the target.
#[test]
fn a_question_tells_of_its_asker() {
    let own = [psid("0,4,1")];
    let mut rig = Rig::new(router());
    assert_eq!(rig.hear(&resolve(A, shared(SHARED), OTHER, 80, &own)), Ok(()));
    assert_eq!((rig.owner(5000), rig.take_pe(Kind::Reply).len()), (Some(A), 0));
    let mut host = Rig::new(Config { hardware: C, ..whole_host() });
    assert_eq!(host.hear(&resolve(A, shared(SHARED), ROUTER, 80, &own)), Ok(()));
    assert_eq!(host.owner(5000), None, "the question was not for this host");
    assert_eq!(host.hear(&resolve(A, shared(SHARED), OTHER, 80, &own)), Ok(()));
    assert_eq!((host.state_of(A), host.owner(5000)), (Some("stale"), Some(A)));
}

/// Rule 2, 23: COMPLETE replaces what {IP, MAC} had, and only that; without it a message adds.
#[test]
fn complete_replaces_and_else_records_add_up() {
    let mut rig = Rig::new(router());
    let held = |rig: &mut Rig| [10, 20, 30].map(|port| rig.owner(port));
    rig.hear(&announce(B, SHARED, &[range(30, 39)])).unwrap();
    rig.hear(&announce(A, SHARED, &[range(10, 19)])).unwrap();
    rig.hear(&resolve(A, shared(SHARED), ROUTER, 1, &[range(20, 29)])).unwrap();
    assert_eq!(held(&mut rig), [Some(A), Some(A), Some(B)]);
    rig.hear(&announce(A, SHARED, &[range(20, 29)])).unwrap();
    assert_eq!(held(&mut rig), [None, Some(A), Some(B)]);
    rig.hear(&announce(A, SHARED, &[])).unwrap();
    assert_eq!(held(&mut rig), [None, None, Some(B)], "complete, and nothing in it");
}

/// Rule 24: lifetime 0 withdraws what the record names.
#[test]
fn a_withdrawn_record_is_gone() {
    let mut rig = Rig::new(router());
    rig.hear(&announce(A, SHARED, &[range(10, 19), range(20, 29)])).unwrap();
    rig.hear(&resolve(A, shared(SHARED), ROUTER, 1, &[withdrawn(range(10, 19))])).unwrap();
    assert_eq!([10, 20].map(|port| rig.owner(port)), [None, Some(A)]);
    rig.hear(&resolve(A, shared(SHARED), ROUTER, 1, &[withdrawn(range(0, 99))])).unwrap();
    assert_eq!(rig.state_of(A), None, "with the last record the binding ends");
}

/// Rule 24: each record ends by itself, in any state; hearing another one does not prolong it.
#[test]
fn lifetimes_end_one_by_one() {
    let mut rig = Rig::new(router());
    rig.confirm(A, SHARED, &[lasting(10, range(10, 19)), range(20, 29)]);
    rig.wait(secs(6));
    rig.hear(&resolve(A, shared(SHARED), ROUTER, 1, &[lasting(100, range(30, 39))])).unwrap();
    rig.wait(millis(3999));
    assert_eq!([10, 20, 30].map(|port| rig.owner(port)), [Some(A); 3]);
    rig.wait(millis(1));
    assert_eq!([10, 20, 30].map(|port| rig.owner(port)), [None, Some(A), Some(A)]);
    rig.hear(&announce(A, SHARED, &[lasting(1, range(20, 29))])).unwrap();
    rig.wait(secs(1));
    assert_eq!(rig.state_of(A), None);
}

/// Rule 24: the same set with another lifetime is the same set; its time begins anew.
#[test]
fn a_lifetime_is_renewed() {
    let mut rig = Rig::new(router());
    rig.confirm(A, SHARED, &[lasting(10, range(10, 19))]);
    rig.wait(secs(8));
    rig.hear(&announce(A, SHARED, &[lasting(9, range(10, 19))])).unwrap();
    assert_eq!(rig.state_of(A), Some("reachable"), "rule 20: state unchanged");
    rig.wait(secs(8));
    assert_eq!(rig.owner(10), Some(A));
    rig.wait(secs(1));
    assert_eq!(rig.owner(10), None);
}

/// Rule 25: RELEASE takes what it names from its sender, whatever the lifetime field says, and nothing else.
#[test]
fn release_takes_what_it_names() {
    let mut rig = Rig::new(router());
    let given_back = but(release(A, SHARED, &[psid("0,4,1")]), |message| {
        message.records = vec![lasting(50, psid("0,4,1"))]
    });
    rig.hear(&announce(A, SHARED, &[psid("0,4,1"), psid("0,4,2")])).unwrap();
    rig.hear(&announce(A, OTHER, &[psid("0,4,1")])).unwrap();
    rig.hear(&announce(B, SHARED, &[of(UDP, psid("0,4,3"))])).unwrap();
    assert_eq!(rig.hear(&release(B, SHARED, &[psid("0,4,1")])), Ok(()), "not the sender's");
    assert_eq!(rig.owner(5000), Some(A));
    assert_eq!(rig.hear(&given_back), Ok(()));
    assert_eq!([5000, 9000].map(|port| rig.owner(port)), [None, Some(A)]);
    assert_eq!(rig.next_hop(tcp(OTHER, 5000)), Some(A));
    rig.hear(&release(B, SHARED, &[of(TCP, psid("0,4,3"))])).unwrap();
    assert!(rig.state_of(B).is_some(), "another protocol");
    rig.hear(&release(B, SHARED, &[full()])).unwrap();
    assert_eq!(rig.state_of(B), None);
}

fn nak(host: EthernetAddress, question: &Message, gap: Record) -> Message {
    let asked = shared(question.target.ip).with_port(question.target.protocol, question.target.port);
    let (to, sender) = (question.sender_hardware, question.sender);
    let message = Message::nak(host, asked, to, sender, Record::new(Claim::Full, Lifetime::Unknown));
    but(message, |message| message.records = vec![gap])
}

/// Rule 43: the whole gap is negative for the record's lifetime, in its scope; nothing is asked meanwhile.
#[test]
fn a_nak_makes_its_gap_negative() {
    let mut rig = Rig::new(router());
    let question = rig.ask(SHARED, 9000);
    rig.enqueue(Target { protocol: UDP, ..tcp(SHARED, 9000) }, packet(1)).unwrap();
    assert_eq!(rig.hear(&nak(AUTHORITY, &question, of(TCP, lasting(30, range(8192, 20000))))), Ok(()));
    assert_eq!(rig.take_ends(), [(9000, Err(Refused::NoOwner))]);
    rig.wait(secs(29));
    for port in [8192, 13000, 20000] {
        assert_eq!(rig.enqueue(tcp(SHARED, port), packet(0)), Err(Refused::NoOwner), "port {port}");
    }
    let asked = rig.take_pe(Kind::Resolve);
    assert!(asked.iter().all(|(.., message)| message.target.protocol == UDP) && asked.len() == 3);
    rig.wait(secs(1));
    assert_eq!(rig.ask(SHARED, 13000).target.port, Some(13000));
}

/// Rule 43: without a lifetime a gap lasts 60 s; with any, 3600 s at most.
#[test]
fn gaps_end() {
    for (lifetime, seconds) in [(Lifetime::Unknown, 60), (Lifetime::Seconds(65534), 3600)] {
        let mut rig = Rig::new(router());
        let question = rig.ask(SHARED, 9000);
        let gap = Record { lifetime, ..psid("0,4,2") };
        assert_eq!(rig.hear(&nak(AUTHORITY, &question, gap)), Ok(()));
        rig.wait(secs(seconds) - millis(1));
        assert_eq!(rig.enqueue(tcp(SHARED, 9000), packet(0)), Err(Refused::NoOwner));
        rig.wait(millis(1));
        assert_eq!(rig.enqueue(tcp(SHARED, 9000), packet(0)), Ok(()));
    }
}

/// Rule 44: a claim in a gap ends it, at once and as a whole.
#[test]
fn a_claim_ends_a_gap() {
    let mut rig = Rig::new(router());
    let question = rig.ask(SHARED, 9000);
    rig.hear(&nak(AUTHORITY, &question, lasting(600, range(8192, 20000)))).unwrap();
    rig.hear(&announce(A, SHARED, &[range(100, 200)])).unwrap();
    assert_eq!(rig.enqueue(tcp(SHARED, 9000), packet(0)), Err(Refused::NoOwner), "outside the gap");
    rig.hear(&announce(A, SHARED, &[range(19000, 30000)])).unwrap();
    assert_eq!(rig.enqueue(tcp(SHARED, 9000), packet(0)), Ok(()));
    // As before it was asked for the first time: the NAK was no failure of rule 42.
    rig.wait(secs(6));
    assert_eq!(rig.enqueue(tcp(SHARED, 9000), packet(0)), Ok(()));
}

/// Rules 14, 15, 20, 28: a NAK counts from an authority, to us, about what is asked, with the port in it.
#[test]
fn other_naks_are_dropped() {
    let mut rig = Rig::new(router());
    let question = rig.ask(SHARED, 9000);
    let gap = psid("0,4,2");
    assert_eq!(rig.hear(&nak(A, &question, gap)), Err(Refused::NoAuthority));
    let unsigned = but(nak(AUTHORITY, &question, gap), |message| message.authority = false);
    assert_eq!(rig.hear(&unsigned), Err(Refused::NoAuthority));
    let stray = but(nak(AUTHORITY, &question, gap), |message| message.target_hardware = B);
    assert_eq!(rig.hear(&stray), Err(Refused::NotForUs));
    assert_eq!(rig.hear(&nak(AUTHORITY, &question, psid("0,4,1"))), Err(Refused::WithoutAsked));
    let mut unasked = question.clone();
    unasked.target.port = Some(5000);
    assert_eq!(rig.hear(&nak(AUTHORITY, &unasked, psid("0,4,1"))), Err(Refused::Unsolicited));
    assert_eq!(rig.enqueue(tcp(SHARED, 9001), packet(0)), Ok(()), "still being asked");
}

/// Rules 28, 31: AUTHORITY counts from authorities alone, and their answer gives way to the owner's own.
#[test]
fn an_authority_answers_for_others() {
    let mut rig = Rig::new(router());
    let question = rig.ask(SHARED, 9000);
    let vouch = |host| but(reply(host, &question, &[psid("0,4,2")]), |message| message.authority = true);
    assert_eq!(rig.hear(&vouch(A)), Err(Refused::NoAuthority));
    let loud = but(announce(A, SHARED, &[psid("0,4,2")]), |message| message.authority = true);
    assert_eq!(rig.hear(&loud), Err(Refused::NoAuthority));
    assert_eq!(rig.hear(&vouch(AUTHORITY)), Ok(()));
    assert_eq!(rig.owner(9000), Some(AUTHORITY));
    assert_eq!(rig.engine.entries(rig.now)[0].source, "proxy");
    // Whether the owner is new or gains it: the authority is not asked.
    for own in [&[psid("0,4,3")][..], &[psid("0,4,3"), psid("0,4,2")]] {
        rig.take_ends();
        rig.take_sent();
        assert_eq!(rig.hear(&announce(B, SHARED, own)), Ok(()));
        assert!(rig.events.is_empty() && rig.take_sent().is_empty());
    }
    assert_eq!(rig.owner(9000), Some(B));
}

//! Plain ARP beside PE-ARP: rules 3, 4, 26, 27, 40, 77.

use super::*;

fn plain_reply(hardware: EthernetAddress, sender: Ipv4Addr, rig: &Rig) -> ArpRepr {
    let config = rig.engine.config();
    plain(ArpOperation::Reply, (hardware, sender), (config.hardware, config.own[0].ip))
}

fn take_plain(rig: &mut Rig) -> Vec<(EthernetAddress, ArpRepr)> {
    let plain = |(_, output)| match output {
        Output::Arp { destination, message } => Some((destination, message)),
        Output::Pe { .. } => None,
    };
    rig.take_sent().into_iter().filter_map(plain).collect()
}

/// Rules 4, 40: one plain request with each RESOLVE for an address not known to be shared; none for a shared one.
#[test]
fn plain_requests_go_with_questions() {
    let mut rig = Rig::new(router());
    rig.enqueue(tcp(OTHER, 80), packet(1)).unwrap();
    rig.wait(secs(3));
    let request = plain_request(ROUTER_MAC, ROUTER, OTHER);
    assert_eq!(take_plain(&mut rig), vec![(EthernetAddress::BROADCAST, request); 3]);
    rig.enqueue(tcp(SHARED, 5000), packet(2)).unwrap();
    rig.wait(secs(3));
    assert!(take_plain(&mut rig).is_empty());
}

/// Rules 4, 27: the plain answer means the whole address, REACHABLE.
#[test]
fn a_plain_answer_means_all_ports() {
    let mut rig = Rig::new(router());
    rig.ask(OTHER, 80);
    let answer = plain_reply(A, OTHER, &rig);
    assert_eq!(rig.hear_plain(&answer), Ok(()));
    assert_eq!(rig.take_ends(), [(80, Ok(A))]);
    assert_eq!(rig.state_of(A), Some("reachable"));
    for target in [tcp(OTHER, 0), tcp(OTHER, 65535), Target { ip: OTHER, protocol: GRE, port: None }] {
        assert_eq!(rig.next_hop(target), Some(A));
    }
}

/// Rule 27: only an answer to us confirms; an unasked reply updates what is known, and creates at its target.
#[test]
fn unasked_plain_replies() {
    let mut rig = Rig::new(router());
    rig.ask(OTHER, 80);
    let overheard = plain(ArpOperation::Reply, (A, OTHER), (B, SHARED));
    assert_eq!(rig.hear_plain(&overheard), Err(Refused::Unsolicited));
    assert_eq!(rig.state_of(A), None);
    let answer = plain_reply(A, OTHER, &rig);
    assert_eq!(rig.hear_plain(&answer), Ok(()));
    rig.wait(secs(45));
    let moved = plain(ArpOperation::Reply, (B, OTHER), (EthernetAddress::BROADCAST, OTHER));
    assert_eq!(rig.hear_plain(&moved), Ok(()));
    assert_eq!((rig.next_hop(tcp(OTHER, 80)), rig.state_of(B)), (Some(B), Some("delay")));
    let told = plain_reply(C, Ipv4Addr::new(192, 0, 2, 99), &rig);
    assert_eq!(rig.hear_plain(&told), Ok(()));
    assert_eq!(rig.state_of(C), Some("stale"));
}

/// Rule 27 and RFC 826: a request is learned from at its target, and where its sender is known already.
#[test]
fn plain_requests_are_learned_from_at_their_target() {
    let mut rig = Rig::new(router());
    assert_eq!(rig.hear_plain(&plain_request(A, OTHER, Ipv4Addr::new(192, 0, 2, 9))), Ok(()));
    assert_eq!(rig.state_of(A), None);
    assert_eq!(rig.hear_plain(&plain_request(A, OTHER, ROUTER)), Ok(()));
    assert_eq!(rig.state_of(A), Some("stale"));
    let answer = plain(ArpOperation::Reply, (ROUTER_MAC, ROUTER), (A, OTHER));
    assert_eq!(take_plain(&mut rig), [(A, answer)]);
    assert_eq!(rig.hear_plain(&plain_request(B, OTHER, Ipv4Addr::new(192, 0, 2, 9))), Ok(()));
    assert_eq!(rig.next_hop(tcp(OTHER, 1)), Some(B), "known: brought up to date");
    let far = Ipv4Addr::new(198, 51, 100, 1);
    assert_eq!(rig.hear_plain(&plain_request(C, far, ROUTER)), Err(Refused::OffLink));
}

/// Rules 2, 27, 77: sender 0.0.0.0 is answered and never learned.
#[test]
fn sender_zero_is_answered_and_not_learned() {
    let mut rig = Rig::new(router());
    for target in [ROUTER, SHARED] {
        assert_eq!(rig.hear_plain(&plain_request(A, Ipv4Addr::UNSPECIFIED, target)), Ok(()));
        assert_eq!(take_plain(&mut rig).len(), 1, "{target}");
    }
    let nobody = plain(ArpOperation::Reply, (A, Ipv4Addr::UNSPECIFIED), (ROUTER_MAC, ROUTER));
    assert_eq!(rig.hear_plain(&nobody), Err(Refused::Unsolicited));
    assert!(rig.engine.entries(rig.now).is_empty());
}

/// Rules 3, 77: the router answers for the shared addresses that are configured, where it is configured to.
#[test]
fn proxy_answers_only_where_configured() {
    let mut rig = Rig::new(router());
    rig.hear(&announce(A, OTHER, &[range(1, 9)])).unwrap();
    for (target, answers) in [(SHARED, 1), (OTHER, 0), (Ipv4Addr::new(192, 0, 2, 9), 0)] {
        assert_eq!(rig.hear_plain(&plain_request(C, Ipv4Addr::new(192, 0, 2, 50), target)), Ok(()));
        assert_eq!(take_plain(&mut rig).len(), answers, "{target}");
    }
    let mut silent = Rig::new(Config { proxy: false, ..router() });
    silent.hear_plain(&plain_request(C, OTHER, SHARED)).unwrap();
    assert!(take_plain(&mut silent).is_empty());
}

/// Rules 3, 26: plain ARP with a shared sender is ignored, whether configured or learned to be shared.
#[test]
fn a_shared_sender_is_refused() {
    let mut rig = Rig::new(router());
    assert_eq!(rig.hear_plain(&plain_request(A, SHARED, ROUTER)), Err(Refused::PlainForShared));
    rig.ask(OTHER, 80);
    let answer = plain_reply(C, OTHER, &rig);
    rig.hear_plain(&answer).unwrap();
    assert_eq!(rig.next_hop(tcp(OTHER, 80)), Some(C));
    rig.hear(&announce(A, OTHER, &[range(1, 9)])).unwrap();
    assert_eq!(rig.next_hop(tcp(OTHER, 80)), None, "what plain ARP taught is dropped");
    assert_eq!(rig.hear_plain(&answer), Err(Refused::PlainForShared));
    assert!(rig.engine.is_shared(OTHER) && rig.take_sent().is_empty());
}

/// Rule 26: the fact outlives the last binding by 240 s.
#[test]
fn shared_is_remembered() {
    let mut rig = Rig::new(router());
    rig.hear(&announce(A, OTHER, &[range(1, 9)])).unwrap();
    rig.hear(&release(A, OTHER, &[range(1, 9)])).unwrap();
    rig.wait(secs(239));
    assert_eq!(rig.hear_plain(&plain_request(C, OTHER, ROUTER)), Err(Refused::PlainForShared));
    rig.wait(secs(2));
    assert_eq!(rig.hear_plain(&plain_request(C, OTHER, ROUTER)), Ok(()));
    rig.hear(&announce(A, SHARED, &[range(1, 9)])).unwrap();
    rig.wait(secs(3600));
    assert!(rig.engine.is_shared(SHARED), "configured");
}

/// Rule 3: a sharing host neither answers plain ARP for its address nor asks in its name.
#[test]
fn a_sharer_hides_its_address_from_plain_arp() {
    let mut rig = Rig::new(sharer(A, "0,4,1"));
    assert_eq!(rig.hear_plain(&plain_request(C, OTHER, SHARED)), Ok(()));
    assert_eq!(rig.hear_plain(&plain_request(C, Ipv4Addr::UNSPECIFIED, SHARED)), Ok(()));
    assert!(take_plain(&mut rig).is_empty());
    assert_eq!(rig.state_of(C), None);
    rig.enqueue(Target::gateway(ROUTER), packet(1)).unwrap();
    let request = plain_request(A, Ipv4Addr::UNSPECIFIED, ROUTER);
    assert_eq!(take_plain(&mut rig), [(EthernetAddress::BROADCAST, request)]);
    let answer = plain(ArpOperation::Reply, (ROUTER_MAC, ROUTER), (A, Ipv4Addr::UNSPECIFIED));
    assert_eq!(rig.hear_plain(&answer), Ok(()));
    assert_eq!(rig.take_ends(), [(1, Ok(ROUTER_MAC))]);
    rig.wait(secs(45));
    rig.next_hop(Target::gateway(ROUTER));
    rig.wait(secs(5));
    assert_eq!(take_plain(&mut rig), [(ROUTER_MAC, request)], "nor when it confirms");
    rig.enqueue(tcp(SHARED, 9000), packet(2)).unwrap();
    assert!(take_plain(&mut rig).is_empty(), "its own address is shared");
}

/// RFC 5227 §1.1: an address that is not in use yet is no sender, either, and is not answered for.
#[test]
fn an_unclaimed_address_is_not_used() {
    let mut rig = Rig::unclaimed(whole_host());
    rig.enqueue(tcp(ROUTER, 80), packet(1)).unwrap();
    let request = plain_request(A, Ipv4Addr::UNSPECIFIED, ROUTER);
    assert_eq!(take_plain(&mut rig), [(EthernetAddress::BROADCAST, request)]);
    rig.hear_plain(&plain_request(C, ROUTER, OTHER)).unwrap();
    assert!(take_plain(&mut rig).is_empty());
}

/// Rule 9, for plain ARP: own frames that came back, and senders that do not match the frame.
#[test]
fn a_false_plain_sender_is_dropped() {
    let mut rig = Rig::new(router());
    let (now, message) = (rig.now, plain_request(A, OTHER, ROUTER));
    assert_eq!(rig.engine.handle_arp(ROUTER_MAC, &message, now), Err(Refused::OwnEcho));
    assert_eq!(rig.engine.handle_arp(B, &message, now), Err(Refused::SenderMismatch));
    let forged = plain_request(ROUTER_MAC, OTHER, ROUTER);
    assert_eq!(rig.engine.handle_arp(A, &forged, now), Err(Refused::SenderMismatch));
    let group = EthernetAddress([3, 0, 0, 0, 0, 1]);
    assert_eq!(rig.hear_plain(&plain_request(group, OTHER, ROUTER)), Err(Refused::SenderMismatch));
    assert!(rig.engine.entries(now).is_empty() && rig.take_sent().is_empty());
}

/// On a link without PE-ARP only plain ARP is spoken.
#[test]
fn a_plain_link() {
    let mut rig = Rig::new(Config { pe: false, ..router() });
    assert_eq!(rig.hear(&announce(A, OTHER, &[full()])), Err(Refused::NotSpoken));
    rig.enqueue(tcp(OTHER, 80), packet(1)).unwrap();
    let sent = rig.take_sent();
    assert!(matches!(sent[..], [(_, Output::Arp { .. })]), "{sent:?}");
}

/// Rules 26, 40: the router's plain answer for a shared address is faster than the owner's own, which is taken all the
/// same.
#[test]
fn an_owner_that_answers_after_plain_arp_is_heard() {
    let mut rig = Rig::new(whole_host());
    let question = rig.ask(SHARED, 5000);
    rig.hear_plain(&plain(ArpOperation::Reply, (ROUTER_MAC, SHARED), (A, OTHER))).unwrap();
    assert_eq!(rig.owner(5000), Some(ROUTER_MAC));
    assert_eq!(rig.hear(&reply(B, &question, &[psid("0,4,1")])), Ok(()));
    assert_eq!((rig.owner(5000), rig.owner(9000)), (Some(B), None));
    assert!(rig.engine.is_shared(SHARED));
}

/// RFC 5227 §2.1.1: a legacy host that has the whole address answers the plain probe.
#[test]
fn a_legacy_host_keeps_its_address() {
    let mut rig = Rig::unclaimed(whole_host());
    rig.claim_own();
    let probes = rig.take_sent();
    let asked = probes.iter().find_map(|(_, output)| match output {
        Output::Arp { destination, message } => Some((*destination, *message)),
        Output::Pe { .. } => None,
    });
    let probe = plain_request(A, Ipv4Addr::UNSPECIFIED, OTHER);
    assert_eq!(asked, Some((EthernetAddress::BROADCAST, probe)));
    let answer = plain(ArpOperation::Reply, (B, OTHER), (A, Ipv4Addr::UNSPECIFIED));
    assert_eq!(rig.hear_plain(&answer), Err(Refused::Conflict));
    assert_eq!(rig.engine.own_phase(OwnId::FIRST), ClaimPhase::Lost);
}

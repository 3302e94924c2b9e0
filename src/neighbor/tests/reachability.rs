//! The states of a binding: rules 32 to 34.

use super::*;

/// The questions that were sent by unicast: time, destination, asked protocol and port.
fn take_probes(rig: &mut Rig) -> Vec<(Instant, EthernetAddress, (u8, Option<u16>))> {
    let asked = |message: &Message| (message.target.protocol, message.target.port);
    let resolves = rig.take_pe(Kind::Resolve).into_iter();
    let unicast = resolves.filter(|(_, to, _)| *to != EthernetAddress::BROADCAST);
    unicast.map(|(at, to, message)| (at, to, asked(&message))).collect()
}

/// Uses a stale binding and waits until it is in PROBE.
fn probe(rig: &mut Rig, port: u16) -> EthernetAddress {
    let host = rig.owner(port).unwrap();
    assert_eq!(rig.state_of(host), Some("delay"));
    rig.wait(DELAY_FIRST_PROBE_TIME);
    assert_eq!(rig.state_of(host), Some("probe"));
    host
}

/// Rule 32: REACHABLE lasts 30 s × 0.5 to 1.5, drawn at each confirmation; then STALE, without a timer.
#[test]
fn a_confirmation_gets_old() {
    let mut times = Vec::new();
    for seed in 0..40 {
        let mut rig = Rig::new(Config { seed, ..router() });
        rig.confirm(A, SHARED, &[psid("0,4,1")]);
        let mut age = 0;
        while rig.state_of(A) == Some("reachable") {
            rig.wait(secs(1));
            age += 1;
        }
        assert_eq!(rig.state_of(A), Some("stale"));
        assert!((15..=45).contains(&age), "{age} s");
        times.push(age);
        rig.wait(IDLE_TIME - secs(age) - secs(1));
        assert_eq!(rig.state_of(A), Some("stale"), "unused, it stays");
        rig.wait(secs(1));
        assert_eq!(rig.state_of(A), None, "but not for ever");
        assert!(take_probes(&mut rig).is_empty());
    }
    assert!(times.iter().any(|age| *age < 25) && times.iter().any(|age| *age > 35), "{times:?}");
}

/// Rules 32, 34: a used stale binding is asked after 5 s, three times, 1 s apart, then it is gone; it serves
/// meanwhile.
#[test]
fn a_silent_owner_is_removed() {
    let mut rig = Rig::new(router());
    rig.hear(&announce(A, SHARED, &[of(TCP, psid("0,4,1"))])).unwrap();
    assert_eq!(rig.state_of(A), Some("stale"));
    let used = rig.now;
    probe(&mut rig, 5000);
    rig.wait(secs(3) - millis(1));
    assert_eq!(rig.owner(5000), Some(A));
    let asked = (TCP, Some(4096));
    assert_eq!(take_probes(&mut rig), [5, 6, 7].map(|at| (used + secs(at), A, asked)));
    rig.wait(millis(1));
    assert_eq!(rig.owner(5000), None);
    assert!(rig.engine.poll_timeout().is_none());
}

/// Rule 34: an owner that gives up just what it is asked for keeps the rest.
#[test]
fn a_probe_for_what_is_gone_ends() {
    let mut rig = Rig::new(router());
    rig.hear(&announce(A, SHARED, &[psid("0,4,1"), psid("0,4,2")])).unwrap();
    probe(&mut rig, 9000);
    rig.wait(millis(2500));
    rig.hear(&release(A, SHARED, &[psid("0,4,1")])).unwrap();
    assert_eq!(rig.state_of(A), Some("stale"));
    rig.wait(secs(4));
    assert_eq!(rig.owner(9000), Some(A));
}

/// Rules 20, 34: an answer to another question adds to the set, and confirms no port that it does not hold.
#[test]
fn another_answer_does_not_confirm() {
    let mut rig = Rig::new(router());
    rig.hear(&announce(A, SHARED, &[psid("0,4,1")])).unwrap();
    probe(&mut rig, 5000);
    let question = rig.ask(SHARED, 9000);
    let part = but(reply(A, &question, &[psid("0,4,2")]), |message| message.complete = false);
    assert_eq!(rig.hear(&part), Ok(()));
    assert_eq!((rig.owner(9000), rig.state_of(A)), (Some(A), Some("probe")));
    rig.wait(secs(3));
    assert_eq!(rig.state_of(A), None);
}

/// Rule 20: hearing the same set again changes no state; another set makes it STALE.
#[test]
fn an_announcement_does_not_confirm() {
    let mut rig = Rig::new(router());
    let set = [psid("0,4,1"), psid("0,4,2")];
    rig.confirm(A, SHARED, &set);
    rig.hear(&announce(A, SHARED, &[set[1], set[0]])).unwrap();
    assert_eq!(rig.state_of(A), Some("reachable"), "the order does not matter");
    rig.wait(secs(45));
    probe(&mut rig, 5000);
    rig.hear(&announce(A, SHARED, &set)).unwrap();
    assert_eq!(rig.state_of(A), Some("probe"));
    rig.hear(&announce(A, SHARED, &set[..1])).unwrap();
    assert_eq!(rig.state_of(A), Some("stale"));
}

/// Rule 34: what is asked of a whole address and of a portless protocol.
#[test]
fn probes_ask_for_what_is_held() {
    for (record, target, asked) in [
        (full(), tcp(OTHER, 80), (0, Some(0))),
        (of(UDP, range(100, 200)), Target { protocol: UDP, ..tcp(OTHER, 150) }, (UDP, Some(100))),
        (portless(GRE), Target { ip: OTHER, protocol: GRE, port: None }, (GRE, None)),
    ] {
        let mut rig = Rig::new(router());
        rig.hear(&announce(A, OTHER, &[record])).unwrap();
        assert_eq!(rig.next_hop(target), Some(A));
        rig.wait(DELAY_FIRST_PROBE_TIME);
        assert_eq!(take_probes(&mut rig), [(rig.now, A, asked)]);
    }
}

/// Rule 33: a static binding has no timers.
#[test]
fn a_static_binding_is_never_asked() {
    let mut rig = Rig::new(router());
    rig.engine.insert_static(SHARED, A, &[lasting(1, psid("0,4,1"))], rig.now).unwrap();
    assert_eq!(rig.owner(5000), Some(A));
    assert!(rig.engine.poll_timeout().is_none());
    rig.wait(secs(3600));
    assert_eq!((rig.owner(5000), rig.state_of(A)), (Some(A), Some("permanent")));
    assert!(rig.take_sent().is_empty());
}

/// Rules 27, 34: a binding made by plain ARP is confirmed by plain ARP.
#[test]
fn plain_arp_confirms_a_plain_binding() {
    let mut rig = Rig::new(router());
    rig.hear_plain(&plain_request(A, OTHER, ROUTER)).unwrap();
    assert_eq!(rig.next_hop(tcp(OTHER, 80)), Some(A));
    rig.take_sent();
    rig.wait(DELAY_FIRST_PROBE_TIME);
    let request = plain_request(ROUTER_MAC, ROUTER, OTHER);
    assert_eq!(rig.take_sent(), [(rig.now, Output::Arp { destination: A, message: request })]);
    let answer = plain(ArpOperation::Reply, (A, OTHER), (ROUTER_MAC, ROUTER));
    assert_eq!(rig.hear_plain(&answer), Ok(()));
    assert_eq!(rig.state_of(A), Some("reachable"));
    rig.wait(secs(45));
    rig.next_hop(tcp(OTHER, 80));
    rig.wait(secs(8));
    assert_eq!(rig.state_of(A), None, "silent, it is removed");
}

//! Misses: rules 36 to 50.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn with_scheme(ip: Ipv4Addr, shape: Scheme) -> Rig {
    Rig::new(Config { schemes: vec![(ip, shape)], ..router() })
}

/// Asks for every port of SHARED and gives how often each PSID was asked for, and when.
fn scan(rig: &mut Rig, shape: Scheme) -> (BTreeMap<u16, usize>, Vec<Instant>) {
    for port in 0..=u16::MAX {
        let result = rig.enqueue(tcp(SHARED, port), packet(port.into()));
        // The bytes of one address are bounded; that a port has no owner by the scheme comes first.
        let fits = matches!(result, Ok(()) | Err(Refused::PendingFull));
        assert_eq!((fits, result == Err(Refused::Unassigned)), (shape.covers(port), !shape.covers(port)));
    }
    rig.wait(secs(150));
    let mut blocks = BTreeMap::new();
    let mut times = Vec::new();
    for (at, _, message) in rig.take_pe(Kind::Resolve) {
        *blocks.entry(shape.psid_of(message.target.port.unwrap())).or_default() += 1;
        times.push(at);
    }
    (blocks, times)
}

/// At no time has more than the burst and the rate since the start been used.
fn assert_limited(times: &[Instant], start: Instant, burst: u64, rate: u64) {
    for (count, at) in (1u64..).zip(times) {
        let allowed = burst * 1_000_000 + rate * (*at - start).total_micros();
        assert!(count * 1_000_000 <= allowed, "{count} questions after {}", *at - start);
    }
}

/// Rules 36 to 38: a scan of all ports asks 2^k questions, each three times.
#[test]
fn a_scan_asks_once_per_psid() {
    for (shape, rate) in [(scheme(0, 4), 20), (scheme(6, 10), 20)] {
        let mut rig = with_scheme(SHARED, shape);
        let start = rig.now;
        let (blocks, times) = scan(&mut rig, shape);
        assert_eq!(blocks.len(), shape.sets() as usize);
        assert!(blocks.values().all(|asked| *asked == 3), "{shape}: {blocks:?}");
        assert_limited(&times, start, shape.sets().into(), rate);
        assert_limited(&times, start, 200, 200);
    }
}

/// Rule 38: while a block is negative, nothing of it is asked; rule 32: packets are dropped at once.
#[test]
fn a_failed_block_is_not_asked_again() {
    let mut rig = with_scheme(SHARED, scheme(0, 4));
    rig.ask(SHARED, 5000);
    rig.wait(secs(3));
    assert_eq!(rig.take_pe(Kind::Resolve).len(), 2, "three in all");
    assert_eq!(rig.take_ends(), [(5000, Err(Refused::Unreachable))]);
    for port in 4096..8192 {
        assert_eq!(rig.enqueue(tcp(SHARED, port), packet(0)), Err(Refused::Unreachable));
    }
    rig.wait(millis(2999));
    assert_eq!(rig.enqueue(tcp(SHARED, 8191), packet(0)), Err(Refused::Unreachable));
    assert!(rig.take_sent().is_empty());
    assert_eq!(rig.ask(SHARED, 9000).target.port, Some(9000), "another block is asked");
}

/// Rule 42: 3 s, doubling to 60 s; a positive answer begins anew.
#[test]
fn failures_double_until_an_answer() {
    let mut rig = with_scheme(SHARED, scheme(0, 4));
    let fail = |rig: &mut Rig, seconds: u64| {
        rig.ask(SHARED, 5000);
        rig.wait(secs(3) + secs(seconds) - millis(1));
        let early = rig.enqueue(tcp(SHARED, 5000), packet(0));
        assert_eq!(early, Err(Refused::Unreachable), "negative for {seconds} s");
        rig.wait(millis(1));
    };
    for seconds in [3, 6, 12, 24, 48, 60, 60] {
        fail(&mut rig, seconds);
    }
    let question = rig.ask(SHARED, 5000);
    assert_eq!(rig.hear(&reply(A, &question, &[psid("0,4,1")])), Ok(()));
    assert_eq!(rig.hear(&release(A, SHARED, &[psid("0,4,1")])), Ok(()));
    fail(&mut rig, 3);
}

/// Rule 44: a claim ends a failed block that it touches, even where it does not hold the port that was asked.
#[test]
fn a_claim_ends_a_failed_block() {
    let mut rig = Rig::new(router());
    rig.ask(OTHER, 5);
    rig.ask(OTHER, 64);
    rig.wait(secs(4));
    assert_eq!(rig.hear(&announce(A, OTHER, &[of(UDP, range(40, 50))])), Ok(()));
    assert_eq!(rig.enqueue(tcp(OTHER, 5), packet(0)), Ok(()), "0 to 63 may be asked again");
    assert_eq!(rig.enqueue(tcp(OTHER, 64), packet(0)), Err(Refused::Unreachable), "64 to 127 may not");
}

/// Rule 36: without a scheme a block is 64 aligned ports; a portless protocol is a block of its own.
#[test]
fn blocks_without_a_scheme() {
    let mut rig = Rig::new(router());
    for port in [0, 1, 63, 64, 127, 128] {
        assert_eq!(rig.enqueue(tcp(OTHER, port), packet(port.into())), Ok(()));
    }
    let gre = Target { ip: OTHER, protocol: GRE, port: None };
    assert_eq!(rig.enqueue(gre, packet(0)), Ok(()));
    assert_eq!(rig.enqueue(Target { protocol: 50, ..gre }, packet(0)), Ok(()));
    let asked = rig.take_pe(Kind::Resolve);
    let asked: Vec<_> =
        asked.iter().map(|(.., message)| (message.target.protocol, message.target.port)).collect();
    assert_eq!(asked, [(TCP, Some(0)), (TCP, Some(64)), (TCP, Some(128)), (GRE, None), (50, None)]);
}

/// Rule 37: ports of no PSID are not asked for, and a binding of a single port is used all the same.
#[test]
fn unassigned_ports_are_refused() {
    let mut rig = with_scheme(SHARED, scheme(6, 8));
    assert_eq!(rig.enqueue(tcp(SHARED, 443), packet(0)), Err(Refused::Unassigned));
    assert!(rig.take_sent().is_empty());
    assert_eq!(rig.engine.insert_static(SHARED, A, &[range(443, 443)], rig.now), Ok(()));
    assert_eq!(rig.owner(443), Some(A));
    assert_eq!(rig.enqueue(tcp(SHARED, 444), packet(0)), Err(Refused::Unassigned));
}

/// Rules 38, 39 and the fields of RESOLVE (§4).
#[test]
fn a_question_names_the_first_packet() {
    let mut rig = Rig::new(router());
    let question = rig.ask(SHARED, 5000);
    rig.wait(secs(1));
    let again = rig.take_pe(Kind::Resolve);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].1, EthernetAddress::BROADCAST);
    assert_eq!(again[0].2, question);
    assert_eq!(question.target, shared(SHARED).with_port(TCP, Some(5000)));
    assert_eq!(question.sender, PeAddress { router: true, ..PeAddress::new(ROUTER) });
    rig.enqueue(Target::gateway(OTHER), packet(0)).unwrap();
    let asked = rig.take_pe(Kind::Resolve).remove(0).2;
    assert_eq!(asked.target, PeAddress::new(OTHER).with_port(0, Some(0)));
    assert_eq!(asked.kind(), Kind::Resolve, "a gateway's question is no SOLICIT-ALL");
}

/// Rule 38: of several packets in a block, each question names another one, so that an owner who is there is found
/// although another one is not.
#[test]
fn a_repeated_question_names_another_packet() {
    let mut rig = Rig::new(router());
    rig.ask(OTHER, 5000);
    for port in [5001, 5000, 5002] {
        rig.enqueue(tcp(OTHER, port), packet(u32::from(port))).unwrap();
    }
    rig.wait(secs(1));
    let asked: Vec<_> = rig.take_pe(Kind::Resolve).into_iter().map(|(.., message)| message).collect();
    assert_eq!(asked[0].target.port, Some(5001));
    let answer = reply(A, &asked[0], &[range(5001, 5001)]);
    assert_eq!(rig.hear(&answer), Ok(()));
    assert_eq!(rig.take_ends(), [(5001, Ok(A))]);
    rig.wait(secs(1));
    let asked = rig.take_pe(Kind::Resolve);
    assert_eq!(asked.iter().map(|(.., message)| message.target.port).collect::<Vec<_>>(), [Some(5000)]);
    rig.wait(secs(3));
    let asked = rig.take_pe(Kind::Resolve);
    assert_eq!(asked.len(), 2, "a question begins anew when it was answered in part");
}

/// Rule 36: one PSID record of a sharer tells how the address is shared.
#[test]
fn a_sharer_tells_the_scheme() {
    let mut rig = Rig::new(Config { schemes: Vec::new(), ..router() });
    let early = rig.ask(SHARED, 12_288);
    // A range and a single port say nothing of a scheme.
    rig.hear(&announce(A, SHARED, &[range(8192, 12_287), psid("0,16,443")])).unwrap();
    for port in [20_480, 20_480 + 64] {
        rig.ask(SHARED, port);
    }
    rig.hear(&announce(B, SHARED, &[psid("0,4,1")])).unwrap();
    assert_eq!(rig.hear(&reply(C, &early, &[psid("0,4,3")])), Ok(()), "asked before the scheme was known");
    rig.ask(SHARED, 40_960);
    rig.enqueue(tcp(SHARED, 40_960 + 64), packet(0)).unwrap();
    assert!(rig.take_pe(Kind::Resolve).is_empty(), "one block");
}

/// Rule 40, RFC 1122 §2.3.2.1: plain ARP asks for the whole address, once a second however many blocks are asked for.
#[test]
fn plain_arp_is_asked_once_a_second() {
    let mut rig = Rig::new(router());
    let plain = |rig: &mut Rig| {
        rig.take_sent().iter().filter(|(_, output)| matches!(output, Output::Arp { .. })).count()
    };
    for block in 0..60 {
        rig.enqueue(tcp(OTHER, block * 64), packet(0)).unwrap();
    }
    assert_eq!(plain(&mut rig), 1);
    rig.wait(millis(2999));
    assert_eq!(plain(&mut rig), 2);
}

/// Rule 38: what failed makes room for new questions; what packets wait for does not.
#[test]
fn failed_questions_make_room() {
    let mut rig = Rig::new(router());
    let mut asked = 0;
    let mut fill = |rig: &mut Rig, count: usize| {
        let mut full = 0;
        for _ in 0..count {
            let ip = Ipv4Addr::new(192, 0, 2, 100 + (asked / 1024) as u8);
            let result = rig.enqueue(tcp(ip, (asked % 1024 * 64) as u16), Frame::from_packet(&[0]));
            full += usize::from(result == Err(Refused::QuestionsFull));
            asked += 1;
        }
        full
    };
    assert_eq!(fill(&mut rig, MAX_QUESTIONS + 10), 10, "all are open");
    // At 200 a second each is asked three times; then all have failed.
    rig.wait(secs(400));
    assert_eq!(fill(&mut rig, 100), 0);
    rig.wait(secs(2));
    assert!(rig.engine.entries(rig.now).len() <= MAX_QUESTIONS);
}

/// Rules 47, 48: 64 at once and 20/s per address without a scheme; what is over the limit is asked later.
#[test]
fn questions_of_an_address_are_limited() {
    let mut rig = Rig::new(router());
    let start = rig.now;
    for block in 0..120 {
        assert_eq!(rig.enqueue(tcp(OTHER, block * 64), packet(block.into())), Ok(()));
    }
    let burst = rig.take_pe(Kind::Resolve).len();
    assert_eq!(burst, 64);
    rig.wait(secs(60));
    let asked = rig.take_pe(Kind::Resolve);
    let times: Vec<_> = vec![start; burst].into_iter().chain(asked.iter().map(|(at, ..)| *at)).collect();
    assert_limited(&times, start, 64, 20);
    assert_eq!(times.len(), 120 * 3, "deferred, not lost, and no attempt is spent on it");
    assert_eq!(rig.take_ends().len(), 120);
}

/// Rule 47: answers do not refill the tokens of an address.
#[test]
fn answers_do_not_lift_the_limit() {
    let mut rig = Rig::new(router());
    let start = rig.now;
    let mut times = Vec::new();
    for block in 0..200u16 {
        assert_eq!(rig.enqueue(tcp(OTHER, block * 64), packet(0)), Ok(()));
        for (at, _, question) in rig.take_pe(Kind::Resolve) {
            times.push(at);
            let port = question.target.port.unwrap();
            let _ = rig.hear(&reply(mac(100 + port / 64), &question, &[range(port, port + 63)]));
        }
    }
    assert_limited(&times, start, 64, 20);
}

/// Rule 47: 200/s per link.
#[test]
fn questions_of_a_link_are_limited() {
    let mut rig = Rig::new(router());
    let start = rig.now;
    for host in 100..120 {
        for block in 0..30 {
            let target = tcp(Ipv4Addr::new(192, 0, 2, host), block * 64);
            assert_eq!(rig.enqueue(target, packet(0)), Ok(()));
        }
    }
    rig.wait(secs(60));
    let times: Vec<_> = rig.take_pe(Kind::Resolve).into_iter().map(|(at, ..)| at).collect();
    assert_limited(&times, start, 200, 200);
    assert_eq!(times.len(), 600 * 3);
}

/// Rule 48: addresses take turns, so that scans of many do not hold up the question about one more.
#[test]
fn scans_do_not_hold_up_another_address() {
    let mut rig = Rig::new(router());
    for host in 100..140 {
        for block in 0..64 {
            let target = tcp(Ipv4Addr::new(192, 0, 2, host), block * 64);
            assert_eq!(rig.enqueue(target, packet(0)), Ok(()));
        }
    }
    rig.wait(millis(500));
    rig.take_pe(Kind::Resolve);
    let since = rig.now;
    let last = Ipv4Addr::new(192, 0, 2, 200);
    assert_eq!(rig.enqueue(tcp(last, 80), packet(1)), Ok(()));
    rig.wait(secs(1));
    let mut asked =
        rig.take_pe(Kind::Resolve).into_iter().filter(|(_, _, question)| question.target.ip == last);
    let (at, ..) = asked.next().expect("asked in its turn");
    assert!(at - since <= millis(41 * 5), "one turn of 41 addresses at 200/s");
}

/// Rule 47: 1/s per key, when the block has a second owner to ask for, too.
#[test]
fn a_block_is_asked_once_per_second() {
    let mut rig = Rig::new(router());
    let question = rig.ask(SHARED, 5000);
    rig.enqueue(Target { protocol: UDP, ..tcp(SHARED, 5000) }, packet(1)).unwrap();
    rig.wait(millis(300));
    assert_eq!(rig.hear(&reply(A, &question, &[of(TCP, psid("0,4,1"))])), Ok(()));
    assert_eq!(rig.take_ends(), [(5000, Ok(A))], "rule 45: the packet of TCP leaves");
    assert!(rig.take_sent().is_empty());
    rig.wait(millis(700));
    let next = rig.take_pe(Kind::Resolve).remove(0).2;
    assert_eq!(next.target.protocol, UDP, "rule 45: a question of its own");
    assert_eq!(rig.hear(&reply(B, &next, &[of(UDP, psid("0,4,1"))])), Ok(()));
    assert_eq!(rig.take_ends(), [(1, Ok(B))]);
}

/// Rule 45: an answer sends what waits for any port that it covers, in the order in which it came.
#[test]
fn an_answer_releases_all_it_covers() {
    let mut rig = Rig::new(router());
    for port in [5000, 4096, 8191, 8192] {
        rig.enqueue(tcp(SHARED, port), packet(port.into())).unwrap();
    }
    let question = rig.take_pe(Kind::Resolve).remove(0).2;
    assert_eq!(rig.hear(&reply(A, &question, &[psid("0,4,1")])), Ok(()));
    assert_eq!(rig.take_ends(), [(5000, Ok(A)), (4096, Ok(A)), (8191, Ok(A))]);
    rig.wait(secs(3));
    assert_eq!(rig.take_ends(), [(8192, Err(Refused::Unreachable))]);
}

/// Rule 46: 16 packets per question; the oldest gives way.
#[test]
fn the_oldest_packet_of_a_question_gives_way() {
    let mut rig = Rig::new(router());
    for n in 0..18 {
        assert_eq!(rig.enqueue(tcp(SHARED, 5000), packet(n)), Ok(()));
    }
    assert_eq!(rig.take_ends(), [(0, Err(Refused::PendingFull)), (1, Err(Refused::PendingFull))]);
    assert_eq!(rig.hear(&announce(A, SHARED, &[psid("0,4,1")])), Ok(()));
    let left: Vec<_> = (2..18).map(|n| (n, Ok(A))).collect();
    assert_eq!(rig.take_ends(), left);
}

/// Rule 46: what gave way takes no bytes any more.
#[test]
fn displaced_packets_take_no_room() {
    let mut rig = Rig::new(router());
    for _ in 0..100 {
        assert_eq!(rig.enqueue(tcp(SHARED, 5000), Frame::from_packet(&[0; 3000])), Ok(()));
    }
    assert_eq!(rig.take_ends().len(), 100 - MAX_PENDING_PER_QUESTION);
}

/// Rule 46: 64 KiB per address; the newest is dropped, and other addresses have room of their own.
#[test]
fn bytes_of_an_address_are_bounded() {
    let mut rig = Rig::new(router());
    let large = || Frame::from_packet(&[0; 4000]);
    let fit = (MAX_PENDING_BYTES_PER_ADDRESS / large().memory()) as u16;
    for n in 0..fit {
        assert_eq!(rig.enqueue(tcp(SHARED, n % 8 * 4096), large()), Ok(()));
    }
    assert_eq!(rig.enqueue(tcp(SHARED, 9 * 4096), large()), Err(Refused::PendingFull));
    assert_eq!(rig.enqueue(tcp(OTHER, 0), large()), Ok(()));
    assert_eq!(rig.hear(&announce(A, SHARED, &[psid("0,4,0")])), Ok(()));
    assert!(!rig.take_ends().is_empty());
    assert_eq!(rig.enqueue(tcp(SHARED, 9 * 4096), large()), Ok(()), "room again");
}

/// Rule 46: whatever happens, a packet that waits ends once.
#[test]
fn every_packet_ends_once() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut rig = Rig::new(router());
    let (mut waiting, mut next) = (BTreeSet::new(), 0);
    for _ in 0..4000 {
        let port: u16 = rng.random_range(0..16) * 4096 + rng.random_range(0..3);
        let part = psid(&format!("0,4,{}", port / 4096));
        let host = mac(100 + rng.random_range(0..4));
        let asked = shared(SHARED).with_port(TCP, Some(port));
        match rng.random_range(0..12) {
            0 => {
                let _ = rig.hear(&announce(host, SHARED, &[of(TCP, part)]));
            }
            1 | 2 => {
                let _ = rig.hear(&release(host, SHARED, &[full()]));
            }
            3 => {
                let gap = PortRange::new(port, port.saturating_add(1)).unwrap();
                let to = PeAddress::new(ROUTER);
                let nak = Message::nak(
                    AUTHORITY,
                    asked,
                    ROUTER_MAC,
                    to,
                    Record::new(Claim::Range(gap), Lifetime::Seconds(2)),
                );
                let _ = rig.hear(&nak);
            }
            4 => rig.wait(millis(rng.random_range(0..1500))),
            _ => {
                let protocol = if rng.random() { TCP } else { UDP };
                let target = Target { protocol, ..tcp(SHARED, port) };
                let frame = Frame::from_packet(&[&u32::to_be_bytes(next)[..], &[0; 1500]].concat());
                if rig.next_hop(target).is_none() && rig.enqueue(target, frame).is_ok() {
                    waiting.insert(next);
                }
                next += 1;
            }
        }
        for (ended, _) in rig.take_ends() {
            assert!(waiting.remove(&ended), "packet {ended} did not wait, or ended twice");
        }
    }
    rig.wait(secs(100));
    for (ended, _) in rig.take_ends() {
        assert!(waiting.remove(&ended), "packet {ended}");
    }
    assert!(waiting.is_empty(), "never ended: {waiting:?}");
}

//! Hostile input to the router: each frame is counted under its own reason, and leaves the state as it should be.

use std::collections::{BTreeMap, BTreeSet};

use smoltcp::time::Duration;
use smoltcp::wire::EthernetAddress;

use super::*;
use crate::neighbor::{MAX_BINDINGS, MAX_BINDINGS_PER_ADDRESS};
use crate::node::support::*;
use crate::wire::pe_arp::{DEFAULT_PRO, Kind, MAX_RECORDS, Message, PeAddress};
use crate::wire::{ETHERNET_HEADER, pe_arp_frame};

const STRANGER: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0x66]);

/// A live packet from outside to A, and where it goes.
fn live(bench: &mut Bench<Router>) -> Outcome {
    bench.give(OUTSIDE, ethernet(SERVER_MAC, OUTSIDE_MAC, &tcp((SERVER, 443), (SHARED, 5000))))
}

#[track_caller]
fn assert_a_is_reached(bench: &mut Bench<Router>) {
    let outcome = live(bench);
    assert_eq!(outcome.verdict, Verdict::Forward(LAN));
    assert_eq!(addresses(&outcome.frame).1, A);
}

/// A router for which A has just confirmed that it owns its set.
fn router_with_confirmed_owner() -> Bench<Router> {
    let mut bench = router_with_neighbors();
    live(&mut bench);
    let (sent, _) = bench.pass(Duration::from_secs(6));
    let probe =
        sent.iter().find(|(_, frame)| addresses(frame).1 == A).expect("a stale binding in use is confirmed");
    bench.give(LAN, reply(A, &probe.1, psid("0,4,1")));
    bench
}

fn from_stranger(message: Message) -> Frame {
    pe_arp_frame(
        if message.target_hardware.0 == [0; 6] { EthernetAddress::BROADCAST } else { ROUTER_MAC },
        &message,
        DEFAULT_PRO,
    )
}

/// Every kind of message that must not be believed, with the reason that it is counted under.
#[test]
fn each_lie_has_its_reason() {
    let mut bench = router_with_confirmed_owner();
    let port = shared(SHARED).with_port(6, Some(5000));
    let to_router = PeAddress { router: true, ..PeAddress::new(ROUTER) };
    let stolen = [psid("0,4,1")];
    let gap = crate::ports::PortRange::new(4096, 8191).unwrap();
    let with_sender = |sender: EthernetAddress| {
        let mut frame = announce(STRANGER, SHARED, psid("0,4,7"));
        frame.bytes_mut()[6..12].copy_from_slice(&sender.0);
        frame.bytes_mut()[ETHERNET_HEADER + 8..ETHERNET_HEADER + 14].copy_from_slice(&sender.0);
        frame
    };
    let lies = [
        (
            "a reply nobody asked for",
            { from_stranger(Message::reply(STRANGER, port, ROUTER_MAC, to_router, &stolen)) },
            DropReason::Unsolicited,
        ),
        (
            "a reply to another host",
            { from_stranger(Message::reply(STRANGER, port, B, to_router, &stolen)) },
            DropReason::ArpNotForUs,
        ),
        (
            "a reply without the asked port",
            { from_stranger(Message::reply(STRANGER, port, ROUTER_MAC, to_router, &[psid("0,4,7")])) },
            DropReason::WithoutAsked,
        ),
        (
            "a NAK of no authority",
            {
                let ttl = crate::wire::pe_arp::Lifetime::Seconds(60);
                from_stranger(Message::nak(
                    STRANGER,
                    port,
                    ROUTER_MAC,
                    to_router,
                    Record::new(Claim::Range(gap), ttl),
                ))
            },
            DropReason::NoAuthority,
        ),
        (
            "a SOLICIT-ALL of a host",
            {
                let mut message = Message::solicit_all(STRANGER, PeAddress::new(WHOLE), ROUTER);
                message.sender.router = false;
                from_stranger(message)
            },
            DropReason::SolicitAll,
        ),
        ("a claim to an address elsewhere", announce(STRANGER, SERVER, FULL), DropReason::OffLinkClaim),
        (
            "a claim to the router's own address",
            announce(STRANGER, ROUTER, FULL),
            DropReason::ConflictingClaim,
        ),
        (
            "an announcement of nothing",
            {
                let first = shared(SHARED).with_port(0, Some(4096));
                let mut message = Message::announce(STRANGER, first, &[]);
                message.complete = false;
                from_stranger(message)
            },
            DropReason::NoRecords,
        ),
        (
            "plain ARP from a shared address",
            { plain_arp(2, (STRANGER, SHARED), (ROUTER_MAC, ROUTER)) },
            DropReason::PlainForShared,
        ),
        ("a broadcast sender", with_sender(EthernetAddress::BROADCAST), DropReason::ArpSender),
        ("a group as sender", with_sender(EthernetAddress([1, 0, 0x5E, 0, 0, 1])), DropReason::ArpSender),
        ("nobody as sender", with_sender(EthernetAddress([0; 6])), DropReason::ArpSender),
        ("an own frame", with_sender(ROUTER_MAC), DropReason::OwnEcho),
    ];
    for (what, frame, reason) in lies {
        let outcome = bench.give(LAN, frame);
        assert_eq!(outcome.verdict, Verdict::Dropped(reason), "{what}");
        // The router defends its own address, and nothing else is sent about any of it.
        let defended = i64::from(reason == DropReason::ConflictingClaim);
        let mut counted = vec![("received", 1), (reason.name(), 1)];
        counted.extend((defended > 0).then_some(("arp_sent", 1)));
        assert_eq!(outcome.counted, counted.into_iter().collect(), "{what}");
        assert_a_is_reached(&mut bench);
    }
    let known = bench.node.neighbors(bench.now);
    assert!(known.iter().all(|(_, entry)| entry.hardware != Some(STRANGER)), "nothing of it was learned");
}

/// Every length of frame, from nothing to the largest that a link gives: no panic, and each ends once.
#[test]
fn every_length_of_frame() {
    let mut bench = router_with_neighbors();
    let whole = ethernet(SERVER_MAC, OUTSIDE_MAC, &udp((SERVER, 53), (SHARED, 5000), &[7; 1400]));
    let announcement = announce(STRANGER, SHARED, psid("0,4,7"));
    for bytes in [whole.bytes(), announcement.bytes()] {
        for len in 0..bytes.len() {
            bench.give(LAN, Frame::from_ethernet(&bytes[..len]));
        }
    }
    for len in [1515, 9000, 65_000] {
        let long = [announcement.bytes(), &vec![0xFF; len - announcement.len()][..]].concat();
        let outcome = bench.give(LAN, Frame::from_ethernet(&long));
        assert_eq!(outcome.verdict, Verdict::Delivered, "what is behind the message is padding");
    }
}

/// A PSID of a = 15 stands for 32,767 ranges. It is learned, looked up and listed without being expanded.
#[test]
fn scattered_sets_are_not_expanded() {
    let mut bench = router_with_neighbors();
    let scattered: Vec<_> = ["15,1,0", "15,1,1"].map(psid).into_iter().cycle().take(MAX_RECORDS).collect();
    let first = shared(SHARED).with_port(0, Some(2));
    for host in 0..200u8 {
        let owner = EthernetAddress([2, 0, 0, 0, 7, host]);
        let message = Message::announce(owner, first, &scattered);
        let outcome = bench.give(LAN, pe_arp_frame(EthernetAddress::BROADCAST, &message, DEFAULT_PRO));
        assert_eq!(outcome.verdict, Verdict::Delivered);
    }
    // One list entry for each record; the ranges would be 32,767 times as many.
    assert!(bench.node.neighbors(bench.now).len() <= 201 * MAX_RECORDS);
}

/// 100,000 forged claims: the table stays within its bounds, and the owner who confirmed its set keeps it.
#[test]
fn forged_claims_are_bounded() {
    let mut bench = router_with_confirmed_owner();
    let mut ends: BTreeMap<&'static str, u32> = BTreeMap::new();
    for number in 0..100_000u32 {
        let [_, b, c, d] = number.to_be_bytes();
        let forger = EthernetAddress([2, 0x66, 0, b, c, d]);
        // Half claim the owner's ports, half those of other addresses on the link.
        let ip = if number % 2 == 0 { SHARED } else { Ipv4Addr::new(198, 51, 100, 60 + d % 128) };
        let outcome = bench.give(LAN, announce(forger, ip, psid("0,4,1")));
        let end = match outcome.verdict {
            Verdict::Delivered => "learned",
            Verdict::Dropped(reason) => reason.name(),
            other => panic!("{other:?}"),
        };
        *ends.entry(end).or_default() += 1;
    }
    assert_eq!(ends.values().sum::<u32>(), 100_000);
    assert!(ends["table_full"] > 0, "{ends:?}");
    let known = bench.node.neighbors(bench.now);
    assert!(known.len() <= MAX_BINDINGS + 10);
    let of_shared = known.iter().filter(|(_, entry)| entry.ip == SHARED).count();
    assert!(of_shared <= MAX_BINDINGS_PER_ADDRESS, "{of_shared}");
    assert_a_is_reached(&mut bench);
}

/// A router whose LAN has one shared address of this scheme.
fn router_of(scheme: &str) -> Bench<Router> {
    let mut config = router_config();
    config.shared = vec![(SHARED, scheme.parse().unwrap())];
    let now = Instant::from_secs(1);
    let mut bench = Bench { node: Router::new(config, now), now };
    bench.pass(Duration::from_secs(5));
    bench.give(OUTSIDE, plain_arp(1, (SERVER_MAC, SERVER), (EthernetAddress([0; 6]), OUTSIDE_ROUTER)));
    bench
}

/// Rules 36, 38 and 48: a scan of all ports asks at most one question per PSID, each at most 3 times while it is
/// failed, and live traffic is forwarded at once all the while.
#[test]
fn a_scan_does_not_hold_up_live_traffic() {
    for (scheme, own, sets) in [("0,4", "0,4,1", 16), ("0,10", "0,10,78", 1024), ("6,10", "6,10,0", 1024)] {
        let mut bench = router_of(scheme);
        let own: crate::ports::Psid = own.parse().unwrap();
        bench.give(LAN, announce(A, SHARED, psid(&own.to_string())));
        let live = tcp((SERVER, 443), (SHARED, own.first()));
        let (mut questions, mut ports) = (BTreeMap::<_, u32>::new(), BTreeSet::new());
        let mut note = |sent: &[(LinkId, Frame)]| {
            for message in sent.iter().filter_map(|(_, frame)| message_of(frame)) {
                if message.kind() == Kind::Resolve && message.target_hardware.0 == [0; 6] {
                    *questions.entry(message.target.port).or_default() += 1;
                    ports.insert(message.target.port);
                }
            }
        };
        let start = bench.now;
        for port in 0..=u16::MAX {
            if own.contains(port) {
                continue;
            }
            let scan =
                bench.give(OUTSIDE, ethernet(SERVER_MAC, OUTSIDE_MAC, &tcp((SERVER, 1), (SHARED, port))));
            note(&scan.sent);
            if port % 64 == 0 {
                let outcome = bench.give(OUTSIDE, ethernet(SERVER_MAC, OUTSIDE_MAC, &live));
                assert_eq!(outcome.verdict, Verdict::Forward(LAN), "{scheme}");
                assert_eq!(addresses(&outcome.frame).1, A);
                // 65,536 probes in 1 s.
                let (sent, _) = bench.pass(Duration::from_millis(1));
                note(&sent);
            }
        }
        assert!(bench.now - start < Duration::from_secs(3), "within one negative lifetime");
        assert!(questions.len() <= sets, "{scheme}: {} questions", questions.len());
        assert!(questions.values().all(|times| *times <= 3), "{scheme}");
        assert!(!questions.is_empty());
    }
}

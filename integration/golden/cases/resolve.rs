//! The router finds owners: questions, answers, and what there is none of.

use pearp::ports::PortRange;
use pearp::wire::pe_arp::{Claim, Lifetime, Message, PeAddress, Record};

use crate::case::Case;
use crate::packets::*;
use crate::topology::Link::{Lan, Outside};
use crate::topology::*;

/// To a port of h3, which the router does not know.
fn packet(port: u16) -> Vec<u8> {
    udp((SERVER, 53), (SHARED, port))
}

fn of_h3() -> Record {
    psid("0,4,3")
}

/// h3 has what it is asked for.
fn reply(port: u16) -> Vec<u8> {
    answers(H3, (SHARED, UDP, port), of_h3())
}

pub(crate) fn cases() -> Vec<Case> {
    [answered(), unanswered(), refused(), neighbors(), confirmations()].concat()
}

/// The question about the first packet.
fn question() -> Vec<u8> {
    router_asks(SHARED, UDP, Some(13_000))
}

/// The first packet waits, and the router asks.
fn asked(name: &str, setup: Setup, shows: &str, rules: &'static str) -> Case {
    Case::new(format!("resolve/{name}"), setup, shows, rules)
        .given(Outside, from_server(&packet(13_000)))
        .says(Lan, question())
}

/// A packet leaves to h3.
fn arrives(case: Case, packet: &[u8]) -> Case {
    case.forwards(Lan, to_host(H3, &forwarded(packet)))
}

fn answered() -> Vec<Case> {
    let first = packet(13_000);
    let second = tcp((SERVER, 443), (SHARED, 16_383));
    let answered = |case: Case| arrives(case.given(Lan, reply(13_000)).takes(), &first);
    let several = asked(
        "one_question_per_set",
        Setup::Router,
        "Packets to ports of one PSID raise one question, and leave in their order.",
        "PE-ARP rules 36, 38, 45",
    )
    .given(Outside, from_server(&second))
    .given(Outside, from_server(&first));
    let whole_set = asked(
        "whole_set",
        Setup::Router,
        "One REPLY has the whole set: a packet to another port of it raises no question.",
        "PE-ARP §4",
    );
    let next = packet(12_288);
    let announced = asked(
        "announcement",
        Setup::Router,
        "An ANNOUNCE of the owner ends the wait as a REPLY does.",
        "PE-ARP rules 20, 45",
    )
    .wait(499)
    .given(Lan, announce(H3, SHARED, of_h3()))
    .takes();
    vec![
        answered(asked(
            "reply",
            Setup::NewRouter,
            "A packet waits for the REPLY of the owner of its port, and then leaves.",
            "PE-ARP rules 38, 45",
        )),
        arrives(arrives(answered(several), &second), &first),
        arrives(answered(whole_set).given(Outside, from_server(&next)), &next),
        arrives(announced, &first),
    ]
}

/// Three questions, a second apart, and nobody answers.
fn failed(name: &str, shows: &str, rules: &'static str) -> Case {
    asked(name, Setup::Router, shows, rules)
        .wait(1000)
        .says(Lan, question())
        .wait(1000)
        .says(Lan, question())
        .wait(1000)
        .drops("unreachable")
        .originates(Outside, to_server(&own_error_late(OUTSIDE_ROUTER, (3, 1), &packet(13_000))))
}

fn unanswered() -> Vec<Case> {
    let again = packet(13_001);
    let at_once = |case: Case| {
        case.given(Outside, from_server(&again))
            .drops("unreachable")
            .originates(Outside, to_server(&own_error_late(OUTSIDE_ROUTER, (3, 1), &again)))
    };
    let ended = failed(
        "negative_ends",
        "Three seconds after the failure the next packet is asked for anew, and h3 answers.",
        "PE-ARP rule 42",
    )
    .wait(3000)
    .given(Outside, from_server(&again))
    .says(Lan, router_asks(SHARED, UDP, Some(13_001)))
    .given(Lan, reply(13_001))
    .takes();
    let claimed = at_once(failed(
        "claim_ends_negative",
        "An ANNOUNCE of the owner ends what is known to have failed, at once.",
        "PE-ARP rule 44",
    ))
    .given(Lan, announce(H3, SHARED, of_h3()))
    .takes()
    .given(Outside, from_server(&again));
    vec![
        failed(
            "unanswered",
            "Nobody answers three questions: the packet is dropped, and its sender told.",
            "PE-ARP rules 38, 42, 83",
        ),
        at_once(failed(
            "negative",
            "After a failure, packets to all of the set are dropped at once for three seconds.",
            "PE-ARP rules 36, 42",
        )),
        arrives(ended, &again)
            // The server was learned by plain ARP, and sent to 5 s ago (rule 32).
            .wait(1998)
            .says(Outside, plain_arp(1, SERVER_MAC, (OUTSIDE_MAC, OUTSIDE_ROUTER), (NO_MAC, SERVER)))
            .given(Outside, arp_reply((SERVER_MAC, SERVER), (OUTSIDE_MAC, OUTSIDE_ROUTER)))
            .takes(),
        arrives(claimed, &again),
    ]
}

/// Answers that are no answers: the question stays open until a right one comes.
fn refused() -> Vec<Case> {
    let asked_for = shared(SHARED).with_port(UDP, Some(13_000));
    let named = |hardware, to, record: Record| Message::reply(hardware, asked_for, to, ROUTER_PE, &[record]);
    let bad = |name: &str, shows: &str, rules, message: Message, reason: &str| {
        let case = asked(name, Setup::Router, shows, rules)
            .given(Lan, pe(ROUTER_MAC, &message))
            .drops(reason)
            .given(Lan, reply(13_000))
            .takes();
        arrives(case, &packet(13_000))
    };
    let gap = Record::new(Claim::Range(PortRange::new(12_288, 16_383).unwrap()), Lifetime::Seconds(60));
    let mut spoken = named(STRANGER, ROUTER_MAC, of_h3());
    spoken.authority = true;
    vec![
        bad(
            "reply_without_asked",
            "A REPLY whose set does not have the asked port is no answer.",
            "PE-ARP rules 2, 15",
            named(STRANGER, ROUTER_MAC, psid("0,4,4")),
            "without_asked",
        ),
        bad(
            "reply_to_another",
            "A REPLY to another host is no answer.",
            "PE-ARP rule 14",
            named(STRANGER, H1, of_h3()),
            "arp_not_for_us",
        ),
        bad(
            "nak_of_no_authority",
            "A NAK is believed from an authority only.",
            "PE-ARP rules 28, 43",
            Message::nak(STRANGER, asked_for, ROUTER_MAC, ROUTER_PE, gap),
            "no_authority",
        ),
        bad(
            "false_authority",
            "Nobody speaks for others but an authority.",
            "PE-ARP rule 28",
            spoken,
            "no_authority",
        ),
        Case::new(
            "resolve/unsolicited_reply",
            Setup::Router,
            "A REPLY that nobody asked for teaches nothing: the next packet to the set is asked for.",
            "PE-ARP rule 20",
        )
        .given(Lan, reply(13_000))
        .drops("unsolicited")
        .given(Outside, from_server(&packet(13_000)))
        .says(Lan, question())
        .given(Lan, reply(13_000))
        .takes()
        .forwards(Lan, to_host(H3, &forwarded(&packet(13_000)))),
    ]
}

fn neighbors() -> Vec<Case> {
    let to_legacy = tcp((SERVER, 443), (UNKNOWN, 80));
    let asks_both = |case: Case| {
        case.says(Lan, router_asks_one(EVERYBODY, PeAddress::new(UNKNOWN).with_port(TCP, Some(80))))
            .says(Lan, arp_request((ROUTER_MAC, ROUTER), UNKNOWN))
    };
    let upstream = tcp((SHARED, 5000), (SERVER, 443));
    let lost = own_error_late(OUTSIDE_ROUTER, (3, 1), &to_legacy);
    vec![
        asks_both(
            Case::new(
                "resolve/legacy",
                Setup::Router,
                "Where nobody knows that it is shared, RESOLVE and plain ARP go out together; a plain answer will do.",
                "PE-ARP rules 4, 27, 40",
            )
            .given(Outside, from_server(&to_legacy)),
        )
        .given(Lan, arp_reply((STRANGER, UNKNOWN), (ROUTER_MAC, ROUTER)))
        .takes()
        .forwards(Lan, to_host(STRANGER, &forwarded(&to_legacy))),
        asks_both(
            asks_both(
                asks_both(
                    Case::new(
                        "resolve/legacy_unanswered",
                        Setup::Router,
                        "No such host: three questions of both kinds, then host unreachable.",
                        "PE-ARP rules 38, 40, 83",
                    )
                    .given(Outside, from_server(&to_legacy)),
                )
                .wait(1000),
            )
            .wait(1000),
        )
        .wait(1000)
        .drops("unreachable")
        .originates(Outside, to_server(&lost)),
        Case::new(
            "resolve/outside",
            Setup::NewRouter,
            "On the outside the next hop is asked for by plain ARP alone.",
            "RFC 826; RFC 1812 §3.3.2",
        )
        .given(Lan, from_host(H1, &upstream))
        .says(Outside, arp_request((OUTSIDE_MAC, OUTSIDE_ROUTER), SERVER))
        .given(Outside, arp_reply((SERVER_MAC, SERVER), (OUTSIDE_MAC, OUTSIDE_ROUTER)))
        .takes()
        .forwards(Outside, to_server(&forwarded(&upstream))),
        Case::new(
            "resolve/after_restart",
            Setup::StartingRouter,
            "A router that starts asks every owner of each shared address once; answers within two seconds are taken.",
            "PE-ARP rules 20, 84",
        )
        .says(Lan, pe(EVERYBODY, &Message::solicit_all(ROUTER_MAC, ROUTER_PE, SHARED)))
        .says(Lan, pe(EVERYBODY, &Message::solicit_all(ROUTER_MAC, ROUTER_PE, SCATTERED)))
        .wait(700)
        .given(Lan, pe(ROUTER_MAC, &Message::reply(H3, shared(SHARED), ROUTER_MAC, ROUTER_PE, &[of_h3()])))
        .takes()
        .given(Outside, from_server(&packet(13_000)))
        .forwards(Lan, to_host(H3, &forwarded(&packet(13_000)))),
    ]
}

/// What is not confirmed is asked about when it has been used (RFC 4861 §7.3.3).
fn confirmations() -> Vec<Case> {
    let used = |name: &str, shows: &str, rules| {
        let case = Case::new(format!("resolve/{name}"), Setup::Router, shows, rules)
            .given(Lan, announce(H3, SHARED, of_h3()))
            .takes()
            .given(Outside, from_server(&packet(13_000)));
        arrives(case, &packet(13_000)).wait(5000)
    };
    // The lowest port of the set, which every protocol has.
    let probe = || router_asks_one(H3, shared(SHARED).with_port(0, Some(12_288)));
    let confirmed = used(
        "confirmed",
        "What an ANNOUNCE said is asked about by unicast 5 s after its first use, and confirmed.",
        "PE-ARP rules 32, 34",
    )
    .says(Lan, probe())
    .given(Lan, answers(H3, (SHARED, 0, 12_288), of_h3()))
    .takes()
    .given(Outside, from_server(&packet(13_000)));
    vec![
        arrives(confirmed, &packet(13_000)),
        used(
            "unconfirmed",
            "An owner that does not confirm is forgotten after three questions, and the next packet asks all.",
            "PE-ARP rule 32",
        )
        .asks_in_vain(Lan, &probe())
        .given(Outside, from_server(&packet(13_000)))
        .says(Lan, question())
        .given(Lan, reply(13_000))
        .takes()
        .forwards(Lan, to_host(H3, &forwarded(&packet(13_000)))),
    ]
}

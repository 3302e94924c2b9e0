//! PE-ARP and plain ARP that must not be believed.

use super::*;
use crate::ports::{PortRange, PortSet};
use crate::wire::pe_arp::{
    DEFAULT_PRO, HEADER_LEN, Lifetime, MAX_RECORDS, Message, PeAddress, RECORD_LEN, Record,
};
use crate::wire::{ETHERNET_HEADER, pe_arp_frame};

/// Not on the LAN.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);

/// Addresses that no host has.
const NOBODY: [Ipv4Addr; 6] = [
    Ipv4Addr::new(0, 1, 2, 3),
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::new(224, 0, 0, 1),
    Ipv4Addr::new(240, 0, 0, 1),
    Ipv4Addr::BROADCAST,
    LINK_BROADCAST,
];

/// A set that nobody has.
fn free() -> Record {
    psid("0,4,7")
}

/// The set of A.
fn of_a() -> Record {
    psid("0,4,1")
}

fn frame_of(us: Us, message: &Message) -> Frame {
    let to_us = message.target_hardware == us.hardware;
    let destination = if to_us { us.hardware } else { EthernetAddress::BROADCAST };
    pe_arp_frame(destination, message, DEFAULT_PRO)
}

fn altered(mut message: Message, alter: impl FnOnce(&mut Message)) -> Message {
    alter(&mut message);
    message
}

/// The frame with other bytes from `at` on in its ARP message.
fn patched(mut frame: Frame, at: usize, bytes: &[u8]) -> Frame {
    frame.bytes_mut()[ETHERNET_HEADER + at..][..bytes.len()].copy_from_slice(bytes);
    frame
}

/// The frame from another link-layer address, in its Ethernet header and in its message.
fn from(frame: Frame, ethernet: EthernetAddress, sender: EthernetAddress) -> Frame {
    let mut frame = patched(frame, 8, &sender.0);
    frame.bytes_mut()[6..12].copy_from_slice(&ethernet.0);
    frame
}

/// An announcement of a free set by a stranger, with these records as bytes.
fn with_records(records: &[[u8; RECORD_LEN]]) -> Frame {
    let message = announce(STRANGER, SHARED, free());
    let head = &message.bytes()[..ETHERNET_HEADER + HEADER_LEN];
    let frame = Frame::from_ethernet(&[head, &records.concat()].concat());
    patched(frame, HEADER_LEN - 1, &[records.len() as u8])
}

/// As many ranges of one port as wanted, in the free set, as bytes and as claims.
fn single_ports(count: u16) -> (Vec<[u8; RECORD_LEN]>, Vec<Claim>) {
    let ports = (0..count).map(|n| 28_672 + 2 * n);
    let bytes = |port: u16| {
        let [high, low] = port.to_be_bytes();
        [1, 0, high, low, high, low, 0xFF, 0xFF]
    };
    ports.map(|port| (bytes(port), Claim::Range(PortRange::single(port)))).unzip()
}

pub(super) fn cases(us: Us) -> Vec<Case> {
    let mut cases = Cases::default();
    headers(&mut cases);
    records(&mut cases);
    senders(us, &mut cases);
    protocol_addresses(us, &mut cases);
    answers_nobody_asked_for(us, &mut cases);
    claims(us, &mut cases);
    questions(us, &mut cases);
    plain(us, &mut cases);
    cases.0
}

/// Rules 8 and 12.
fn headers(cases: &mut Cases) {
    let whole = announce(STRANGER, SHARED, free());
    for len in 0..whole.len() {
        let reason = if len < ETHERNET_HEADER { DropReason::ShortFrame } else { DropReason::Truncated };
        cases.dropped(format!("{len} bytes"), Frame::from_ethernet(&whole.bytes()[..len]), reason);
    }
    let (records, _) = single_ports(4);
    let four = with_records(&records);
    for len in ETHERNET_HEADER + HEADER_LEN..four.len() {
        let frame = Frame::from_ethernet(&four.bytes()[..len]);
        cases.dropped(format!("4 records in {len} bytes"), frame, DropReason::Truncated);
    }
    for count in 2..=u8::MAX {
        let frame = patched(whole.clone(), HEADER_LEN - 1, &[count]);
        cases.dropped(format!("1 record that says it is {count}"), frame, DropReason::Truncated);
    }
    let mut patch = |what: &str, at: usize, values: &[u16], reason| {
        for value in values {
            let frame = patched(whole.clone(), at, &value.to_be_bytes());
            cases.dropped(format!("{what} {value:#06x}"), frame, reason);
        }
    };
    patch("hrd", 0, &[0, 2, 6, 0x0100, u16::MAX], DropReason::ArpFormat);
    // With 0x0800 it is plain ARP with wrong lengths.
    patch("pro", 2, &[0, 0x0800, 0x0801, 0x86DD, 0x88B6, u16::MAX], DropReason::ArpFormat);
    patch(
        "hln, pln",
        4,
        &[0x0008, 0x0508, 0x0708, 0xFF08, 0x0600, 0x0604, 0x0609, 0x06FF],
        DropReason::ArpFormat,
    );
    patch("op", 6, &[0, 3, 4, 8, 9, 11, 0x0100, 0x0A00, u16::MAX], DropReason::PeArpOperation);
    for version in (0..16).filter(|version| *version != 1) {
        let frame = patched(whole.clone(), 36, &[version << 4 | 1]);
        cases.dropped(format!("version {version}"), frame, DropReason::PeArpVersion);
    }
    for ethertype in [0x0000_u16, 0x002E, 0x0805, 0x0807, 0x8035, 0x8100, 0x86DD] {
        let mut frame = whole.clone();
        frame.bytes_mut()[12..14].copy_from_slice(&ethertype.to_be_bytes());
        cases.dropped(format!("EtherType {ethertype:#06x}"), frame, DropReason::EtherType);
    }
    let mut to_b = whole;
    to_b.bytes_mut()[..6].copy_from_slice(&B.0);
    cases.dropped("a frame for another host", to_b, DropReason::NotOurFrame);
}

/// Rules 11, 17, 18 and 29.
fn records(cases: &mut Cases) {
    let mut invalid = |what: String, record: [u8; RECORD_LEN]| {
        cases.dropped(what.clone(), with_records(&[record]), DropReason::PeArpRecord);
        // One is enough, wherever it is, and the others are not taken.
        let (mut many, _) = single_ports(119);
        many.push(record);
        cases.dropped(format!("{what}, the last of 120"), with_records(&many), DropReason::PeArpRecord);
    };
    for kind in [0].into_iter().chain(5..=u8::MAX) {
        invalid(format!("record of kind {kind}"), [kind, 0, 0x70, 0, 0x7F, 0xFF, 0, 60]);
    }
    for (first, last) in [(1_u16, 0_u16), (28_673, 28_672), (u16::MAX, 0), (0x7000, 0x00FF)] {
        let ([a, b], [c, d]) = (first.to_be_bytes(), last.to_be_bytes());
        invalid(format!("range {first}-{last}"), [1, 0, a, b, c, d, 0, 60]);
    }
    for (a, k) in [(16, 0), (255, 0), (0, 17), (0, 255), (15, 2), (9, 8), (1, 16), (255, 255), (128, 128)] {
        invalid(format!("PSID of a = {a}, k = {k}"), [2, 0, a, k, 0, 0, 0, 60]);
    }
    for (a, k, bits) in [(0, 0, 1_u16), (0, 0, 0x8000), (0, 4, 0x0800), (6, 8, 0x3401), (15, 1, 0x4000)] {
        let [high, low] = bits.to_be_bytes();
        invalid(format!("PSID of k = {k} in the bits {bits:#06x}"), [2, 0, a, k, high, low, 0, 60]);
    }
    for body in [[0; 4], [0, 0, 0xFF, 0xFE], [0, 1, 0xFF, 0xFF], [0xFF; 4]] {
        invalid(format!("FULL of {body:?}"), [3, 0, body[0], body[1], body[2], body[3], 0, 60]);
    }
    for count in [120, MAX_RECORDS as u16] {
        let (records, claims) = single_ports(count);
        let learned = End::taken().learning(SHARED, STRANGER, &claims);
        cases.add(format!("{count} records"), with_records(&records), learned.clone(), learned);
    }
    for count in [MAX_RECORDS as u16 + 1, 255] {
        let (records, _) = single_ports(count);
        cases.dropped(format!("{count} records"), with_records(&records), DropReason::TableFull);
    }
    for padding in [1, 7, 8, 100, 1400, 8986, 65_000 - 60] {
        let frame = announce(STRANGER, SHARED, free());
        let frame = Frame::from_ethernet(&[frame.bytes(), &vec![0xFF; padding]].concat());
        let learned = End::taken().learning(SHARED, STRANGER, &[free().claim]);
        cases.add(format!("{padding} bytes of padding"), frame, learned.clone(), learned);
    }
    let scattered = ["15,1,0", "15,1,1"].map(psid);
    let bytes = [[2, 0, 15, 1, 0, 0, 0xFF, 0xFF], [2, 0, 15, 1, 0x80, 0, 0xFF, 0xFF]];
    let claims = scattered.map(|record| record.claim);
    // The router asks A and B about the ports that they have confirmed; to the host each record meets its own ports,
    // which it defends, and those of B, which is asked.
    let router = End::taken().answered("Resolve", A).answered("Resolve", B);
    let host = End::dropped(DropReason::ConflictingClaim)
        .answered("Announce", EthernetAddress::BROADCAST)
        .answered("Resolve", B)
        .learning(SHARED, STRANGER, &claims);
    cases.add("all ports, scattered", with_records(&bytes), router.learning(SHARED, STRANGER, &claims), host);
}

/// Rule 9, for both kinds of ARP.
fn senders(us: Us, cases: &mut Cases) {
    let group = EthernetAddress([1, 0, 0x5E, 0, 0, 1]);
    let nobody = EthernetAddress([0; 6]);
    let plain = plain_arp(1, (STRANGER, Ipv4Addr::new(198, 51, 100, 77)), (nobody, us.ip));
    for (kind, frame) in [("PE-ARP", announce(STRANGER, SHARED, free())), ("plain ARP", plain)] {
        for (what, ethernet, sender, reason) in [
            (
                "a broadcast sender",
                EthernetAddress::BROADCAST,
                EthernetAddress::BROADCAST,
                DropReason::ArpSender,
            ),
            ("a group as sender", group, group, DropReason::ArpSender),
            ("nobody as sender", nobody, nobody, DropReason::ArpSender),
            ("another sender than the frame's", STRANGER, A, DropReason::ArpSender),
            ("a frame of another than the sender", B, STRANGER, DropReason::ArpSender),
            ("a broadcast frame of a host", EthernetAddress::BROADCAST, STRANGER, DropReason::ArpSender),
            ("the receiver as sender", STRANGER, us.hardware, DropReason::ArpSender),
            ("an own frame", us.hardware, us.hardware, DropReason::OwnEcho),
            ("an own frame of another sender", us.hardware, STRANGER, DropReason::OwnEcho),
        ] {
            let what = format!("{kind}: {what}");
            cases.dropped(what, from(frame.clone(), ethernet, sender), reason);
        }
    }
}

/// Rules 2, 10 and 21.
fn protocol_addresses(us: Us, cases: &mut Cases) {
    let asker = PeAddress::new(WHOLE);
    let question = |from: Ipv4Addr, about: Ipv4Addr| {
        let (sender, target) = (PeAddress::new(from), PeAddress::new(about).with_port(6, Some(28_700)));
        frame_of(us, &Message::resolve(STRANGER, sender, target, &[free()]))
    };
    for ip in NOBODY {
        let reason = DropReason::ArpAddress;
        cases.dropped(format!("an announcement of {ip}"), announce(STRANGER, ip, free()), reason);
        cases.dropped(format!("a question from {ip}"), question(ip, us.ip), reason);
        cases.dropped(format!("a question about {ip}"), question(WHOLE, ip), reason);
        let solicit = Message::solicit_all(STRANGER, asker, ip);
        cases.dropped(format!("a SOLICIT-ALL for {ip}"), frame_of(us, &solicit), reason);
        let answer = Message::reply(STRANGER, shared(SHARED), us.hardware, PeAddress::new(ip), &[free()]);
        cases.dropped(format!("a reply to {ip}"), frame_of(us, &answer), reason);
        let probe = Message::probe(STRANGER, shared(ip).with_port(0, Some(28_672)), &[free()]);
        cases.dropped(format!("a probe for {ip}"), frame_of(us, &probe), reason);
    }
    let zero = Ipv4Addr::UNSPECIFIED;
    cases.dropped("a question about 0.0.0.0", question(WHOLE, zero), DropReason::ArpAddress);
    cases.ignored("an announcement from 0.0.0.0 is a probe", {
        let message = frame_of(us, &Message::probe(STRANGER, shared(SHARED), &[free()]));
        patched(message, 36, &[0x11])
    });
    cases.dropped("an address elsewhere", announce(STRANGER, ELSEWHERE, free()), DropReason::OffLinkClaim);
    cases.ignored("a question about an address elsewhere", {
        let target = PeAddress::new(ELSEWHERE).with_port(6, Some(80));
        frame_of(us, &Message::resolve(STRANGER, asker, target, &[]))
    });
    // Rule 21: nothing is learned of the asker, who gets an answer all the same.
    let own = if us == THE_ROUTER { PeAddress::new(ROUTER) } else { shared(SHARED) };
    let from_elsewhere =
        Message::resolve(STRANGER, PeAddress::new(ELSEWHERE), own.with_port(6, Some(5000)), &[free()]);
    let end = End::dropped(DropReason::OffLinkClaim).answered("Reply", STRANGER);
    cases.add("a question from elsewhere", frame_of(us, &from_elsewhere), end.clone(), end);
}

/// Rules 14, 15, 20, 28 and 57.
fn answers_nobody_asked_for(us: Us, cases: &mut Cases) {
    let port = shared(SHARED).with_port(6, Some(28_700));
    let to_us =
        if us == THE_ROUTER { PeAddress { router: true, ..PeAddress::new(ROUTER) } } else { shared(SHARED) };
    let reply = |from, to, owned| Message::reply(from, port, to, to_us, &[owned]);
    let ours = us.hardware;
    let mut add = |what: &str, message: &Message, reason| {
        cases.dropped(what, frame_of(us, message), reason);
    };
    add("a reply nobody asked for", &reply(STRANGER, ours, free()), DropReason::Unsolicited);
    add("an owner's reply nobody asked for", &reply(B, ours, free()), DropReason::Unsolicited);
    add("a reply to another host", &reply(STRANGER, C, free()), DropReason::ArpNotForUs);
    add("a reply without the asked port", &reply(STRANGER, ours, psid("0,4,8")), DropReason::WithoutAsked);
    let no_records = Message::reply(STRANGER, port, ours, to_us, &[]);
    add("a reply without records", &no_records, DropReason::WithoutAsked);
    let all = Message::reply(STRANGER, shared(SHARED), ours, to_us, &[of_a()]);
    add("an answer to SOLICIT-ALL, too late", &all, DropReason::Unsolicited);
    // Rule 28: whatever it is, only an authority may say that it is one.
    for message in [
        reply(STRANGER, ours, free()),
        Message::announce(STRANGER, port, &[free()]),
        Message::resolve(STRANGER, PeAddress::new(WHOLE), to_us.with_port(6, Some(5000)), &[]),
        Message::solicit_all(STRANGER, PeAddress::new(WHOLE), us.ip),
        Message::probe(STRANGER, port, &[of_a()]),
        Message::conflict(STRANGER, port, ours, &[of_a()]),
        Message::release(STRANGER, port, &[of_a()]),
    ] {
        let what = format!("a {:?} in the name of an authority", message.kind());
        add(&what, &altered(message, |it| it.authority = true), DropReason::NoAuthority);
    }

    let disputed = shared(SHARED).with_port(0, Some(4096));
    let conflict = |to, owned| Message::conflict(STRANGER, disputed, to, &[owned]);
    add("a CONFLICT about a set in use", &conflict(ours, of_a()), DropReason::Unsolicited);
    add("a CONFLICT about another set", &conflict(ours, free()), DropReason::Unsolicited);
    add("a CONFLICT for another host", &conflict(C, of_a()), DropReason::ArpNotForUs);

    let gap = Record::new(Claim::Range(PortRange::ALL), Lifetime::Seconds(3600));
    let nak = |from, asked, to| Message::nak(from, asked, to, to_us, gap);
    let unsigned = |message| altered(message, |it| it.authority = false);
    add("a NAK of no authority", &nak(STRANGER, port, ours), DropReason::NoAuthority);
    add(
        "a NAK of no authority, without its flag",
        &unsigned(nak(STRANGER, port, ours)),
        DropReason::NoAuthority,
    );
    add(
        "an authority's NAK without its flag",
        &unsigned(nak(AUTHORITY, port, ours)),
        DropReason::NoAuthority,
    );
    // The router has no authority beside it; the host has one.
    let mut add = |what: &str, message: &Message, reason| {
        cases.add(what, frame_of(us, message), End::dropped(DropReason::NoAuthority), End::dropped(reason));
    };
    add("an authority's NAK nobody asked for", &nak(AUTHORITY, port, ours), DropReason::Unsolicited);
    let of_owned = shared(SHARED).with_port(6, Some(9000));
    add("an authority's NAK for a port in use", &nak(AUTHORITY, of_owned, ours), DropReason::Unsolicited);
    add("an authority's NAK to another host", &nak(AUTHORITY, port, C), DropReason::ArpNotForUs);
    let outside = shared(SHARED).with_port(47, None);
    add(
        "an authority's NAK without what was asked",
        &nak(AUTHORITY, outside, ours),
        DropReason::WithoutAsked,
    );
}

/// Rules 23, 25, 52 to 55.
fn claims(us: Us, cases: &mut Cases) {
    let everybody = EthernetAddress::BROADCAST;
    let conflict = || End::dropped(DropReason::ConflictingClaim).answered("Announce", everybody);
    let (a, full) = (of_a().claim, Claim::Full);
    // The newcomer waits behind the owner, who is asked.
    let waits = || End::taken().answered("Resolve", A).learning(SHARED, STRANGER, &[a]);
    cases.add("a claim to the set of A", announce(STRANGER, SHARED, of_a()), waits(), conflict());
    let question =
        Message::resolve(STRANGER, shared(SHARED), shared(SCATTERED).with_port(6, Some(5000)), &[of_a()]);
    cases.add("a claim to the set of A in a question", frame_of(us, &question), waits(), conflict());
    let part = Record { scope: 6, ..record(Claim::Range(PortRange::single(5000))) };
    let first = shared(SHARED).with_port(0, Some(5000));
    let one_port = frame_of(us, &Message::announce(STRANGER, first, &[part]));
    let waits = End::taken().answered("Resolve", A).learning(SHARED, STRANGER, &[part.claim]);
    cases.add("a claim to one TCP port of A", one_port, waits, conflict());

    let of_b = End::taken().answered("Resolve", B).learning(SHARED, STRANGER, &[psid("0,4,2").claim]);
    cases.add("a claim to the set of B", announce(STRANGER, SHARED, psid("0,4,2")), of_b.clone(), of_b);
    // A host believes its gateway's binding more than a newcomer's, and asks.
    let gateway = End::taken().answered("Resolve", ROUTER_MAC).learning(ROUTER, STRANGER, &[full]);
    cases.add("a claim to the router's address", announce(STRANGER, ROUTER, FULL), conflict(), gateway);

    let release = |owner, records: &[Record]| frame_of(us, &Message::release(owner, first, records));
    cases.ignored("a RELEASE of the set of A by another", release(STRANGER, &[of_a()]));
    cases.ignored("a RELEASE of everything by another", release(STRANGER, &[FULL, of_a(), psid("0,4,2")]));
    cases.ignored("a RELEASE of the set of A by B", release(B, &[of_a()]));
    cases.ignored("a RELEASE of nothing", release(B, &[]));
    let withdrawn = Record { lifetime: Lifetime::Withdrawn, ..of_a() };
    let message = altered(Message::announce(STRANGER, first, &[withdrawn]), |it| it.complete = false);
    cases.ignored("a withdrawal of the set of A by another", frame_of(us, &message));
    let nothing = altered(Message::announce(STRANGER, first, &[]), |it| it.complete = false);
    cases.dropped("an announcement of nothing", frame_of(us, &nothing), DropReason::NoRecords);
    let nothing = Message::probe(STRANGER, first, &[]);
    cases.dropped("a probe for nothing", frame_of(us, &nothing), DropReason::NoRecords);
    let objection = End::taken().answered("Conflict", STRANGER);
    let probe = frame_of(us, &Message::probe(STRANGER, first, &[of_a()]));
    cases.add("a probe for the set of A", probe, End::taken(), objection);
}

/// Rules 1, 13 and 20.
fn questions(us: Us, cases: &mut Cases) {
    let asker = PeAddress::new(WHOLE);
    let about =
        |ip, port| frame_of(us, &Message::resolve(STRANGER, asker, shared(ip).with_port(6, Some(port)), &[]));
    let answered = || End::taken().answered("Reply", STRANGER);
    cases.ignored("a question about the set of B", about(SHARED, 9000));
    cases.ignored("a question about nobody's port", about(SHARED, 28_700));
    cases.add("a question about the set of A", about(SHARED, 5000), End::taken(), answered());
    cases.add("a question about the router", about(ROUTER, 80), answered(), End::taken());
    let claim =
        Message::resolve(STRANGER, shared(SHARED), shared(SHARED).with_port(6, Some(9000)), &[free()]);
    // Rule 20: a router may learn from it, a host that is not asked must not.
    let learned = End::taken().learning(SHARED, STRANGER, &[free().claim]);
    cases.add("a question about B with a free set", frame_of(us, &claim), learned, End::taken());
    let mut solicit = Message::solicit_all(STRANGER, asker, us.ip);
    solicit.sender.router = false;
    cases.dropped("a SOLICIT-ALL of a host", frame_of(us, &solicit), DropReason::SolicitAll);
    let other = Message::solicit_all(STRANGER, asker, SCATTERED);
    cases.ignored("a SOLICIT-ALL for another address", frame_of(us, &other));
}

/// Rules 3, 8, 10, 26, 27, 55 and 77.
fn plain(us: Us, cases: &mut Cases) {
    let (nobody, zero) = (EthernetAddress([0; 6]), Ipv4Addr::UNSPECIFIED);
    let ours = us.hardware;
    let legacy = Ipv4Addr::new(198, 51, 100, 77);
    let request = |sender, target| plain_arp(1, (STRANGER, sender), (nobody, target));
    let reply = |sender, to, target| plain_arp(2, (STRANGER, sender), (to, target));
    let mut dropped = |what: &str, frame, reason| cases.dropped(format!("plain ARP: {what}"), frame, reason);
    let of_shared = DropReason::PlainForShared;
    dropped("a request from the shared address", request(SHARED, us.ip), of_shared);
    dropped("a gratuitous request of the shared address", request(SHARED, SHARED), of_shared);
    dropped("a reply from the shared address", reply(SHARED, ours, us.ip), of_shared);
    dropped(
        "a reply from the shared address to all",
        reply(SHARED, EthernetAddress::BROADCAST, SHARED),
        of_shared,
    );
    let mut to_another = reply(legacy, C, WHOLE);
    to_another.bytes_mut()[..6].copy_from_slice(&EthernetAddress::BROADCAST.0);
    dropped("a reply to another host", to_another, DropReason::Unsolicited);
    dropped("a reply from 0.0.0.0", reply(zero, ours, us.ip), DropReason::Unsolicited);
    for ip in NOBODY {
        dropped(&format!("a request from {ip}"), request(ip, us.ip), DropReason::ArpAddress);
        dropped(&format!("a request for {ip}"), request(legacy, ip), DropReason::ArpAddress);
        dropped(&format!("a reply from {ip}"), reply(ip, ours, us.ip), DropReason::ArpAddress);
    }
    dropped("a request for 0.0.0.0", request(legacy, zero), DropReason::ArpAddress);
    let whole = request(legacy, us.ip);
    for len in ETHERNET_HEADER..ETHERNET_HEADER + 28 {
        let frame = Frame::from_ethernet(&whole.bytes()[..len]);
        dropped(&format!("{len} bytes"), frame, DropReason::Truncated);
    }
    for (at, values) in
        [(0, &[0_u16, 2, 6][..]), (4, &[0x0004, 0x0504, 0x0804, 0x0600, 0x0605, 0x0608, 0xFFFF])]
    {
        for value in values {
            let frame = patched(whole.clone(), at, &value.to_be_bytes());
            dropped(&format!("{value:#06x} at {at}"), frame, DropReason::ArpFormat);
        }
    }
    for op in [0_u16, 3, 4, 8, 9, 10, 0x0100, u16::MAX] {
        let frame = patched(whole.clone(), 6, &op.to_be_bytes());
        dropped(&format!("op {op}"), frame, DropReason::ArpFormat);
    }

    // Rule 27: whoever is told by plain ARP may learn from it, but a sharing host has no address to be told.
    let told = End::taken().learning(legacy, STRANGER, &[Claim::Full]);
    let unasked = reply(legacy, ours, us.ip);
    cases.add("plain ARP: a reply nobody asked for", unasked, told, End::dropped(DropReason::Unsolicited));
    cases.ignored("plain ARP: a request about another host", request(legacy, WHOLE));
    // Rule 77: the router says that the address is taken, a sharing host says nothing.
    let taken = End::taken().answered("plain 2", STRANGER);
    cases.add("plain ARP: a probe for the shared address", request(zero, SHARED), taken, End::taken());
    // The router answers for a shared address only.
    cases.ignored("plain ARP: a probe for another host", request(zero, WHOLE));
    let learned = End::taken().answered("plain 2", STRANGER).learning(legacy, STRANGER, &[Claim::Full]);
    cases.add("plain ARP: a request for the router", request(legacy, ROUTER), learned, End::taken());
    let elsewhere = End::dropped(DropReason::OffLinkClaim).answered("plain 2", STRANGER);
    cases.add("plain ARP: a request from elsewhere", request(ELSEWHERE, ROUTER), elsewhere, End::taken());
    let everybody = EthernetAddress::BROADCAST;
    let defended = || {
        End::dropped(DropReason::ConflictingClaim)
            .answered("Announce", everybody)
            .answered("plain 1", everybody)
    };
    // Rules 27 and 53: to the host it is news of the router, which is asked and keeps its place.
    let asked = || End::taken().answered("Resolve", ROUTER_MAC).learning(ROUTER, STRANGER, &[Claim::Full]);
    for (what, frame) in [
        ("a gratuitous request of the router's address", request(ROUTER, ROUTER)),
        ("a request from the router's address", request(ROUTER, WHOLE)),
    ] {
        cases.add(format!("plain ARP: {what}"), frame, defended(), asked());
    }
    let stolen = reply(ROUTER, ours, us.ip);
    cases.add("plain ARP: a reply from the router's address", stolen, defended(), asked());
}

/// Rule 55: a host with a whole address defends it against plain ARP of every kind, in kind, and at most every 10 s.
#[test]
fn a_whole_address_is_defended_against_plain_arp() {
    let mut config = host_config(A, "0,4,1");
    config.first.set = PortSet::FULL;
    let nobody = EthernetAddress([0; 6]);
    for frame in [
        plain_arp(1, (STRANGER, SHARED), (nobody, SHARED)),
        plain_arp(1, (STRANGER, SHARED), (nobody, ROUTER)),
        plain_arp(2, (STRANGER, SHARED), (A, SHARED)),
        plain_arp(2, (STRANGER, SHARED), (EthernetAddress::BROADCAST, SHARED)),
    ] {
        let mut bench = host_with(config.clone());
        let table = table_of(&bench);
        let outcome = bench.give(LAN, frame.clone());
        let reason = DropReason::ConflictingClaim;
        outcome.is(Verdict::Dropped(reason), &[(reason.name(), 1), ("arp_sent", 2)]);
        let everybody = EthernetAddress::BROADCAST;
        let defence = [("Announce".to_owned(), everybody), ("plain 1".to_owned(), everybody)];
        assert_eq!(outcome.sent.iter().map(describe).collect::<Vec<_>>(), defence);
        for _ in 0..9 {
            bench.pass(Duration::from_secs(1));
            bench.give(LAN, frame.clone()).is_silent_drop(reason);
        }
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.give(LAN, frame).sent.len(), 2, "10 s are over");
        assert_eq!(table_of(&bench), table, "nobody else is believed to have it");
        assert!(bench.node.phase().holds());
        bench.give(LAN, ethernet(ROUTER_MAC, A, &tcp((SERVER, 443), (SHARED, 5000)))).is_forwarded(TUN);
    }
}

/// Rule 55: the link outside speaks plain ARP alone, and so does the router there when its address is claimed.
#[test]
fn no_pe_arp_outside() {
    let mut bench = confirmed_router();
    let gratuitous = plain_arp(1, (STRANGER, OUTSIDE_ROUTER), (EthernetAddress([0; 6]), OUTSIDE_ROUTER));
    let outcome = bench.give(OUTSIDE, gratuitous);
    let reason = DropReason::ConflictingClaim;
    outcome.is(Verdict::Dropped(reason), &[(reason.name(), 1), ("arp_sent", 1)]);
    let defence = describe(&(OUTSIDE, outcome.only_frame(OUTSIDE).clone()));
    assert_eq!(defence, ("plain 1".to_owned(), EthernetAddress::BROADCAST));
    let claim = announce(STRANGER, SERVER, psid("0,4,1"));
    bench.give(OUTSIDE, claim).is_silent_drop(DropReason::PeArpNotSpoken);
}

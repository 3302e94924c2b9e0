//! IPv4 that must not be forwarded, delivered or answered.

use super::*;

/// A packet of a legacy host to a port of A.
fn packet() -> Vec<u8> {
    udp((WHOLE, 999), (SHARED, 5000), b"hello, world")
}

pub(super) fn cases(us: Us) -> Vec<Case> {
    let mut cases = Cases::default();
    headers(us, &mut cases);
    frames(us, &mut cases);
    addresses_of_nobody(us, &mut cases);
    transport(us, &mut cases);
    icmp(us, &mut cases);
    cases.0
}

fn frame(us: Us, packet: &[u8]) -> Frame {
    ethernet(C, us.hardware, packet)
}

/// RFC 1812 §5.2.2.
fn headers(us: Us, cases: &mut Cases) {
    let whole = frame(us, &packet());
    for len in 14..14 + packet().len() {
        let cut = Frame::from_ethernet(&whole.bytes()[..len]);
        cases.dropped(format!("{len} bytes"), cut, DropReason::Truncated);
    }
    let with = |at: usize, byte: u8| {
        let mut bytes = packet();
        bytes[at] = byte;
        frame(us, &bytes)
    };
    for at in (1..20).filter(|at| !(2..4).contains(at)) {
        let flipped = packet()[at] ^ 1;
        cases.dropped(format!("a bit of byte {at}"), with(at, flipped), DropReason::HeaderChecksum);
    }
    for version in (0..16).filter(|version| *version != 4) {
        for len in [0, 5, 15] {
            let what = format!("version {version}, header of {len} words");
            cases.dropped(what, with(0, version << 4 | len), DropReason::NotIpv4);
        }
    }
    for len in [0, 1, 4, 11, 15] {
        cases.dropped(format!("header of {len} words"), with(0, 0x40 | len), DropReason::Truncated);
    }
    for len in [0_u16, 19, 47, 1500, u16::MAX] {
        // More than the frame has, or less than a header.
        let mut bytes = packet();
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        let reason = DropReason::Truncated;
        cases.dropped(format!("total length {len}"), frame(us, &change(bytes, |_| {})), reason);
    }
}

/// Rule 9, and what is not for the receiver.
fn frames(us: Us, cases: &mut Cases) {
    let group = EthernetAddress([1, 0, 0x5E, 0, 0, 1]);
    let mut with = |what: &str, source, destination, router, host| {
        let frame = ethernet(source, destination, &packet());
        cases.add(what, frame, End::dropped(router), End::dropped(host));
    };
    let source = DropReason::FrameSource;
    with("a broadcast source", EthernetAddress::BROADCAST, us.hardware, source, source);
    with("a group as source", group, us.hardware, source, source);
    with("nobody as source", EthernetAddress([0; 6]), us.hardware, source, source);
    let echo = DropReason::OwnEcho;
    with("an own frame", us.hardware, us.hardware, echo, echo);
    with("an own frame to another", us.hardware, B, echo, echo);
    with("an own frame to all", us.hardware, EthernetAddress::BROADCAST, echo, echo);
    with("a frame for another host", C, B, DropReason::NotOurFrame, DropReason::NotOurFrame);
    let (router, host) = (DropReason::NotOurFrame, DropReason::NotOurAddress);
    with("a unicast packet to all", C, EthernetAddress::BROADCAST, router, host);
    with("a unicast packet to a group", C, group, router, host);
}

/// RFC 1812 §5.3.7, RFC 1122 §3.2.1.3.
fn addresses_of_nobody(us: Us, cases: &mut Cases) {
    let nobody = [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 9], [240, 0, 0, 1], [255; 4]];
    for ip in nobody.map(Ipv4Addr::from).into_iter().chain([LINK_BROADCAST]) {
        let from = frame(us, &udp((ip, 999), (SHARED, 5000), b"!"));
        cases.dropped(format!("from {ip}"), from, DropReason::MartianSource);
        let to = frame(us, &udp((WHOLE, 999), (ip, 5000), b"!"));
        let group = ip.is_multicast() || ip.is_broadcast() || ip == LINK_BROADCAST;
        // Rule 67: a host takes what is for all hosts.
        let host = if group { End::forwarded(TUN) } else { End::dropped(DropReason::NotOurAddress) };
        cases.add(format!("to {ip}"), to, End::dropped(DropReason::MartianDestination), host);
    }
    let to = frame(us, &udp((WHOLE, 999), (WHOLE, 5000), b"!"));
    cases.add("to another host", to, End::forwarded(LAN), End::dropped(DropReason::NotOurAddress));
    // Nobody but A itself sends from these ports.
    let spoofed = frame(us, &udp((SHARED, 5000), (SHARED, 7680), b"echo"));
    let router = End::dropped(DropReason::SpoofedPort);
    cases.add("from A to A", spoofed, router, End::dropped(DropReason::MartianSource));
}

/// Rules 59, 63, 81 and 89.
fn transport(us: Us, cases: &mut Cases) {
    for ttl in [0, 1] {
        let dying = frame(us, &change(packet(), |packet| packet.set_hop_limit(ttl)));
        let router = End::dropped(DropReason::TtlExceeded).told("icmp 11 0", C);
        cases.add(format!("TTL {ttl}"), dying, router, End::forwarded(TUN));
    }
    // What may be part of a datagram is held: that is no silent end, and has tests of its own.
    let behind = change(packet(), |packet| packet.set_frag_offset(65_528));
    cases.dropped("a fragment behind the largest datagram", frame(us, &behind), DropReason::FragmentInvalid);
    for len in [1, 7, 9, 12] {
        let odd = fragment(&udp((WHOLE, 999), (SHARED, 5000), &[0; 64]), 1, 16..16 + len);
        cases.dropped(format!("{len} bytes, and more"), frame(us, &odd), DropReason::FragmentInvalid);
    }
    let tiny = fragment(&segment((WHOLE, 999), (SHARED, 5000), |_| {}, &[0; 64]), 1, 0..8);
    cases.dropped("TCP without its flags", frame(us, &tiny), DropReason::FragmentTiny);
    let flags = fragment(&segment((WHOLE, 999), (SHARED, 5000), |_| {}, &[0; 64]), 1, 8..32);
    cases.dropped("the flags of TCP", frame(us, &flags), DropReason::FragmentTiny);
    for protocol in [6, 17] {
        for len in 0..4 {
            let short = ip(WHOLE, SHARED, protocol, &[0x13; 4][..len]);
            cases.dropped(
                format!("{len} bytes of protocol {protocol}"),
                frame(us, &short),
                DropReason::Truncated,
            );
        }
    }
    for port in [8192, 9000, 12_287] {
        for bytes in [tcp((WHOLE, 999), (SHARED, port)), udp((WHOLE, 999), (SHARED, port), b"!")] {
            let host = End::dropped(DropReason::NotOurPort);
            cases.add(format!("port {port} of B"), frame(us, &bytes), End::forwarded(LAN), host);
        }
    }
}

/// Rules 60 to 62.
fn icmp(us: Us, cases: &mut Cases) {
    let mut about = |what: &str, packet: &[u8], reason| {
        for kind in [(3, 1), (3, 4), (4, 0), (5, 1), (11, 0), (12, 0)] {
            let error = icmp_error(WHOLE, SHARED, kind, packet);
            cases.dropped(format!("an error {kind:?} about {what}"), frame(us, &error), reason);
        }
    };
    let foreign = DropReason::ForeignError;
    about("another host's packet", &udp((SERVER, 53), (SHARED, 5000), b""), foreign);
    about("its own sender's packet", &udp((WHOLE, 53), (SHARED, 5000), b""), foreign);
    let sent = udp((SHARED, 5000), (WHOLE, 53), b"");
    for len in [0, 1, 19, 20, 23] {
        about(&format!("{len} bytes of a packet"), &sent[..len], DropReason::Truncated);
    }
    // Rule 111: C tells of what it did not get, and A hears it only where no router is between them.
    let forged = frame(us, &icmp_error(WHOLE, SHARED, (3, 4), &udp((SHARED, 5000), (SERVER, 53), b"")));
    let router = End::dropped(DropReason::SpoofedError);
    cases.add("an error about a packet to the server", forged, router.clone(), End::forwarded(TUN));
    // Rule 63: A takes identifications from its set, so that its own one is known.
    for (identification, host) in [(5000, End::forwarded(TUN)), (9000, End::dropped(DropReason::NotOurPort))]
    {
        let later = change(sent.clone(), |packet| {
            packet.set_frag_offset(64);
            packet.set_ident(identification);
        });
        let error = frame(us, &icmp_error(WHOLE, SHARED, (3, 4), &later));
        let what = format!("an error about a later fragment, {identification}");
        cases.add(what, error, End::forwarded(LAN), host);
    }
    let of_b = udp((SHARED, 9000), (WHOLE, 53), b"");
    let error = frame(us, &icmp_error(WHOLE, SHARED, (3, 1), &of_b));
    cases.add(
        "an error about a packet of B",
        error,
        End::forwarded(LAN),
        End::dropped(DropReason::NotOurPort),
    );
    let error = frame(us, &icmp_error(WHOLE, SHARED, (3, 1), &echo_request(SHARED, SERVER, 8000)));
    let unmapped = End::dropped(DropReason::EchoIdentifier);
    cases.add("an error about a ping that was not sent", error, router, unmapped.clone());
    for identifier in [5000, 8000, 9000] {
        let reply = frame(us, &echo_reply(WHOLE, SHARED, identifier));
        let what = format!("an echo reply to {identifier}, which nobody sent");
        cases.add(what, reply, End::forwarded(LAN), unmapped.clone());
    }
    let request = echo_request(WHOLE, SHARED, 5000);
    // The router answers for all sharers; one that lets requests pass does so by the identifier.
    let answered = End::taken().told("icmp 0 0", C);
    cases.add("an echo request", frame(us, &request), answered.clone(), End::forwarded(TUN));
    let of_b = echo_request(WHOLE, SHARED, 9000);
    cases.add("an echo request of B", frame(us, &of_b), answered, unmapped.clone());
    let mut damaged = request;
    damaged[30] ^= 1;
    let router = End::dropped(DropReason::EchoDamaged);
    // The kernel of the programs looks at the checksum.
    cases.add("a damaged echo request", frame(us, &damaged), router, End::forwarded(TUN));
}

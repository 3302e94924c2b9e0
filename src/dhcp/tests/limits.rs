//! What is no message, and too many of them.

use MessageType::{Discover, Offer, Release, Request};
use proptest::prelude::*;

use super::*;

#[test]
fn what_is_no_request() {
    let mut bench = Bench::new(FILE);
    let mut refused = |change: &dyn Fn(&mut Vec<u8>), expected: Invalid| {
        let mut bytes = ask(Discover, mac(1)).bytes();
        change(&mut bytes);
        let arrival = Arrival { link: LAN, source: mac(1) };
        let result = bench.server.handle_message(arrival, &bytes, at(0));
        assert_eq!(result, Err(Refused::Invalid(expected)));
    };
    refused(&|bytes| bytes.truncate(239), Invalid::Format);
    refused(&|bytes| bytes[236] = 0, Invalid::Format);
    refused(&|bytes| bytes[0] = 2, Invalid::NotRequest);
    refused(&|bytes| bytes[1] = 6, Invalid::Hardware);
    refused(&|bytes| bytes[2] = 255, Invalid::Hardware);
    refused(&|bytes| bytes[28] = 1, Invalid::Hardware);
    refused(&|bytes| bytes.truncate(240), Invalid::Type);
    refused(&|bytes| bytes[242] = 2, Invalid::Type);
    refused(&|bytes| bytes.splice(240..240, [61, 1, 0]).for_each(drop), Invalid::Client);
    refused(&|bytes| bytes.splice(240..240, [159, 3, 0, 4, 0]).for_each(drop), Invalid::PortSet);
    refused(&|bytes| bytes.splice(240..240, [159, 4, 0, 4, 0, 1]).for_each(drop), Invalid::PortSet);
    let mut foreign = ask(Discover, mac(1));
    foreign.source = mac(2);
    assert_eq!(bench.try_give(&foreign, at(0)).unwrap_err(), Refused::Source);
    let elsewhere = Arrival { link: 5, source: mac(1) };
    let bytes = ask(Discover, mac(1)).bytes();
    assert_eq!(bench.server.handle_message(elsewhere, &bytes, at(0)), Err(Refused::Network));
}

/// An option that nobody needs, and broken, does not spoil the others.
#[test]
fn foreign_options_are_passed_over() {
    let mut bench = Bench::new(FILE);
    let odd = ask(Discover, mac(1)).raw(80, b"x").raw(151, b"").raw(12, b"\xff\xfe").raw(57, b"\x01");
    assert_eq!(bench.answer(&odd, at(0)).kind(), Offer);
}

#[test]
fn one_link_layer_address_has_sixteen_leases() {
    let file = FILE.replace("[0, 4]", "[0, 8]");
    let mut bench = Bench::new(&file);
    let of = |n: u8| move |kind| ask(kind, mac(1)).client(&[0, n]);
    for n in 0..16 {
        bench.lease(of(n), at(10 * i64::from(n)));
    }
    let one_more = ask(Discover, mac(1)).client(&[0, 99]);
    assert_eq!(bench.try_give(&one_more, at(200)).unwrap_err(), Refused::Limit);
    assert_eq!(
        bench.try_give(&of(3)(Discover), at(200)).unwrap().unwrap().kind(),
        Offer,
        "of those it renews"
    );
    bench.lease(sharer(2), at(200));
}

/// The oldest offers make room: who takes one at once has a lease in the middle of the flood.
#[test]
fn made_up_clients_take_so_many_offers() {
    let file = FILE.replace("[0, 4]", "[0, 10]");
    let mut bench = Bench::new(&file);
    let flood = |n: u16| ask(Discover, EthernetAddress([2, 9, 9, 9, (n >> 8) as u8, n as u8]));
    let now = |n: u16| Instant::from_millis(i64::from(n));
    for n in 0..3000 {
        assert_eq!(bench.answer(&flood(n), now(n)).kind(), Offer, "{n}");
        let standing = bench.server.leases().filter(|lease| lease.state == LeaseState::Offered);
        assert_eq!(standing.count(), usize::from(n + 1).min(256), "{n}");
    }
    let lease = bench.lease(sharer(1), at(3));
    assert_eq!(bench.state(lease), Some(LeaseState::Bound));
}

/// Rule 74: an offer that makes room leaves its slot in the rest in which it was.
#[test]
fn an_offer_that_makes_room_does_not_end_the_rest() {
    let file = FILE.replace("[0, 4]", "[0, 10]");
    let mut bench = Bench::new(&file);
    let slot = bench.lease(sharer(1), at(0));
    bench.nothing(&ask(Release, mac(1)).ciaddr(SHARED).set(slot.1).server(), at(10));
    assert_eq!(bench.answer(&ask(Discover, mac(1)), at(20)).slot(), slot);
    // Again, a little later: it is still the rest of the lease, and not the end of the offer.
    assert_eq!(bench.answer(&ask(Discover, mac(1)), at(21)).slot(), slot);
    for n in 0..300_u16 {
        let other = ask(Discover, EthernetAddress([2, 9, 9, 9, (n >> 8) as u8, n as u8]));
        assert_ne!(bench.answer(&other, at(22)).slot(), slot);
    }
    let lease = bench.server.leases().find(|lease| lease.set == slot.1).unwrap();
    assert_eq!((lease.state, lease.until), (LeaseState::Released, at(250)));
}

#[test]
fn one_client_is_answered_so_often() {
    let mut bench = Bench::new(FILE);
    let answered = (0..100).filter(|_| bench.try_give(&ask(Discover, mac(1)), at(0)).is_ok()).count();
    assert_eq!(answered, 40);
    assert!(bench.try_give(&ask(Discover, mac(2)), at(0)).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        options in prop::collection::vec(any::<u8>(), 0..200),
        kind in 0u8..20,
        fixed in prop::collection::vec((3usize..240, any::<u8>()), 0..6),
    ) {
        let mut bench = Bench::new(FILE);
        let mut bytes = ask(Request, mac(1)).bytes();
        bytes.truncate(240);
        for (place, value) in fixed {
            bytes[place] = value;
        }
        bytes.extend([53, 1, kind]);
        bytes.extend(options);
        let arrival = Arrival { link: LAN, source: mac(1) };
        let _ = bench.server.handle_message(arrival, &bytes, at(0));
        bench.drain(at(0));
        while let Some(reply) = bench.server.poll_transmit() {
            prop_assert!(v4::Message::decode(&mut Decoder::new(&reply.message)).is_ok());
        }
    }
}

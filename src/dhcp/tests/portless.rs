//! Rule 105: what has no port, reserved, told and heard.

use MessageType::{Ack, Discover, Offer, Request};
use proptest::prelude::*;

use super::*;
use crate::dhcp::client::{self, Client, ClientState};
use crate::ports::Portless;

const CLIENT: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
/// Of the first client, who has PSID 1, with this; and of another one, without.
fn reserved(more: &str) -> String {
    format!(
        "{FILE}[[reservation]]\nlink_address = \"02:00:00:00:00:01\"\naddress = \"198.51.100.2\"\npsid = 1\n{more}\
         [[reservation]]\nlink_address = \"02:00:00:00:00:02\"\naddress = \"198.51.100.2\"\npsid = 2\n"
    )
}

const MORE: &str = "portless = [47, 41]\nresidual = true\n";
/// Enterprise 32473, 6 bytes: two protocols, and the rest.
const OPTION: [u8; 13] = [125, 11, 0, 0, 0x7E, 0xD9, 6, 1, 2, 41, 47, 2, 0];

fn list(text: &str) -> Portless {
    text.parse().unwrap()
}

fn option_of(answer: &Answer) -> Option<Vec<u8>> {
    match answer.message.opts().get(OptionCode::from(125)) {
        Some(DhcpOption::Unknown(option)) => Some(option.data().to_vec()),
        None => None,
        other => panic!("{other:?}"),
    }
}

/// Both answers to a client with a reservation; to nobody else, and not without a wish to share.
#[test]
fn the_reserved_client_is_told() {
    let mut bench = Bench::new(&reserved(MORE));
    for last in 1..=3 {
        let offer = bench.answer(&ask(Discover, mac(last)), at(0));
        let (ip, psid) = offer.slot();
        let request = ask(Request, mac(last)).requested(ip).server().set(psid);
        let ack = bench.answer(&request, at(0));
        assert_eq!((offer.kind(), ack.kind()), (Offer, Ack));
        for answer in [offer, ack] {
            let told = answer.bytes.windows(OPTION.len()).any(|window| window == OPTION);
            assert_eq!(told, last == 1, "{last}");
            assert_eq!(option_of(&answer), (last == 1).then(|| OPTION[2..].to_vec()), "{last}");
        }
    }
    let renewal = |codes| ask(Request, CLIENT).listing(codes).ciaddr(SHARED).set(set("0,4,1"));
    for (codes, told) in [(&[1, 3, 159][..], true), (&[1, 3, 125], false), (&[1, 3, 125, 159], true)] {
        let ack = bench.answer(&renewal(codes), at(60));
        assert_eq!((ack.kind(), option_of(&ack).is_some()), (Ack, told), "{codes:?}");
    }
    let mut without = Bench::new(&reserved(""));
    assert_eq!(option_of(&without.answer(&ask(Discover, CLIENT), at(0))), None);
    let mut residual = Bench::new(&reserved("residual = true\n"));
    let offer = residual.answer(&ask(Discover, CLIENT), at(0));
    assert_eq!(option_of(&offer), Some(vec![0, 0, 0x7E, 0xD9, 2, 2, 0]));
    let mut off = Bench::new(&reserved("residual = false\nportless = []\n"));
    assert_eq!(option_of(&off.answer(&ask(Discover, CLIENT), at(0))), None);
}

/// It goes with the lease of the client for which it is reserved, also after a restart.
#[test]
fn it_goes_with_the_lease() {
    let mut bench = Bench::new(&reserved(MORE));
    bench.lease(sharer(1), at(0));
    bench.lease(sharer(2), at(0));
    let shown = |bench: &Bench, last| {
        let lease = bench.server.leases().find(|lease| lease.hardware == mac(last)).unwrap();
        bench.server.portless(lease).cloned()
    };
    for _ in 0..2 {
        assert_eq!(shown(&bench, 1), Some(list("41,47,residual")));
        assert_eq!(shown(&bench, 2), None);
        bench.restart(&reserved(MORE), at(10));
    }
    // What the client of before has of the set is not what is reserved for another one.
    let other = reserved(MORE).replace("00:01\"", "00:09\"");
    bench.restart(&other, at(20));
    assert_eq!(shown(&bench, 1), None);
    bench.restart(&reserved("portless = [50]\n"), at(30));
    assert_eq!(shown(&bench, 1), Some(list("50")));
}

/// RFC 3925 §4: what has no meaning here is skipped, and what is damaged is nothing.
#[test]
fn option_125_is_as_in_rfc_3925() {
    let own = |body: &[u8]| [&[0, 0, 0x7E, 0xD9, body.len() as u8][..], body].concat();
    let other = [0, 0, 0x01, 0x37, 3, 1, 200, 6];
    let good: [(Vec<u8>, &str); 6] = [
        (own(&[1, 2, 41, 47, 2, 0]), "41,47,residual"),
        (own(&[2, 0]), "residual"),
        (own(&[1, 1, 47, 1, 1, 50]), "47,50"),
        (own(&[9, 3, 1, 2, 3, 1, 1, 47]), "47"),
        ([&other[..], &own(&[1, 1, 47]), &other].concat(), "47"),
        ([own(&[1, 1, 47]), own(&[2, 0])].concat(), "47,residual"),
    ];
    for (data, expected) in &good {
        assert_eq!(codec::portless(data), Some(list(expected)), "{data:?}");
    }
    for (data, _) in &good[..4] {
        for length in 1..data.len() {
            assert_eq!(codec::portless(&data[..length]), None, "{length} bytes of {data:?}");
        }
    }
    for empty in [&[][..], &other, &own(&[]), &own(&[1, 0])] {
        let empty: &[u8] = empty;
        assert_eq!(codec::portless(empty), Some(Portless::default()), "{empty:?}");
    }
    let bad: [Vec<u8>; 9] = [
        vec![0, 0, 0x7E],
        vec![0, 0, 0x7E, 0xD9],
        vec![0, 0, 0x7E, 0xD9, 3, 1, 1],
        own(&[1]),
        own(&[1, 2, 47]),
        own(&[2, 1, 0]),
        own(&[1, 1, 6]),
        own(&[1, 2, 47, 0]),
        [&own(&[1, 1, 47])[..], &other[..7]].concat(),
    ];
    for data in bad {
        assert_eq!(codec::portless(&data), None, "{data:?}");
    }
}

proptest! {
    #[test]
    fn no_option_125_panics(data in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = codec::portless(&data);
        let own = [&[0, 0, 0x7E, 0xD9, data.len() as u8][..], &data].concat();
        let _ = codec::portless(&own);
    }

    #[test]
    fn what_is_written_is_read(protocols in prop::collection::btree_set(any::<u8>(), 0..32), residual: bool) {
        let protocols = protocols.into_iter().filter(|one| Portless::new([*one], false).is_ok());
        let written = Portless::new(protocols, residual).unwrap();
        let DhcpOption::Unknown(option) = codec::portless_option(&written) else { panic!() };
        prop_assert!(option.data().len() <= 255);
        prop_assert_eq!(codec::portless(option.data()), Some(written));
    }
}

/// The client and the server talk until both are quiet; the option may be replaced on the way.
fn settle(client: &mut Client, bench: &mut Bench, now: Instant, option: Option<&[u8]>) -> Vec<client::Event> {
    while let Some(transmit) = client.poll_transmit() {
        let question = v4::Message::decode(&mut Decoder::new(&transmit.message)).unwrap();
        if let Some(DhcpOption::ParameterRequestList(wanted)) =
            question.opts().get(OptionCode::ParameterRequestList)
        {
            assert!(wanted.contains(&OptionCode::from(125)), "it asks for the option");
        }
        let mut answer = bench.give_bytes(CLIENT, &transmit.message, now).unwrap().expect("an answer");
        if let Some(data) = option {
            let option = UnknownOption::new(OptionCode::from(125), data.to_vec());
            answer.message.opts_mut().insert(DhcpOption::Unknown(option));
        }
        client.handle_message(mac(0xFE), &answer.message.to_vec().unwrap(), now).unwrap();
    }
    core::iter::from_fn(|| client.poll_event()).collect()
}

fn client() -> Client {
    let config = client::Config {
        hardware: CLIENT,
        iaid: 1,
        host_name: None,
        shares: true,
        wish: client::Wish::Any,
        seed: 1,
    };
    Client::new(config, None, at(0))
}

/// A lease has it, and a renewal may change it.
#[test]
fn a_client_has_what_it_is_told() {
    let (mut bench, mut client) = (Bench::new(&reserved(MORE)), client());
    let events = settle(&mut client, &mut bench, at(0), None);
    let [client::Event::Probe(lease)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((lease.set, &lease.portless), (set("0,4,1"), &list("41,47,residual")));
    client.probed(true, at(1));
    assert_eq!(client.state(), ClientState::Bound);
    for (more, seconds, expected) in [("portless = [50]\n", 1800, "50"), ("", 3600, "")] {
        bench.restart(&reserved(more), at(seconds));
        client.handle_timeout(at(seconds));
        let events = settle(&mut client, &mut bench, at(seconds), None);
        let [client::Event::Renewed(lease)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(lease.portless.to_string(), expected);
        assert_eq!(client.lease(), Some(lease));
    }
}

/// What cannot be read makes a lease of ports alone; a whole address needs nothing.
#[test]
fn a_client_ignores_what_it_cannot_read() {
    for (option, expected) in [
        (&[0, 0, 0x7E, 0xD9, 3, 1, 1, 47][..], "47"),
        (&[0, 0, 0x7E, 0xD9, 9, 1, 1, 47], ""),
        (&[0, 0, 0x7E, 0xD9, 3, 1, 1, 17], ""),
        (&[0, 0, 0x7E, 0xD8, 3, 1, 1, 47], ""),
    ] {
        let (mut bench, mut client) = (Bench::new(FILE), client());
        let events = settle(&mut client, &mut bench, at(0), Some(option));
        let [client::Event::Probe(lease)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(lease.portless.to_string(), expected, "{option:?}");
    }
    let mut bench = Bench::new("[[whole]]\naddresses = \"198.51.100.100\"\n");
    let events = settle(&mut client(), &mut bench, at(0), Some(&OPTION[2..]));
    let [client::Event::Probe(lease)] = &events[..] else { panic!("{events:?}") };
    assert!(lease.set == Psid::FULL && lease.portless.is_empty());
}

/// Line and field of what is wrong.
#[test]
fn errors_name_line_and_field() {
    let error = |text: &str| {
        let link = ServerLink { link: LAN, address: Ipv4Cidr::new(SERVER, 24), router: Some(SERVER) };
        match Config::parse(text, vec![link], 0) {
            Ok(_) => panic!("accepted: {text}"),
            Err(error) => error.to_string(),
        }
    };
    let pools = "[[shared]]\naddresses = \"198.51.100.2\"\nscheme = [0, 4]\n[[whole]]\naddresses = \"198.51.100.9\"\n";
    let who = "link_address = \"02:00:00:00:00:01\"\n";
    let one =
        |more: &str| format!("{pools}[[reservation]]\n{who}address = \"198.51.100.2\"\npsid = 1\n{more}");
    let two = |first: &str, second: &str| {
        format!("{}[[reservation]]\n{who}address = \"198.51.100.2\"\npsid = 2\n{second}", one(first))
    };
    let many: Vec<_> = (60..100).map(|protocol| protocol.to_string()).collect();
    for (text, expected) in [
        (one("portless = [47, 6]\n"), "line 10: reservation.portless: IP protocol 6 has ports"),
        (one("portless = [1]\n"), "line 10: reservation.portless: ICMP (1)"),
        (one("portless = [0]\n"), "line 10: reservation.portless: 0 is no IP protocol"),
        (one("portless = [47, 47]\n"), "line 10: reservation.portless: names an IP protocol twice"),
        (
            one(&format!("portless = [{}]\n", many.join(", "))),
            "line 10: reservation.portless: write at most 32",
        ),
        (
            two("portless = [47, 50]\n", "portless = [50]\n"),
            "line 15: reservation.portless: IP protocol 50 of",
        ),
        (two("residual = true\n", "residual = true\n"), "line 15: reservation.residual: another reservation"),
        (
            format!("{pools}[[reservation]]\n{who}address = \"198.51.100.9\"\nresidual = true\n"),
            "line 8: reservation.address: is whole, so that its client has everything",
        ),
        (
            format!("{pools}[[reservation]]\n{who}address = \"198.51.100.9\"\nportless = [47]\n"),
            "line 8: reservation.address: is whole",
        ),
    ] {
        let error = error(&text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(error(&one("portless = [300]\n")).contains("line 10"), "{}", error(&one("portless = [300]\n")));
    config(&two("portless = [47]\nresidual = false\n", "portless = [50]\nresidual = true\n"));
}

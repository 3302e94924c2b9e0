//! Clients behind a relay (RFC 2131 §4.3.1, RFC 3046).

use MessageType::{Ack, Discover, Nak, Request};

use dhcproto::v4::relay::RelayAgentInformation;

use super::*;

const RELAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CIRCUIT: &[u8] = &[1, 4, b'e', b't', b'h', b'7', 2, 1, 9];

fn file() -> String {
    FILE.to_owned()
        + "[[shared]]\naddresses = \"10.0.0.5\"\nscheme = [0, 4]\nnetwork = \"10.0.0.0/24\"\nrouter = \"10.0.0.1\"\n"
        + "[[whole]]\naddresses = \"10.0.0.10-10.0.0.20\"\nnetwork = \"10.0.0.0/24\"\nrouter = \"10.0.0.1\"\n"
}

fn relayed(kind: MessageType, relay: Ipv4Addr) -> Ask {
    let information = RelayAgentInformation::decode(&mut Decoder::new(CIRCUIT)).unwrap();
    let mut ask = ask_legacy(kind, mac(1)).with(DhcpOption::RelayAgentInformation(information));
    ask.message.set_giaddr(relay).set_hops(1);
    ask.source = mac(99);
    ask
}

#[test]
fn a_relay_gets_the_answer_with_its_option_82() {
    let mut bench = Bench::new(&file());
    let offer = bench.answer(&relayed(Discover, RELAY), at(0));
    assert_eq!(offer.destination, Destination::Relay(RELAY));
    assert_eq!(offer.message.giaddr(), RELAY);
    let (ip, _) = offer.slot();
    assert!(ip.octets()[..3] == [10, 0, 0], "by giaddr: {ip}");
    assert_eq!(offer.message.opts().get(OptionCode::Router), Some(&DhcpOption::Router(vec![RELAY])));
    let end = [&[82, CIRCUIT.len() as u8], CIRCUIT, &[255]].concat();
    let padded = offer.bytes.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(offer.bytes[..=padded].ends_with(&end), "RFC 3046 §2.2: {:02x?}", &offer.bytes[240..]);
    let ack = bench.answer(&relayed(Request, RELAY).requested(ip).server(), at(0));
    assert_eq!((ack.kind(), ack.destination), (Ack, Destination::Relay(RELAY)));
    let nak = bench.answer(&relayed(Request, RELAY).requested(SHARED).server(), at(0));
    assert_eq!((nak.kind(), nak.destination), (Nak, Destination::Relay(RELAY)));
}

/// Option 82 is the last one also where there is option 159.
#[test]
fn a_sharer_behind_a_relay() {
    let mut bench = Bench::new(&file());
    let offer = bench.answer(&relayed(Discover, RELAY).listing(&[159]), at(0));
    assert_eq!(offer.message.yiaddr(), Ipv4Addr::new(10, 0, 0, 5));
    assert!(offer.set().is_some());
    let end = [CIRCUIT, &[255]].concat();
    let padded = offer.bytes.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(offer.bytes[..=padded].ends_with(&end));
}

#[test]
fn a_relay_of_an_unknown_network_is_not_answered() {
    let mut bench = Bench::new(&file());
    let stranger = relayed(Discover, Ipv4Addr::new(10, 9, 0, 1));
    assert_eq!(bench.try_give(&stranger, at(0)).unwrap_err(), Refused::Network);
}

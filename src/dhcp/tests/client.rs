//! The client, against the server and against what no server should say.

use super::*;
use crate::dhcp::client::{self, Client, ClientLease, ClientState, Ignored, Transmit};

const CLIENT: u8 = 0x21;
/// The link-layer address of the server.
const GATE: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0xFE]);
const PREFIX: u8 = 24;

fn client_config() -> client::Config {
    client::Config {
        hardware: mac(CLIENT),
        iaid: 1,
        host_name: Some("h1".to_owned()),
        shares: true,
        wish: client::Wish::Any,
        seed: 1,
    }
}

struct Rig {
    bench: Bench,
    client: Client,
    now: Instant,
    /// Whether messages cross.
    connected: bool,
    /// What was sent, with its kind.
    sent: Vec<(MessageType, Transmit, v4::Message)>,
    events: Vec<client::Event>,
}

impl Rig {
    fn new() -> Self {
        Self::with(FILE, client_config(), None)
    }

    fn with(file: &str, config: client::Config, stored: Option<ClientLease>) -> Self {
        let client = Client::new(config, stored, at(0));
        let bench = Bench::new(file);
        Self { bench, client, now: at(0), connected: true, sent: Vec::new(), events: Vec::new() }
    }

    /// A client that has a lease.
    fn bound() -> Self {
        let mut rig = Self::new();
        rig.settle();
        rig.client.probed(true, rig.now);
        assert_eq!(rig.client.state(), ClientState::Bound);
        rig.sent.clear();
        rig.events.clear();
        rig
    }

    /// Messages go to and fro until both are quiet.
    fn settle(&mut self) {
        while let Some(transmit) = self.client.poll_transmit() {
            let message = v4::Message::decode(&mut Decoder::new(&transmit.message)).unwrap();
            self.sent.push((message.opts().msg_type().unwrap(), transmit.clone(), message));
            if self.connected {
                let answer = self.bench.give_bytes(mac(CLIENT), &transmit.message, self.now).unwrap();
                if let Some(answer) = answer {
                    self.client.handle_message(GATE, &answer.bytes, self.now).unwrap();
                }
            }
        }
        while let Some(event) = self.client.poll_event() {
            self.events.push(event);
        }
    }

    /// Lets time pass, with every deadline of both on the way.
    fn wait_until(&mut self, end: Instant) {
        while let Some(due) = self.client.poll_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.bench.timeout(self.now);
            self.client.handle_timeout(self.now);
            assert!(self.client.poll_timeout().is_none_or(|next| next > self.now));
            self.settle();
        }
        self.now = end;
        self.bench.timeout(self.now);
    }

    fn kinds(&self) -> Vec<MessageType> {
        self.sent.iter().map(|(kind, ..)| *kind).collect()
    }

    fn lease(&self) -> &ClientLease {
        self.client.lease().expect("a lease")
    }
}

fn reply(rig: &Rig, kind: MessageType, change: impl Fn(&mut v4::Message)) -> Vec<u8> {
    let (_, _, question) = rig.sent.last().unwrap();
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message =
        v4::Message::new_with_id(question.xid(), none, SHARED, none, none, mac(CLIENT).as_bytes());
    message.set_opcode(v4::Opcode::BootReply);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message.opts_mut().insert(DhcpOption::ServerIdentifier(SERVER));
    message.opts_mut().insert(DhcpOption::AddressLeaseTime(3600));
    message.opts_mut().insert(codec::port_set_option(set("0,4,3")));
    change(&mut message);
    message.to_vec().unwrap()
}

/// RFC 2131 §3.1, PE-ARP rules 95, 96, 102 and 106.
#[test]
fn a_lease_of_a_set() {
    let mut rig = Rig::new();
    rig.settle();
    assert_eq!(rig.now, at(0), "nobody waits");
    assert_eq!(rig.kinds(), [MessageType::Discover, MessageType::Request]);
    let (discover, request) = (&rig.sent[0].2, &rig.sent[1].2);
    assert_eq!(discover.xid(), request.xid());
    let [client::Event::Probe(lease)] = &rig.events[..] else { panic!("{:?}", rig.events) };
    assert_eq!(lease.address, Ipv4Cidr::new(SHARED, PREFIX));
    assert_ne!(lease.set, Psid::FULL);
    assert_eq!((lease.gateway, &lease.dns[..]), (Some(SERVER), &[SERVER][..]));
    assert_eq!((lease.domain.as_deref(), lease.server), (Some("lab.example"), SERVER));
    assert_eq!((lease.renew, lease.rebind, lease.until), (at(1800), at(3150), at(3600)));
    assert_eq!(rig.client.lease(), None, "not before it was probed");
    let lease = lease.clone();
    rig.client.probed(true, rig.now);
    assert_eq!(rig.client.lease(), Some(&lease));
    for (_, transmit, message) in &rig.sent {
        assert_eq!((transmit.to, transmit.from), (None, Ipv4Addr::UNSPECIFIED));
        let id = [&[255, 0, 0, 0, 1, 0, 3, 0, 1][..], mac(CLIENT).as_bytes()].concat();
        assert_eq!(message.opts().get(OptionCode::ClientIdentifier), Some(&DhcpOption::ClientIdentifier(id)));
        let Some(DhcpOption::ParameterRequestList(list)) =
            message.opts().get(OptionCode::ParameterRequestList)
        else {
            panic!("{message:?}")
        };
        assert!(list.contains(&OptionCode::from(159)));
    }
    assert_eq!(rig.bench.server.leases().next().unwrap().host_name.as_deref(), Some("h1"));
}

#[test]
fn a_whole_address_where_that_is_all_there_is() {
    let whole = "[[whole]]\naddresses = \"198.51.100.100\"\n";
    for shares in [true, false] {
        let mut rig = Rig::with(whole, client::Config { shares, ..client_config() }, None);
        rig.settle();
        rig.client.probed(true, rig.now);
        let lease = rig.lease();
        assert_eq!((lease.address.address(), lease.set), (Ipv4Addr::new(198, 51, 100, 100), Psid::FULL));
        let listed = |message: &v4::Message| {
            let Some(DhcpOption::ParameterRequestList(list)) =
                message.opts().get(OptionCode::ParameterRequestList)
            else {
                return false;
            };
            list.contains(&OptionCode::from(159))
        };
        assert!(rig.sent.iter().all(|(_, _, message)| listed(message) == shares));
        assert!(rig.sent[1].2.opts().get(OptionCode::from(159)).is_none());
    }
}

/// RFC 2131 §4.4.5: at T1 to the server that gave it.
#[test]
fn a_lease_is_renewed() {
    let mut rig = Rig::bound();
    let before = rig.lease().clone();
    rig.wait_until(at(1800));
    assert_eq!(rig.kinds(), [MessageType::Request]);
    let (_, transmit, message) = &rig.sent[0];
    assert_eq!((transmit.to, transmit.from), (Some((GATE, SERVER)), SHARED));
    assert_eq!(message.ciaddr(), SHARED);
    assert!(message.opts().get(OptionCode::ServerIdentifier).is_none());
    assert!(message.opts().get(OptionCode::RequestedIpAddress).is_none());
    assert!(message.opts().get(OptionCode::from(159)).is_some(), "PE-ARP rule 98");
    let [client::Event::Renewed(lease)] = &rig.events[..] else { panic!("{:?}", rig.events) };
    assert_eq!((lease.address, lease.set, lease.until), (before.address, before.set, at(5400)));
    assert_eq!(rig.client.state(), ClientState::Bound);
    // Days pass with a renewal every half hour, and nothing else.
    rig.wait_until(at(86_400));
    assert_eq!(rig.kinds(), vec![MessageType::Request; 48]);
    assert!(rig.events.iter().all(|event| matches!(event, client::Event::Renewed(_))));
}

/// RFC 2131 §4.4.5: less often at first; to everybody from T2 on.
#[test]
fn a_server_that_is_away_beyond_t2_is_found_again() {
    let mut rig = Rig::bound();
    rig.connected = false;
    rig.wait_until(at(3200));
    assert_eq!(rig.client.state(), ClientState::Rebinding);
    let unicast = rig.sent.iter().filter(|(_, transmit, _)| transmit.to.is_some()).count();
    assert!((5..20).contains(&unicast), "{unicast} renewals");
    let (_, transmit, message) = rig.sent.last().unwrap();
    assert_eq!((transmit.to, transmit.from, message.ciaddr()), (None, SHARED, SHARED));
    assert!(rig.client.lease().is_some() && rig.events.is_empty());
    rig.connected = true;
    rig.wait_until(at(3599));
    assert!(matches!(rig.events[..], [client::Event::Renewed(_)]), "{:?}", rig.events);
    assert_eq!(rig.client.state(), ClientState::Bound);
}

#[test]
fn a_lease_that_nobody_renews_ends_in_time() {
    let mut rig = Rig::bound();
    rig.connected = false;
    rig.wait_until(at(3599));
    assert!(rig.client.lease().is_some());
    assert!(rig.sent.len() < 60, "{} messages", rig.sent.len());
    rig.wait_until(at(3600));
    assert_eq!((rig.client.lease(), &rig.events[..]), (None, &[client::Event::Lost][..]));
    assert_eq!(rig.client.state(), ClientState::Selecting);
    // It goes on asking, at most once in 65 s.
    rig.sent.clear();
    rig.wait_until(at(7200));
    assert!((55..70).contains(&rig.sent.len()), "{}", rig.sent.len());
    rig.connected = true;
    rig.wait_until(at(7300));
    assert!(matches!(rig.events[..], [client::Event::Lost, client::Event::Probe(_)]));
}

/// RFC 2131 §3.1 item 5, PE-ARP rule 99.
#[test]
fn a_set_that_somebody_uses_is_declined() {
    let mut rig = Rig::new();
    rig.settle();
    let [client::Event::Probe(lease)] = &rig.events[..] else { panic!("{:?}", rig.events) };
    let taken = lease.clone();
    rig.client.probed(false, rig.now);
    rig.settle();
    assert_eq!(rig.kinds()[2..], [MessageType::Decline]);
    assert_eq!(rig.events[1..], [client::Event::Lost]);
    let slot = (taken.address.address(), taken.set);
    assert_eq!(rig.bench.state(slot), Some(LeaseState::Quarantined));
    rig.wait_until(at(9));
    assert_eq!(rig.sent.len(), 3, "ten seconds of rest");
    rig.wait_until(at(10));
    let Some(client::Event::Probe(lease)) = rig.events.last() else { panic!("{:?}", rig.events) };
    assert_ne!(lease.set, taken.set);
    // And the same when the conflict shows later.
    rig.client.probed(true, rig.now);
    rig.client.probed(false, rig.now);
    rig.settle();
    assert_eq!(rig.kinds().last(), Some(&MessageType::Decline));
    assert_eq!((rig.events.last(), rig.client.lease()), (Some(&client::Event::Lost), None));
}

/// A DECLINE that comes late must not end a lease that the client got meanwhile.
#[test]
fn a_set_that_was_declined_is_not_taken_while_that_is_under_way() {
    let mut rig = Rig::new();
    rig.settle();
    let [client::Event::Probe(lease)] = &rig.events[..] else { panic!("{:?}", rig.events) };
    let taken = lease.clone();
    // The DECLINE gets lost.
    rig.connected = false;
    rig.client.probed(false, rig.now);
    rig.settle();
    rig.connected = true;
    rig.wait_until(at(10));
    assert_eq!(rig.kinds()[3..], [MessageType::Discover, MessageType::Decline], "the same was offered");
    assert_eq!(rig.bench.state((taken.address.address(), taken.set)), Some(LeaseState::Quarantined));
    rig.wait_until(at(20));
    let Some(client::Event::Probe(lease)) = rig.events.last() else { panic!("{:?}", rig.events) };
    assert_ne!(lease.set, taken.set);
}

#[test]
fn a_lease_is_given_back() {
    let mut rig = Rig::bound();
    let slot = (SHARED, rig.lease().set);
    rig.client.release(rig.now);
    rig.settle();
    assert_eq!(rig.kinds(), [MessageType::Release]);
    assert_eq!(rig.sent[0].1.to, Some((GATE, SERVER)));
    assert_eq!(rig.bench.state(slot), Some(LeaseState::Released));
    assert_eq!((rig.client.state(), rig.client.poll_timeout()), (ClientState::Released, None));
    rig.client.release(rig.now);
    assert!(rig.client.poll_transmit().is_none(), "once");
}

/// RFC 2131 §4.4.2.
#[test]
fn a_stored_lease_is_asked_for_first() {
    let mut rig = Rig::bound();
    let stored = rig.lease().clone();
    rig.now = at(100);
    rig.client = Client::new(client_config(), Some(stored.clone()), rig.now);
    rig.settle();
    assert_eq!(rig.kinds(), [MessageType::Request]);
    let message = &rig.sent[0].2;
    assert_eq!(message.ciaddr(), Ipv4Addr::UNSPECIFIED);
    assert!(message.opts().get(OptionCode::RequestedIpAddress).is_some());
    assert!(message.opts().get(OptionCode::ServerIdentifier).is_none());
    let [client::Event::Probe(lease)] = &rig.events[..] else { panic!("{:?}", rig.events) };
    assert_eq!((lease.address, lease.set, lease.until), (stored.address, stored.set, at(3700)));
}

#[test]
fn a_stored_lease_is_used_where_no_server_is() {
    let stored = Rig::bound().lease().clone();
    let mut rig = Rig::with(FILE, client_config(), Some(stored.clone()));
    rig.connected = false;
    rig.wait_until(at(14));
    assert_eq!(rig.kinds(), [MessageType::Request; 2]);
    assert_eq!(rig.events[..], [client::Event::Probe(stored.clone())]);
    rig.client.probed(true, rig.now);
    assert_eq!(rig.client.lease(), Some(&stored));
    // Renewed as any other.
    rig.wait_until(at(1800));
    assert_eq!(rig.client.state(), ClientState::Renewing);
    assert_eq!(rig.sent.last().unwrap().1.to, None, "where the server is, is not known");
}

#[test]
fn a_stored_lease_that_is_over_is_nothing() {
    let stored = Rig::bound().lease().clone();
    let mut client = Client::new(client_config(), Some(stored), at(3600));
    let transmit = client.poll_transmit().unwrap();
    let message = v4::Message::decode(&mut Decoder::new(&transmit.message)).unwrap();
    assert_eq!(message.opts().msg_type(), Some(MessageType::Discover));
}

#[test]
fn a_stored_lease_of_another_network_is_refused() {
    let mut stored = Rig::bound().lease().clone();
    stored.address = Ipv4Cidr::new(Ipv4Addr::new(192, 0, 2, 7), 24);
    let mut rig = Rig::with(FILE, client_config(), Some(stored));
    rig.settle();
    rig.wait_until(at(1));
    assert_eq!(rig.kinds(), [MessageType::Request, MessageType::Discover, MessageType::Request]);
    assert!(matches!(rig.events[..], [client::Event::Probe(_)]), "{:?}", rig.events);
}

/// A server that knows the lease no longer.
#[test]
fn a_refusal_ends_a_lease() {
    let mut rig = Rig::bound();
    rig.connected = false;
    rig.wait_until(at(1800));
    let nak = reply(&rig, MessageType::Nak, |_| ());
    rig.client.handle_message(GATE, &nak, rig.now).unwrap();
    rig.settle();
    assert_eq!((rig.client.lease(), &rig.events[..]), (None, &[client::Event::Lost][..]));
    // Not at once again: the next refusal would follow.
    assert_eq!(rig.client.poll_timeout(), Some(at(1810)));
}

/// RFC 2131 §4.1.
#[test]
fn questions_are_repeated_less_and_less_often() {
    let mut rig = Rig::new();
    rig.connected = false;
    rig.settle();
    let mut last = at(0);
    for expected in [4, 8, 16, 32, 64, 64, 64] {
        let due = rig.client.poll_timeout().unwrap();
        let waited = (due - last).total_millis();
        assert!((expected * 1000 - 1000..expected * 1000 + 1000).contains(&waited), "{expected}: {waited}");
        rig.wait_until(due);
        last = due;
    }
    let secs: Vec<_> = rig.sent.iter().map(|(_, _, message)| message.secs()).collect();
    assert!(secs.is_sorted() && secs[0] == 0 && secs[6] > 100, "{secs:?}");
}

#[test]
fn an_offer_whose_server_falls_silent_is_given_up() {
    let mut rig = Rig::new();
    rig.connected = false;
    rig.settle();
    let offer = reply(&rig, MessageType::Offer, |_| ());
    rig.client.handle_message(GATE, &offer, rig.now).unwrap();
    rig.wait_until(at(70));
    let requests = rig.kinds().iter().filter(|kind| **kind == MessageType::Request).count();
    assert_eq!(requests, 4);
    assert_eq!(rig.client.state(), ClientState::Selecting);
    assert!(rig.events.is_empty());
}

#[test]
fn answers_that_no_server_should_give_are_ignored() {
    type Change = fn(&mut v4::Message);
    let cases: [(&str, Change, Ignored); 9] = [
        (
            "another xid",
            |m| {
                m.set_xid(1);
            },
            Ignored::Foreign,
        ),
        (
            "another client",
            |m| {
                m.set_chaddr(mac(9).as_bytes());
            },
            Ignored::Foreign,
        ),
        (
            "a request",
            |m| {
                m.set_opcode(v4::Opcode::BootRequest);
            },
            Ignored::Format,
        ),
        (
            "no address",
            |m| {
                m.set_yiaddr(Ipv4Addr::UNSPECIFIED);
            },
            Ignored::Format,
        ),
        (
            "a group",
            |m| {
                m.set_yiaddr(Ipv4Addr::new(224, 0, 0, 1));
            },
            Ignored::Unusable,
        ),
        (
            "no server",
            |m| {
                m.opts_mut().remove(OptionCode::ServerIdentifier);
            },
            Ignored::Format,
        ),
        (
            "no time",
            |m| {
                m.opts_mut().remove(OptionCode::AddressLeaseTime);
            },
            Ignored::Format,
        ),
        (
            "too short",
            |m| {
                m.opts_mut().insert(DhcpOption::AddressLeaseTime(1));
            },
            Ignored::Unusable,
        ),
        (
            "no PSID",
            |m| {
                let option = UnknownOption::new(OptionCode::from(159), vec![15, 15, 0, 0]);
                m.opts_mut().insert(DhcpOption::Unknown(option));
            },
            Ignored::Unusable,
        ),
    ];
    for (what, change, ignored) in cases {
        let mut rig = Rig::new();
        rig.connected = false;
        rig.settle();
        let offer = reply(&rig, MessageType::Offer, change);
        assert_eq!(rig.client.handle_message(GATE, &offer, rig.now), Err(ignored), "{what}");
        assert_eq!(rig.client.state(), ClientState::Selecting);
        let sound = reply(&rig, MessageType::Offer, |_| ());
        for length in 0..sound.len().min(250) {
            assert!(rig.client.handle_message(GATE, &sound[..length], rig.now).is_err(), "{length}");
        }
        assert_eq!(rig.client.handle_message(GATE, &sound, rig.now), Ok(()), "{what}");
        // What was chosen is asked for, and nothing else is taken.
        rig.settle();
        let other = reply(&rig, MessageType::Ack, |m| {
            m.opts_mut().insert(codec::port_set_option(set("0,4,4")));
        });
        assert_eq!(rig.client.handle_message(GATE, &other, rig.now), Err(Ignored::Unusable));
        let stranger = reply(&rig, MessageType::Ack, |m| {
            m.opts_mut().insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(198, 51, 100, 9)));
        });
        assert_eq!(rig.client.handle_message(GATE, &stranger, rig.now), Err(Ignored::Unusable));
        let offer = reply(&rig, MessageType::Offer, |_| ());
        assert_eq!(rig.client.handle_message(GATE, &offer, rig.now), Err(Ignored::Unexpected));
        assert_eq!(
            rig.client.handle_message(EthernetAddress::BROADCAST, &offer, rig.now),
            Err(Ignored::Format)
        );
        let ack = reply(&rig, MessageType::Ack, |_| ());
        assert_eq!(rig.client.handle_message(GATE, &ack, rig.now), Ok(()));
        assert_eq!(rig.client.state(), ClientState::Probing);
    }
}

/// Who cannot use a part of an address takes no offer of one.
#[test]
fn a_set_for_a_host_that_cannot_share_is_ignored() {
    let mut rig = Rig::with(FILE, client::Config { shares: false, ..client_config() }, None);
    rig.connected = false;
    rig.settle();
    let offer = reply(&rig, MessageType::Offer, |_| ());
    assert_eq!(rig.client.handle_message(GATE, &offer, rig.now), Err(Ignored::Unusable));
}

/// What it is offered nobody else gets meanwhile.
#[test]
fn offers_of_no_use_are_not_asked_for_all_the_time() {
    let wish = client::Wish::Besides(vec![SHARED]);
    let mut rig = Rig::with(FILE, client::Config { wish, ..client_config() }, None);
    let mut asked = Vec::new();
    while rig.now < at(3600) {
        while let Some(transmit) = rig.client.poll_transmit() {
            asked.push(rig.now);
            let offer = rig.bench.give_bytes(mac(CLIENT), &transmit.message, rig.now).unwrap().unwrap();
            let taken = rig.client.handle_message(GATE, &offer.bytes, rig.now);
            assert_eq!((taken, rig.client.is_looking()), (Err(Ignored::Unusable), true));
        }
        rig.now = rig.client.poll_timeout().unwrap();
        rig.client.handle_timeout(rig.now);
    }
    assert!((5..8).contains(&asked.len()) && asked[1] > at(600), "{asked:?}");
    // One that is of use is taken.
    rig.client.set_wish(client::Wish::Any);
    rig.settle();
    assert_eq!(rig.client.state(), ClientState::Probing);
}

//! A DHCP client under a sequence of answers, probes, restarts and time.

use arbitrary::Arbitrary;
use dhcproto::v4;
use dhcproto::{Decodable, Decoder};
use pearp::dhcp::client::{Client, ClientLease, Config, Event, Wish};
use pearp::wire::EthernetAddress;
use smoltcp::time::{Duration, Instant};

use super::dhcp::{ADDRESSES, DhcpOption};
use super::{MACS, damage, pick, steps};

/// Messages that one step may lead to.
const MAX_SENT: usize = 4;

#[derive(Arbitrary, Debug)]
struct Answer {
    source: u8,
    kind: u8,
    address: u8,
    /// Mostly those of the question.
    other_xid: bool,
    other_hardware: bool,
    /// Mostly a lease that can be used.
    bare: bool,
    options: Vec<DhcpOption>,
    damage: Option<(u8, u8)>,
}

impl Answer {
    fn bytes(&self, xid: [u8; 4]) -> Vec<u8> {
        let mut bytes = vec![2, 1, 6, 0];
        bytes.extend(if self.other_xid { [9; 4] } else { xid });
        bytes.extend([0; 8]);
        bytes.extend(pick(&ADDRESSES, self.address));
        bytes.extend([0; 8]);
        bytes.extend(MACS[if self.other_hardware { 2 } else { 1 }]);
        bytes.resize(236, 0);
        bytes.extend([99, 130, 83, 99]);
        bytes.extend([53, 1, pick(&[2, 5, 6, 5, 2, 1], self.kind)]);
        if !self.bare {
            bytes.extend([54, 4, 198, 51, 100, 1, 51, 4, 0, 0, 0, 60, 1, 4, 255, 255, 255, 0]);
        }
        for option in &self.options {
            option.write(&mut bytes);
        }
        damage(&mut bytes, self.damage);
        bytes
    }
}

#[derive(Arbitrary, Debug)]
enum Step {
    Answer(Answer),
    Bytes(Vec<u8>),
    Probed { free: bool },
    Wait { millis: u16, long: bool },
    Restart { stored: bool },
    Release,
}

/// A client under a sequence of steps: it uses nothing that was not probed, and never asks all the time.
pub(crate) fn run(data: &[u8]) {
    let config = Config {
        hardware: EthernetAddress(MACS[1]),
        iaid: 0,
        host_name: None,
        shares: true,
        wish: Wish::Any,
        seed: 1,
    };
    let mut now = Instant::from_secs(1);
    let mut client = Client::new(config.clone(), None, now);
    let mut stored: Option<ClientLease> = None;
    let mut probing = false;
    let mut xid = [0; 4];
    for step in steps::<Step>(data) {
        match step {
            Step::Answer(answer) => {
                let source = pick(&MACS, answer.source);
                // Why it is ignored does not matter here.
                let _ = client.handle_message(EthernetAddress(source), &answer.bytes(xid), now);
            }
            Step::Bytes(bytes) => {
                let _ = client.handle_message(EthernetAddress(MACS[0]), &bytes, now);
            }
            Step::Probed { free } => {
                client.probed(free, now);
                assert!(!(free && probing) || client.lease().is_some());
                probing = false;
            }
            Step::Wait { millis, long } => {
                now += Duration::from_millis(millis.into()) * if long { 100 } else { 1 };
                client.handle_timeout(now);
                assert!(client.poll_timeout().is_none_or(|at| at > now), "the next deadline is later");
            }
            Step::Restart { stored: keeps } => {
                client = Client::new(config.clone(), stored.clone().filter(|_| keeps), now);
                probing = false;
            }
            Step::Release => {
                client.release(now);
                (probing, stored) = (false, None);
                assert_eq!((client.lease(), client.poll_timeout()), (None, None));
            }
        }
        while let Some(event) = client.poll_event() {
            probing = matches!(event, Event::Probe(_));
            stored = match event {
                Event::Probe(lease) | Event::Renewed(lease) => Some(lease),
                Event::Lost => None,
            };
        }
        assert!(!probing || client.lease().is_none(), "used before it was probed");
        if let Some(lease) = client.lease() {
            let ip = lease.address.address();
            assert!(
                !ip.is_multicast() && !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_loopback(),
                "{ip}"
            );
            assert!(lease.renew <= lease.rebind && lease.rebind <= lease.until, "{lease:?}");
        }
        let sent: Vec<_> = core::iter::from_fn(|| client.poll_transmit()).collect();
        assert!(sent.len() <= MAX_SENT, "{} messages", sent.len());
        for transmit in sent {
            let message = v4::Message::decode(&mut Decoder::new(&transmit.message)).expect("a message");
            xid = message.xid().to_be_bytes();
        }
    }
}

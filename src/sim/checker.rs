//! What must hold: who may get a datagram, and what every node promises.

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use smoltcp::time::Instant;

use super::packet::{Endpoint, Number, Seen, as_sent, embedded, seen};
use super::scenario::{NodeId, Party, Service};
use super::world::Holders;
use crate::wire::{EthernetAddress, icmp};

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A datagram reached a program that it was not for.
    #[error("datagram {number} from {sender} for {owner} was delivered to {receiver}")]
    Misdelivered {
        /// Which one.
        number: u64,
        /// Who sent it.
        sender: String,
        /// Who owns the port; `nobody` where nobody does.
        owner: String,
        /// Who got it.
        receiver: String,
    },
    /// An ICMP message reached a program that had not sent what it is about.
    #[error("{what} about datagram {number} of {sender} was delivered to {receiver}")]
    MisdeliveredIcmp {
        /// Which message.
        what: &'static str,
        /// Which datagram.
        number: u64,
        /// Who had sent that.
        sender: String,
        /// Who got the message.
        receiver: String,
    },
    /// More than TTL and header checksum was changed on the way.
    #[error("datagram {number} was changed on its way to {receiver}")]
    Altered {
        /// Which one.
        number: u64,
        /// Who got it.
        receiver: String,
    },
    /// A datagram came twice although no frame was duplicated.
    #[error("datagram {number} was delivered twice to {receiver}")]
    Repeated {
        /// Which one.
        number: u64,
        /// Who got it.
        receiver: String,
    },
    /// The counters of a node do not add up, or are not what went in and came out.
    #[error("the counters of {node} do not add up: {counters}")]
    Unbalanced {
        /// Whose.
        node: String,
        /// All of them.
        counters: String,
    },
    /// A deadline of a node is not later than the time that it was just given.
    #[error("the next deadline of {node} is {deadline}, not later than now")]
    Overdue {
        /// Whose.
        node: String,
        /// Time of the deadline.
        deadline: Instant,
    },
    /// Time does not advance.
    #[error("more than {events} events at one instant")]
    Livelock {
        /// The bound.
        events: u32,
    },
    /// Plain ARP with a shared address as sender (PE-ARP rule 3).
    #[error("{node} sent plain ARP with the shared address as sender")]
    PlainForShared {
        /// Who sent it.
        node: String,
    },
    /// PE-ARP on a segment where it is not spoken.
    #[error("{node} sent PE-ARP to the outside")]
    PeArpOutside {
        /// Who sent it.
        node: String,
    },
    /// A host sent from a port that it does not have.
    #[error("{node} sent from {address} port {port}, which it does not have")]
    ForeignSource {
        /// Who sent it.
        node: String,
        /// The source address.
        address: Ipv4Addr,
        /// The source port or identifier.
        port: u16,
    },
    /// A packet reached the programs of a host that does not have its port.
    #[error("a packet for {address} port {port} was delivered to {node}")]
    ForeignPort {
        /// Who got it.
        node: String,
        /// The destination address.
        address: Ipv4Addr,
        /// The destination port.
        port: u16,
    },
    /// All faults are over, and yet a frame goes to a host that does not have its port.
    #[error("after all faults, {node} sent a packet for {address} port {port} to {destination}")]
    WrongNextHop {
        /// Who sent it.
        node: String,
        /// The destination address.
        address: Ipv4Addr,
        /// The destination port.
        port: u16,
        /// Where it went.
        destination: EthernetAddress,
    },
    /// Nothing has been sent for a while, and yet packets wait.
    #[error("{pending} packets still wait at {node}")]
    StillPending {
        /// Where.
        node: String,
        /// How many.
        pending: u64,
    },
    /// Frames were neither lost nor received.
    #[error("{departed} frames departed, {arrived} arrived, {under_way} are under way")]
    LostTrack {
        /// Copies that segments sent to their receivers.
        departed: u64,
        /// Those that arrived.
        arrived: u64,
        /// Those that have not yet.
        under_way: u64,
    },
    /// Faults are over, and yet a flow is not answered.
    #[error(
        "after all faults, {missing} of {sent} datagrams from {from} to {to} ({service:?}) were not answered"
    )]
    NotHealed {
        /// Who sends.
        from: String,
        /// To whom.
        to: String,
        /// What is there.
        service: Service,
        /// Datagrams sent then.
        sent: u64,
        /// Those without an answer.
        missing: u64,
    },
    /// A host does not start: its configuration is impossible.
    #[error("{node} does not start: {error}")]
    Start {
        /// Which one.
        node: String,
        /// Why.
        error: String,
    },
}

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) flow: usize,
    pub(super) service: Service,
    pub(super) sender: Party,
    /// Who owns the destination port.
    pub(super) owner: Option<Party>,
    pub(super) at: Instant,
    /// What it is the answer to.
    pub(super) answers: Option<Number>,
}

#[derive(Debug)]
struct Tracked {
    sent: Sent,
    /// The node that had the sender's ports then.
    from: NodeId,
    bytes: Vec<u8>,
    deliveries: u32,
    answered: bool,
}

/// What a delivery means for the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// A datagram from there to here.
    Datagram { number: Number, from: Endpoint, to: Endpoint },
    /// An echo request.
    EchoRequest,
    /// Nothing more to be done.
    Noted,
    /// No packet of the simulation.
    Unknown,
}

/// Who sent what, and who may get it.
#[derive(Debug)]
pub(super) struct Checker {
    names: Vec<String>,
    tracked: Vec<Tracked>,
    may_repeat: bool,
    pub(super) delivered: u64,
}

impl Checker {
    pub(super) fn new(names: Vec<String>, may_repeat: bool) -> Self {
        Self { names, tracked: Vec::new(), may_repeat, delivered: 0 }
    }

    pub(super) fn name(&self, node: NodeId) -> String {
        self.names[node.0].clone()
    }

    /// Notes a datagram, made for its number.
    pub(super) fn send(
        &mut self,
        sent: Sent,
        holders: &Holders,
        make: impl FnOnce(Number) -> Vec<u8>,
    ) -> Vec<u8> {
        let bytes = make(self.tracked.len() as Number);
        let from = holders.node(sent.sender);
        self.tracked.push(Tracked { sent, from, bytes: bytes.clone(), deliveries: 0, answered: false });
        bytes
    }

    /// The number of the datagram that was sent last.
    pub(super) fn last_number(&self) -> Number {
        self.tracked.len().saturating_sub(1) as Number
    }

    pub(super) fn sent(&self, number: Number) -> Option<&Sent> {
        Some(&self.tracked.get(usize::try_from(number).ok()?)?.sent)
    }

    /// How many datagrams were sent, and how many of the questions among them were answered.
    pub(super) fn totals(&self) -> (u64, u64) {
        let answered = self.tracked.iter().filter(|tracked| tracked.answered).count();
        (self.tracked.len() as u64, answered as u64)
    }

    /// A packet has reached the programs of a node.
    pub(super) fn deliver(
        &mut self,
        receiver: NodeId,
        packet: &[u8],
        holders: &Holders,
    ) -> Result<Delivery, Violation> {
        let Some(seen) = seen(packet) else { return Ok(Delivery::Unknown) };
        let number = match seen {
            Seen::Datagram { number, .. } => number,
            Seen::EchoRequest(number) | Seen::EchoReply(number) | Seen::Error { number, .. } => number,
        };
        let receiver_name = self.name(receiver);
        let tracked = usize::try_from(number).ok().and_then(|index| self.tracked.get_mut(index));
        let Some(tracked) = tracked else {
            return Err(Violation::Altered { number, receiver: receiver_name });
        };
        // Whoever has the ports of sender and owner now.
        let (sender, service) = (holders.node(tracked.sent.sender), tracked.sent.service);
        let owner = tracked.sent.owner.map(|owner| holders.node(owner));
        let answer = |what| {
            let sender = self.names[sender.0].clone();
            Violation::MisdeliveredIcmp { what, number, sender, receiver: receiver_name.clone() }
        };
        match seen {
            Seen::Datagram { from, to, .. } => {
                if service == Service::Stack && is_echo(&tracked.bytes, from, to) {
                    // The echo service sends the datagram's own number back.
                    tracked.answered = true;
                    return if receiver == sender { Ok(Delivery::Noted) } else { Err(answer("the echo")) };
                }
                if owner != Some(receiver) {
                    let owner = owner.map_or("nobody", |owner| &self.names[owner.0]).to_owned();
                    let sender = self.names[sender.0].clone();
                    return Err(Violation::Misdelivered { number, sender, owner, receiver: receiver_name });
                }
                if as_sent(packet) != tracked.bytes {
                    return Err(Violation::Altered { number, receiver: receiver_name });
                }
                tracked.deliveries += 1;
                if tracked.deliveries == 1 {
                    self.delivered += 1;
                } else if !self.may_repeat {
                    return Err(Violation::Repeated { number, receiver: receiver_name });
                }
                if let Some(question) = tracked.sent.answers {
                    self.answered(question);
                }
                Ok(Delivery::Datagram { number, from, to })
            }
            Seen::EchoRequest(_) if owner != Some(receiver) => Err(answer("the echo request")),
            Seen::EchoRequest(_) => Ok(Delivery::EchoRequest),
            Seen::EchoReply(_) if receiver != sender => Err(answer("the echo reply")),
            // The identifier, too, is what the program chose (PE-ARP rule 93).
            Seen::EchoReply(_) if icmp::echo_reply(&tracked.bytes) != Some(as_sent(packet)) => {
                Err(Violation::Altered { number, receiver: receiver_name })
            }
            Seen::EchoReply(_) => {
                tracked.answered |= service == Service::Ping;
                Ok(Delivery::Noted)
            }
            Seen::Error { from, .. } => {
                // Echoes carry the number of what they answer, and an error about one is for who sent the echo.
                let about_echo = match seen_sender(&tracked.bytes) {
                    Some((address, port)) => from != (address, Some(port)),
                    None => from.1.is_none(),
                };
                let concerned = if about_echo { owner } else { Some(sender) };
                // A host also tells its own programs that nothing can be sent: those that sent it, although the
                // set may have gone to another host.
                if concerned != Some(receiver) && (about_echo || tracked.from != receiver) {
                    return Err(answer("an ICMP error"));
                }
                if !about_echo && embedded(packet).map(as_sent).as_ref() != Some(&tracked.bytes) {
                    return Err(Violation::Altered { number, receiver: receiver_name });
                }
                tracked.answered |= !about_echo && service == Service::Closed && is_port_unreachable(packet);
                Ok(Delivery::Noted)
            }
        }
    }

    /// What was asked for has come.
    pub(super) fn answered(&mut self, question: Number) {
        let index = usize::try_from(question).ok();
        if let Some(tracked) = index.and_then(|index| self.tracked.get_mut(index)) {
            tracked.answered = true;
        }
    }

    /// Every question since `since` must have been answered.
    pub(super) fn healed(&self, since: Instant, holders: &Holders) -> Result<(), Violation> {
        let mut flows = BTreeMap::<usize, (&Sent, u64, u64)>::new();
        for Tracked { sent, answered, .. } in &self.tracked {
            if sent.at >= since && sent.answers.is_none() && sent.service != Service::Nobody {
                let (_, all, missing) = flows.entry(sent.flow).or_insert((sent, 0, 0));
                *all += 1;
                *missing += u64::from(!answered);
            }
        }
        match flows.into_values().find(|(_, _, missing)| *missing > 0) {
            None => Ok(()),
            Some((flow, sent, missing)) => Err(Violation::NotHealed {
                from: self.name(holders.node(flow.sender)),
                to: flow.owner.map_or_else(|| "nobody".to_owned(), |owner| self.name(holders.node(owner))),
                service: flow.service,
                sent,
                missing,
            }),
        }
    }
}

/// Whether a datagram goes the way of `sent` back.
fn is_echo(sent: &[u8], from: Endpoint, to: Endpoint) -> bool {
    matches!(seen(sent), Some(Seen::Datagram { from: sent_from, to: sent_to, .. }) if (sent_to, sent_from) == (from, to))
}

/// The source of a datagram.
fn seen_sender(sent: &[u8]) -> Option<Endpoint> {
    match seen(sent) {
        Some(Seen::Datagram { from, .. }) => Some(from),
        _ => None,
    }
}

/// Whether a packet is ICMP destination unreachable, code 3 (RFC 792).
fn is_port_unreachable(packet: &[u8]) -> bool {
    packet.get(20..22) == Some(&[3, 3])
}

#[cfg(test)]
mod tests {
    use super::super::packet::{ping, udp};
    use super::*;
    use core::net::Ipv4Addr;

    const SHARED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const INET: Endpoint = (Ipv4Addr::new(203, 0, 113, 80), 40_000);
    const H1: NodeId = NodeId(0);
    const H2: NodeId = NodeId(1);
    const SENDER: NodeId = NodeId(2);
    const SETS: Holders = Holders(Vec::new());

    fn checker() -> Checker {
        Checker::new(["h1", "h2", "inet"].map(str::to_owned).into(), false)
    }

    fn sent(service: Service) -> Sent {
        let (sender, owner) = (Party::Node(SENDER), Some(Party::Node(H1)));
        Sent { flow: 0, service, sender, owner, at: Instant::ZERO, answers: None }
    }

    fn send(checker: &mut Checker, service: Service) -> Vec<u8> {
        checker.send(sent(service), &SETS, |number| udp(INET, (SHARED, 5000), number))
    }

    #[test]
    fn a_datagram_for_another_host_is_noticed() {
        let mut checker = checker();
        let datagram = send(&mut checker, Service::Program);
        let violation = checker.deliver(H2, &datagram, &SETS).unwrap_err();
        assert!(matches!(violation, Violation::Misdelivered { .. }), "{violation}");
        assert_eq!(violation.to_string(), "datagram 0 from inet for h1 was delivered to h2");
        assert!(checker.deliver(H1, &datagram, &SETS).is_ok());
        assert!(matches!(checker.deliver(H1, &datagram, &SETS), Err(Violation::Repeated { .. })));
    }

    #[test]
    fn a_changed_datagram_is_noticed() {
        let mut checker = checker();
        send(&mut checker, Service::Program);
        let translated = udp(INET, (SHARED, 5001), 0);
        assert!(matches!(checker.deliver(H1, &translated, &SETS), Err(Violation::Altered { number: 0, .. })));
        let invented = udp(INET, (SHARED, 5000), 99);
        assert!(matches!(checker.deliver(H1, &invented, &SETS), Err(Violation::Altered { number: 99, .. })));
    }

    #[test]
    fn an_icmp_message_for_another_host_is_noticed() {
        let mut checker = checker();
        let datagram = send(&mut checker, Service::Closed);
        let error = icmp::error_for(&datagram, SHARED, icmp::Error::PortUnreachable).unwrap();
        assert!(matches!(checker.deliver(H2, &error, &SETS), Err(Violation::MisdeliveredIcmp { .. })));
        assert_eq!(checker.totals(), (1, 0));
        checker.deliver(SENDER, &error, &SETS).unwrap();
        assert_eq!(checker.totals(), (1, 1));
        let request = checker.send(sent(Service::Ping), &SETS, |number| ping(INET.0, SHARED, 7, number));
        let reply = icmp::echo_reply(&request).unwrap();
        assert!(matches!(checker.deliver(H1, &reply, &SETS), Err(Violation::MisdeliveredIcmp { .. })));
        let renamed = icmp::echo_reply(&ping(INET.0, SHARED, 8, 1)).unwrap();
        assert!(matches!(
            checker.deliver(SENDER, &renamed, &SETS),
            Err(Violation::Altered { number: 1, .. })
        ));
        let error = icmp::error_for(&reply, INET.0, icmp::Error::HostUnreachable).unwrap();
        assert!(checker.deliver(SENDER, &error, &SETS).is_err());
        assert!(checker.deliver(H1, &error, &SETS).is_ok(), "it had sent the reply");
    }

    #[test]
    fn a_flow_without_answers_is_noticed() {
        let mut checker = checker();
        send(&mut checker, Service::Program);
        assert!(checker.healed(Instant::from_secs(1), &SETS).is_ok(), "sent while things went wrong");
        let violation = checker.healed(Instant::ZERO, &SETS).unwrap_err();
        assert!(matches!(violation, Violation::NotHealed { sent: 1, missing: 1, .. }), "{violation}");
        let answer = Sent {
            owner: Some(Party::Node(SENDER)),
            sender: Party::Node(H1),
            answers: Some(0),
            ..sent(Service::Program)
        };
        let bytes = checker.send(answer, &SETS, |number| udp((SHARED, 5000), INET, number));
        checker.deliver(SENDER, &bytes, &SETS).unwrap();
        assert!(checker.healed(Instant::ZERO, &SETS).is_ok());
    }
}

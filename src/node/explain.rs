//! What a node would do with a packet, and why: the same decisions as for a packet that comes, but nothing changes.

use core::fmt;

use smoltcp::wire::EthernetAddress;

use super::{DropReason, LinkId};
use crate::neighbor::{Entry, Look, Target};
use crate::wire::{DCCP, ESP, FlowKey, FlowKind, GRE, ICMP, SCTP, TCP, UDP, UDP_LITE, Unkeyed, written};

/// One thing that was decided, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The rule: `PE-ARP rule n`, or of an RFC.
    pub rule: &'static str,
    /// What it says of this packet.
    pub text: String,
}

/// What becomes of the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It leaves by this link, to this link-layer address where there is one.
    Forward(LinkId, Option<EthernetAddress>),
    /// The node takes it.
    Delivered,
    /// It waits.
    Pending,
    /// It ends here.
    Dropped(DropReason),
}

/// What a node would do with a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// What was decided, one after the other.
    pub steps: Vec<Step>,
    /// The binding that gives the next hop.
    pub binding: Option<Entry>,
    /// `None` as long as nothing ended it.
    pub outcome: Option<Fate>,
}

impl Explanation {
    pub(super) fn step(&mut self, rule: &'static str, text: impl Into<String>) {
        self.steps.push(Step { rule, text: text.into() });
    }

    /// The end, with what led to it.
    pub(super) fn end(mut self, outcome: Fate, rule: &'static str, text: impl Into<String>) -> Self {
        self.step(rule, text);
        self.outcome = Some(outcome);
        self
    }

    pub(super) fn drop(self, reason: DropReason, rule: &'static str, text: impl Into<String>) -> Self {
        self.end(Fate::Dropped(reason), rule, text)
    }

    pub(super) fn later_fragment(self) -> Self {
        let text = "a later fragment goes where the first one of its datagram went, or waits for it for 2 s";
        self.end(Fate::Pending, "PE-ARP rule 63", text)
    }

    /// Says what names the owner of a packet.
    pub(super) fn say_key(&mut self, key: &FlowKey) {
        let name = |port: Option<u16>| port.map_or("nothing".to_owned(), |port| port.to_string());
        let protocol = ProtocolName(key.protocol);
        let (rule, text) = match key.kind {
            FlowKind::Transport => {
                ("PE-ARP rule 59", format!("{protocol} port {} names the receiver", name(key.destination)))
            }
            FlowKind::Tunnel if key.protocol == ESP => (
                "PE-ARP rule 64",
                format!("the low bits of its SPI, {}, name the receiver", name(key.destination)),
            ),
            FlowKind::Tunnel => (
                "PE-ARP rule 65",
                format!("the low bits of its key, {}, name the receiver", name(key.destination)),
            ),
            FlowKind::EchoReply => {
                ("PE-ARP rule 60", format!("echo identifier {} names the receiver", name(key.destination)))
            }
            FlowKind::EchoRequest => ("PE-ARP rule 61", "an echo request names its sender only".to_owned()),
            FlowKind::IcmpError => (
                "PE-ARP rule 62",
                format!(
                    "{protocol} port or identifier {} of the embedded packet names the receiver",
                    name(key.destination)
                ),
            ),
            FlowKind::Portless => (
                "PE-ARP rule 66",
                format!("{protocol} has no port: the owner of the protocol is the receiver"),
            ),
        };
        self.step(rule, text);
    }

    /// Goes on with what the table says of the next hop.
    pub(super) fn resolve(mut self, look: Look, target: Target, link: LinkId, name: &str) -> Self {
        let asked = match (target.protocol, target.port) {
            (0, Some(0)) => format!("{}", target.ip),
            (protocol, Some(port)) => format!("{{{}, {}, {port}}}", target.ip, ProtocolName(protocol)),
            (protocol, None) => format!("{{{}, {}}}", target.ip, ProtocolName(protocol)),
        };
        match look {
            Look::Bound(entry) => {
                let hardware = entry.hardware;
                let text = format!(
                    "{asked} is at {}: {} binding, {}",
                    hardware.map_or("?".to_owned(), written),
                    entry.source,
                    entry.state
                );
                self.binding = Some(entry);
                self.step("PE-ARP rule 31", text);
                self.end(Fate::Forward(link, hardware), "PE-ARP rule 81", format!("it leaves by {name}"))
            }
            Look::Refused(refused) => {
                let reason = DropReason::from(refused);
                let (rule, text) = match reason {
                    DropReason::UnassignedPort => ("PE-ARP rule 37", "no PSID of the address has this port"),
                    DropReason::NoOwner => ("PE-ARP rule 121", "an authority says that nobody owns it"),
                    _ => ("PE-ARP rule 42", "the owner did not answer lately"),
                };
                self.drop(reason, rule, format!("{asked}: {text}"))
            }
            Look::Asking => {
                self.end(Fate::Pending, "PE-ARP rule 38", format!("{asked} is being asked for: it waits"))
            }
            Look::Unknown => self.end(
                Fate::Pending,
                "PE-ARP rule 38",
                format!("{asked} is not known: it waits, and a RESOLVE is sent"),
            ),
        }
    }

    /// Why a packet has no key.
    pub(super) fn unkeyed(self, unkeyed: Unkeyed) -> Self {
        let rule = match unkeyed {
            Unkeyed::Truncated => "PE-ARP rule 59",
            Unkeyed::Fragment => "PE-ARP rule 63",
            Unkeyed::ForeignError => "PE-ARP rule 62",
        };
        self.drop(unkeyed.into(), rule, unkeyed.to_string())
    }
}

/// An IP protocol by name, where it has a short one.
struct ProtocolName(u8);

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("any"),
            ICMP => f.write_str("ICMP"),
            TCP => f.write_str("TCP"),
            UDP => f.write_str("UDP"),
            DCCP => f.write_str("DCCP"),
            GRE => f.write_str("GRE"),
            ESP => f.write_str("ESP"),
            SCTP => f.write_str("SCTP"),
            UDP_LITE => f.write_str("UDP-Lite"),
            protocol => write!(f, "protocol {protocol}"),
        }
    }
}

#[cfg(test)]
mod tests;

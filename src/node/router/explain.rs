//! [`Router::explain`]: the way of a packet through the router, decision by decision, in the order of
//! `receive_packet` and `forward`. A test compares it with what happens.

use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use super::guard::Violation;
use super::{EchoAnswer, Router};
use crate::neighbor::Target;
use crate::node::explain::{Explanation, Fate};
use crate::node::{DropReason, LinkId};
use crate::wire::{FlowKey, FlowKind, Piece, ipv4, written};

impl Router {
    /// The link by which a packet from this address comes, if it is not forged; the first one outside for all that has no
    /// route.
    pub fn ingress_of(&self, source: core::net::Ipv4Addr) -> Option<LinkId> {
        let routed = self.fib.lookup(source).map(|next_hop| next_hop.link);
        routed.or_else(|| self.links.iter().position(|attached| !attached.pe).map(LinkId))
    }

    /// What the router would do with an IP packet from `from` on a link; `None` for whoever owns its source.
    pub fn explain(
        &self,
        link: LinkId,
        from: Option<EthernetAddress>,
        bytes: &[u8],
        now: Instant,
    ) -> Explanation {
        let mut about = Explanation::default();
        let packet = match ipv4::check(bytes) {
            Ok(packet) => packet,
            Err(error) => return about.drop(error.into(), "RFC 1812 §5.2.2", error.to_string()),
        };
        let Some(ingress) = self.links.get(link.0) else {
            return about.drop(DropReason::LinkError, "RFC 1812 §5.2.1", "there is no such link");
        };
        about.step("RFC 1812 §5.2.1", format!("it comes by {}", ingress.interface.name));
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        if !self.is_unicast(source) || self.is_own(source) {
            return about.drop(
                DropReason::MartianSource,
                "RFC 1812 §5.3.7",
                "no host sends from this address",
            );
        }
        if !self.is_unicast(destination) {
            return about.drop(
                DropReason::MartianDestination,
                "RFC 1812 §5.3.7",
                "the router forwards nothing to such an address",
            );
        }
        let key = FlowKey::of(&packet);
        let fragment = Piece::of(&packet);
        if let Some(from) = from {
            if let Err(Violation { reason, owner, .. }) =
                self.judge(link, from, source, &key, fragment.map(|(datagram, _)| datagram))
            {
                let whose = owner.map_or("nobody".to_owned(), |(owner, _)| written(owner));
                let rule =
                    if reason == DropReason::SpoofedError { "PE-ARP rule 111" } else { "PE-ARP rule 110" };
                return about.drop(
                    reason,
                    rule,
                    format!("{} may not send this; its owner: {whose}", written(from)),
                );
            }
            about.step("PE-ARP rule 110", format!("{} may send this", written(from)));
        }
        if self.is_own(destination) {
            return match key {
                Err(unkeyed) => about.unkeyed(unkeyed),
                Ok(FlowKey { kind: FlowKind::Transport | FlowKind::Tunnel | FlowKind::Portless, .. }) => {
                    about.drop(
                        DropReason::NoService,
                        "PE-ARP rule 83",
                        "it is for the router itself, which offers no such service",
                    )
                }
                Ok(_) => about.end(Fate::Delivered, "PE-ARP rule 79", "it is for the router itself"),
            };
        }
        let mut key = key;
        if let Ok(key) = &key {
            about.say_key(key);
        }
        let shared = self.is_shared(destination);
        if fragment.is_some_and(|(_, piece)| piece.offset != 0) && shared {
            return about.later_fragment();
        }
        if let Ok(request @ FlowKey { kind: FlowKind::EchoRequest, .. }) = &mut key
            && shared
        {
            if self.echo == EchoAnswer::Router {
                return about.end(
                    Fate::Delivered,
                    "PE-ARP rule 80",
                    "the router answers for the shared address",
                );
            }
            about.step("PE-ARP rule 61", "echo=owner: the owner of its identifier answers");
            request.destination = request.source;
        }
        if packet.hop_limit() <= 1 {
            return about.drop(DropReason::TtlExceeded, "PE-ARP rule 81", "its TTL ends here");
        }
        let egress = match self.route(destination, packet.next_header().into(), &key) {
            Ok(Some(egress)) => egress,
            Ok(None) => return about.drop(DropReason::NoRoute, "PE-ARP rule 83", "there is no route"),
            Err(reason) => {
                return match key {
                    Err(unkeyed) => about.unkeyed(unkeyed),
                    Ok(_) => about.drop(reason, "PE-ARP rule 59", "nothing names its receiver"),
                };
            }
        };
        let attached = &self.links[egress.link.0];
        if egress.target == Target::gateway(egress.target.ip) && egress.target.ip != destination {
            about.step("RFC 1812 §5.2.4", format!("by the router {}", egress.target.ip));
        }
        if usize::from(packet.total_len()) > attached.mtu {
            if packet.dont_frag() {
                let text = format!(
                    "larger than the MTU of {}, {}, and not to be cut",
                    attached.interface.name, attached.mtu
                );
                return about.drop(DropReason::TooBig, "RFC 1191 §4", text);
            }
            about.step("PE-ARP rule 83", format!("it is cut for the MTU of {}", attached.mtu));
        }
        let look = attached.interface.neighbors.look(egress.target, now);
        about.resolve(look, egress.target, egress.link, &attached.interface.name)
    }
}

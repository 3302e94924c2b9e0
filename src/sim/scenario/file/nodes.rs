//! The nodes of a file and their addresses.

use core::net::Ipv4Addr;

use smoltcp::wire::Ipv4Cidr;
use toml::Spanned;

use super::values::time;
use super::{File, FileHost, FileLegacy, FileRouter, FileShared, NodeId, NodeKind, Scenario};
use crate::config::{FileError, Source};
use crate::node::{Role, Route};
use crate::ports::{PortSet, Psid, Scheme};
use crate::sim::scenario::{HostSpec, NodeSpec, RouterSpec, SegmentId, SetId, SetSpec};

/// The segments that are there unless a file has its own (TEST-NET-2 and TEST-NET-3).
pub(super) const LAN: Ipv4Cidr = Ipv4Cidr::new(Ipv4Addr::new(198, 51, 100, 0), 24);
pub(super) const OUTSIDE: Ipv4Cidr = Ipv4Cidr::new(Ipv4Addr::new(203, 0, 113, 0), 24);
/// The router between them.
const LAN_GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const OUTSIDE_GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The host outside.
const INET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

/// The largest number of nodes: a byte of a link-layer address tells them apart.
const MAX_NODES: usize = 250;

impl Scenario {
    pub(super) fn add_nodes(&mut self, source: Source<'_>, file: &File) -> Result<(), FileError> {
        if file.segment.is_empty() {
            if file.router.is_empty() {
                let links = vec![(SegmentId(0), LAN_GATEWAY), (SegmentId(1), OUTSIDE_GATEWAY)];
                let router = RouterSpec { links, routes: Vec::new(), authority: false };
                self.nodes.push(NodeSpec { name: "router".to_owned(), kind: NodeKind::Router(router) });
            }
            let kind = NodeKind::Legacy { segment: SegmentId(1), address: INET, gateway: OUTSIDE_GATEWAY };
            self.nodes.push(NodeSpec { name: "inet".to_owned(), kind });
        }
        for router in &file.router {
            self.add_router(source, router)?;
        }
        for shared in &file.shared {
            self.add_shared(source, shared)?;
        }
        for host in &file.host {
            self.add_host(source, host)?;
        }
        for legacy in &file.legacy {
            self.add_legacy(source, legacy)?;
        }
        Ok(())
    }

    fn add_router(&mut self, source: Source<'_>, router: &FileRouter) -> Result<(), FileError> {
        let name = self.new_name(source, &router.name, "router.name")?;
        let mut links = Vec::new();
        for (segment, address) in &router.links {
            let found = self.segments.iter().position(|known| known.name == *segment).map(SegmentId);
            let Some(id) = found else {
                return Err(source.error(address, "router.links", format!("no segment `{segment}`")));
            };
            let ip = self.new_address(source, address, "router.links")?;
            if !self.segments[id.0].prefix.contains_addr(&ip) {
                return Err(source.error(address, "router.links", format!("{ip} is not on {segment}")));
            }
            links.push((id, ip));
        }
        let mut routes = Vec::new();
        for (prefix, gateway) in &router.routes {
            let prefix = source.prefix(gateway, prefix, "router.routes")?;
            let gateway = *gateway.get_ref();
            routes.push(Route { prefix, gateway });
        }
        let spec = RouterSpec { links, routes, authority: router.authority };
        self.nodes.push(NodeSpec { name, kind: NodeKind::Router(spec) });
        Ok(())
    }

    fn add_shared(&mut self, source: Source<'_>, shared: &FileShared) -> Result<(), FileError> {
        let address = self.new_address(source, &shared.address, "shared.address")?;
        self.lan(source, &shared.address, address, "shared.address")?;
        let [offset, length] = *shared.scheme.get_ref();
        let scheme = Scheme::new(offset, length)
            .map_err(|error| source.error(&shared.scheme, "shared.scheme", error.to_string()))?;
        self.shared.push((address, scheme));
        Ok(())
    }

    fn add_host(&mut self, source: Source<'_>, host: &FileHost) -> Result<(), FileError> {
        let name = self.new_name(source, &host.name, "host.name")?;
        let lease = host.lease.as_ref().map(|lease| time(source, lease, "host.lease")).transpose()?;
        let node = NodeId(self.nodes.len());
        let owned = self.host_set(source, host)?;
        let segment = match (&host.segment, &owned) {
            (Some(segment), None) => self.segment(source, segment, "host.segment")?,
            (Some(segment), Some(_)) => {
                return Err(source.error(segment, "host.segment", "is where the host's address is"));
            }
            (None, Some((address, _))) => self.lan(source, &host.name, *address, "host.address")?,
            (None, None) => {
                let message = "give the host a `psid`, an `address`, or, for none at the start, a `segment`";
                return Err(source.error(&host.name, "host.name", message));
            }
        };
        let set = match owned {
            None => None,
            Some((address, ports)) => {
                let taken = self.sets.iter().position(|set| set.address == address && set.ports == ports);
                match (taken, host.thief) {
                    (Some(taken), true) => Some(SetId(taken)),
                    (Some(taken), false) => {
                        let holder = &self.nodes[self.sets[taken].holder.0].name;
                        let message = format!("its set is that of {holder}");
                        return Err(source.error(&host.name, "host.name", message));
                    }
                    (None, true) => {
                        return Err(source.error(&host.name, "host.thief", "no host above has this set"));
                    }
                    (None, false) => {
                        self.sets.push(SetSpec { address, ports, holder: node });
                        Some(SetId(self.sets.len() - 1))
                    }
                }
            }
        };
        let gateway = self.gateway(source, &host.name, segment, "host.name")?;
        let spec = HostSpec { segment, gateway, set, thief: host.thief, lease };
        self.nodes.push(NodeSpec { name, kind: NodeKind::Host(spec) });
        Ok(())
    }

    /// The address and the ports of a host.
    fn host_set(
        &self,
        source: Source<'_>,
        host: &FileHost,
    ) -> Result<Option<(Ipv4Addr, PortSet)>, FileError> {
        match (&host.address, &host.psid, self.shared.first()) {
            (None, None, _) => Ok(None),
            (Some(address), None, _) => {
                let ip = self.new_address(source, address, "host.address")?;
                Ok(Some((ip, PortSet::FULL)))
            }
            (_, Some(psid), None) => {
                Err(source.error(psid, "host.psid", "needs an address in a [[shared]] table"))
            }
            (address, Some(psid), Some((first, _))) => {
                let address = address.as_ref().map_or(*first, |address| *address.get_ref());
                let known = self.shared.iter().find(|(shared, _)| *shared == address);
                let (_, scheme) = known.ok_or_else(|| {
                    source.error(psid, "host.psid", format!("{address} is no address of a [[shared]] table"))
                })?;
                let psid = Psid::new(*scheme, *psid.get_ref())
                    .map_err(|error| source.error(psid, "host.psid", error.to_string()))?;
                Ok(Some((address, PortSet::Psid(psid))))
            }
        }
    }

    fn add_legacy(&mut self, source: Source<'_>, legacy: &FileLegacy) -> Result<(), FileError> {
        let name = self.new_name(source, &legacy.name, "legacy.name")?;
        let address = self.new_address(source, &legacy.address, "legacy.address")?;
        let segment = self.segment_of(address).ok_or_else(|| {
            source.error(&legacy.address, "legacy.address", format!("{address} is on no segment"))
        })?;
        let gateway = self.gateway(source, &legacy.name, segment, "legacy.name")?;
        self.nodes.push(NodeSpec { name, kind: NodeKind::Legacy { segment, address, gateway } });
        Ok(())
    }

    fn new_name(
        &self,
        source: Source<'_>,
        name: &Spanned<String>,
        field: &'static str,
    ) -> Result<String, FileError> {
        if self.names().contains(&name.get_ref().as_str()) {
            return Err(source.error(name, field, "another node has this name"));
        }
        if self.nodes.len() >= MAX_NODES {
            return Err(source.error(name, field, format!("more than {MAX_NODES} nodes")));
        }
        Ok(name.get_ref().clone())
    }

    /// The first router on a segment.
    fn gateway<T>(
        &self,
        source: Source<'_>,
        value: &Spanned<T>,
        segment: SegmentId,
        field: &'static str,
    ) -> Result<Ipv4Addr, FileError> {
        let on_segment = |node: &NodeSpec| match &node.kind {
            NodeKind::Router(router) => {
                router.links.iter().find(|(id, _)| *id == segment).map(|(_, address)| *address)
            }
            NodeKind::Host(_) | NodeKind::Legacy { .. } => None,
        };
        let name = &self.segments[segment.0].name;
        self.nodes
            .iter()
            .find_map(on_segment)
            .ok_or_else(|| source.error(value, field, format!("there is no router on {name}")))
    }

    /// The segment of an address, where PE-ARP is spoken.
    fn lan<T>(
        &self,
        source: Source<'_>,
        value: &Spanned<T>,
        ip: Ipv4Addr,
        field: &'static str,
    ) -> Result<SegmentId, FileError> {
        let lan = self.segment_of(ip).filter(|id| self.segments[id.0].role == Role::Lan);
        lan.ok_or_else(|| source.error(value, field, format!("{ip} is on no segment of role `lan`")))
    }

    /// An address that no other node has.
    fn new_address(
        &self,
        source: Source<'_>,
        address: &Spanned<Ipv4Addr>,
        field: &'static str,
    ) -> Result<Ipv4Addr, FileError> {
        let ip = *address.get_ref();
        let Some(segment) = self.segment_of(ip) else {
            return Err(source.error(address, field, format!("{ip} is on no segment")));
        };
        let prefix = self.segments[segment.0].prefix;
        if ip == prefix.address() || Some(ip) == prefix.broadcast() {
            return Err(source.error(address, field, format!("{ip} is no address for a host on {prefix}")));
        }
        let of_node = |node: &NodeSpec| match &node.kind {
            NodeKind::Router(router) => router.links.iter().any(|(_, address)| *address == ip),
            NodeKind::Legacy { address, .. } => *address == ip,
            NodeKind::Host(_) => false,
        };
        let used = self.is_shared(ip)
            || self.sets.iter().any(|set| set.address == ip)
            || self.nodes.iter().any(of_node);
        if used {
            return Err(source.error(address, field, format!("{ip} is in use")));
        }
        Ok(ip)
    }
}

//! A scenario as a TOML file, and what makes it a sound one.

mod nodes;
#[cfg(test)]
mod tests;
mod values;

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use serde::Deserialize;
use smoltcp::time::Duration;
use toml::Spanned;

use self::values::{read_faults, seconds, time};
use super::{
    Action, Chaos, Fault, Faults, Flow, NodeId, NodeKind, Party, Scenario, SegmentId, SegmentSpec, Service,
    Wiring,
};
use crate::config::{FileError, Source};
use crate::node::Role;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    duration: Spanned<f64>,
    settle: Spanned<f64>,
    #[serde(default)]
    wiring: Wiring,
    #[serde(default)]
    faults: FileFaults,
    #[serde(default)]
    segment: Vec<FileSegment>,
    #[serde(default)]
    router: Vec<FileRouter>,
    #[serde(default)]
    shared: Vec<FileShared>,
    #[serde(default)]
    host: Vec<FileHost>,
    #[serde(default)]
    legacy: Vec<FileLegacy>,
    #[serde(default)]
    event: Vec<FileEvent>,
    chaos: Option<FileChaos>,
    #[serde(default)]
    flow: Vec<FileFlow>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFaults {
    loss: Option<Spanned<f64>>,
    duplicate: Option<Spanned<f64>>,
    reorder: Option<Spanned<f64>>,
    delay_ms: Option<Spanned<[f64; 2]>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSegment {
    name: Spanned<String>,
    prefix: Spanned<String>,
    #[serde(default)]
    role: FileRole,
    wiring: Option<Wiring>,
    faults: Option<FileFaults>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileRole {
    #[default]
    Lan,
    Outside,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRouter {
    name: Spanned<String>,
    links: BTreeMap<String, Spanned<Ipv4Addr>>,
    #[serde(default)]
    routes: BTreeMap<String, Spanned<Ipv4Addr>>,
    #[serde(default)]
    authority: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileShared {
    address: Spanned<Ipv4Addr>,
    scheme: Spanned<[u8; 2]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileHost {
    name: Spanned<String>,
    address: Option<Spanned<Ipv4Addr>>,
    psid: Option<Spanned<u16>>,
    segment: Option<Spanned<String>>,
    #[serde(default)]
    thief: bool,
    lease: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLegacy {
    name: Spanned<String>,
    address: Spanned<Ipv4Addr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEvent {
    at: Spanned<f64>,
    action: Action,
    node: Spanned<String>,
    segment: Option<Spanned<String>>,
    to: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileChaos {
    every: Spanned<f64>,
    outage: Spanned<[f64; 2]>,
    actions: Spanned<Vec<Action>>,
    nodes: Spanned<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFlow {
    from: Spanned<String>,
    to: Option<Spanned<String>>,
    #[serde(default)]
    service: Service,
    every: Spanned<f64>,
}

impl Scenario {
    /// Reads a scenario. Without a `[[segment]]` there are `lan` with a router, and `outside` with `inet`.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let source = Source(text);
        let mut file: File = source.parse()?;
        let mut scenario = Self {
            about: core::mem::take(&mut file.about),
            duration: time(source, &file.duration, "duration")?,
            settle: time(source, &file.settle, "settle")?,
            segments: Vec::new(),
            shared: Vec::new(),
            nodes: Vec::new(),
            sets: Vec::new(),
            events: Vec::new(),
            chaos: None,
            flows: Vec::new(),
        };
        let faults = read_faults(source, &file.faults)?;
        if file.segment.is_empty() {
            scenario.segments = default_segments(file.wiring, faults);
        }
        for segment in &file.segment {
            scenario.add_segment(source, segment, file.wiring, faults)?;
        }
        scenario.add_nodes(source, &file)?;
        for event in &file.event {
            scenario.add_event(source, event)?;
        }
        if let Some(chaos) = &file.chaos {
            scenario.chaos = Some(scenario.read_chaos(source, chaos)?);
        }
        for flow in &file.flow {
            scenario.add_flow(source, flow)?;
        }
        Ok(scenario)
    }

    fn add_segment(
        &mut self,
        source: Source<'_>,
        segment: &FileSegment,
        wiring: Wiring,
        faults: Faults,
    ) -> Result<(), FileError> {
        let name = segment.name.get_ref();
        if self.segments.iter().any(|other| other.name == *name) {
            return Err(source.error(&segment.name, "segment.name", "another segment has this name"));
        }
        let prefix = source.prefix(&segment.prefix, segment.prefix.get_ref(), "segment.prefix")?;
        let overlaps = |other: &SegmentSpec| {
            other.prefix.contains_addr(&prefix.address()) || prefix.contains_addr(&other.prefix.address())
        };
        if self.segments.iter().any(overlaps) {
            return Err(source.error(&segment.prefix, "segment.prefix", "overlaps that of another segment"));
        }
        self.segments.push(SegmentSpec {
            name: name.clone(),
            prefix,
            role: match segment.role {
                FileRole::Lan => Role::Lan,
                FileRole::Outside => Role::Outside,
            },
            wiring: segment.wiring.unwrap_or(wiring),
            faults: segment.faults.as_ref().map_or(Ok(faults), |own| read_faults(source, own))?,
        });
        Ok(())
    }

    fn add_event(&mut self, source: Source<'_>, event: &FileEvent) -> Result<(), FileError> {
        let at = time(source, &event.at, "event.at")?;
        if at >= self.duration {
            return Err(source.error(&event.at, "event.at", "is not before the end of `duration`"));
        }
        let node = self.node(source, &event.node, "event.node")?;
        let gives = matches!(event.action, Action::Move | Action::Takeover);
        let cuts = matches!(event.action, Action::Partition | Action::Heal);
        if (gives || event.action == Action::Leave) && self.host(node).is_none() {
            return Err(source.error(&event.node, "event.node", "is no host: it has no set to give"));
        }
        let to = match &event.to {
            Some(to) if gives => Some(self.node(source, to, "event.to")?),
            Some(to) => return Err(source.error(to, "event.to", "goes with `move` and `takeover` only")),
            None if gives => return Err(source.error(&event.node, "event.to", "is missing")),
            None => None,
        };
        if let (Some(to), Some(name)) = (to, &event.to)
            && !self.may_give(node, to)
        {
            let message = "is no other host on the same segment, or a thief";
            return Err(source.error(name, "event.to", message));
        }
        let segment = match &event.segment {
            Some(segment) if cuts => Some(self.segment(source, segment, "event.segment")?),
            Some(segment) => {
                let message = "goes with `partition` and `heal` only";
                return Err(source.error(segment, "event.segment", message));
            }
            None => None,
        };
        self.events.push(Fault { at, action: event.action, node, segment, to });
        Ok(())
    }

    /// Whether a set of one node can become another's.
    pub(in crate::sim) fn may_give(&self, from: NodeId, to: NodeId) -> bool {
        from != to
            && match (self.host(from), self.host(to)) {
                (Some(from), Some(to)) => from.segment == to.segment && !from.thief && !to.thief,
                _ => false,
            }
    }

    fn read_chaos(&self, source: Source<'_>, chaos: &FileChaos) -> Result<Chaos, FileError> {
        let every = time(source, &chaos.every, "chaos.every")?;
        if every < Duration::from_millis(100) {
            return Err(source.error(&chaos.every, "chaos.every", "write at least 0.1"));
        }
        let [shortest, longest] = *chaos.outage.get_ref();
        if !(0.0..=3600.0).contains(&shortest) || !(shortest..=3600.0).contains(&longest) {
            let message = "write the shortest and the longest in seconds, up to 3600";
            return Err(source.error(&chaos.outage, "chaos.outage", message));
        }
        let outage = (seconds(shortest), seconds(longest));
        let actions = chaos.actions.get_ref().clone();
        if actions.is_empty() || actions.iter().any(|action| matches!(action, Action::Restart | Action::Heal))
        {
            let message = "name crash, partition, leave, move or takeover: what ends them comes by itself";
            return Err(source.error(&chaos.actions, "chaos.actions", message));
        }
        let nodes = chaos.nodes.get_ref().iter().map(|name| self.node(source, name, "chaos.nodes"));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(source.error(&chaos.nodes, "chaos.nodes", "name at least one node"));
        }
        Ok(Chaos { every, outage, actions, nodes })
    }

    fn add_flow(&mut self, source: Source<'_>, flow: &FileFlow) -> Result<(), FileError> {
        let from = self.party(source, &flow.from, "flow.from")?;
        let every = time(source, &flow.every, "flow.every")?;
        if every < Duration::from_millis(1) {
            return Err(source.error(&flow.every, "flow.every", "write at least a millisecond, 0.001"));
        }
        if matches!(from, Party::Node(node) if self.is_router(node)) {
            return Err(source.error(&flow.from, "flow.from", "a router has no programs"));
        }
        if flow.service == Service::Stream && !self.has_stack(from) {
            return Err(source.error(&flow.from, "flow.from", "only a sharing host has a stack part"));
        }
        let to = match (&flow.to, flow.service) {
            (None, Service::Nobody) if self.shared.is_empty() => {
                return Err(source.error(&flow.from, "flow.service", "needs a [[shared]] table"));
            }
            (None, Service::Nobody) => None,
            (None, _) => return Err(source.error(&flow.from, "flow.to", "is missing")),
            (Some(to), Service::Nobody) => {
                return Err(source.error(to, "flow.to", "leave it out where nobody is to receive"));
            }
            (Some(to), service) => {
                let party = self.party(source, to, "flow.to")?;
                let router = matches!(party, Party::Node(node) if self.is_router(node));
                match service {
                    Service::Stack | Service::Stream if !self.has_stack(party) => {
                        return Err(source.error(to, "flow.to", "only a sharing host has a stack part"));
                    }
                    Service::Program if router => {
                        return Err(source.error(to, "flow.to", "a router has no programs"));
                    }
                    _ if party == from => return Err(source.error(to, "flow.to", "is the sender")),
                    _ => Some(party),
                }
            }
        };
        self.flows.push(Flow { from, to, service: flow.service, every });
        Ok(())
    }

    fn is_router(&self, node: NodeId) -> bool {
        matches!(self.nodes[node.0].kind, NodeKind::Router(_))
    }

    fn has_stack(&self, party: Party) -> bool {
        matches!(party, Party::Set(set) if !self.sets[set.0].ports.is_full())
    }

    /// Whose programs a name means: those of a host go with its set.
    fn party(
        &self,
        source: Source<'_>,
        name: &Spanned<String>,
        field: &'static str,
    ) -> Result<Party, FileError> {
        let node = self.node(source, name, field)?;
        match self.host(node) {
            None => Ok(Party::Node(node)),
            // The set is another host's, and its programs stay where they are.
            Some(host) if host.thief => Ok(Party::Node(node)),
            Some(host) => match host.set {
                Some(set) => Ok(Party::Set(set)),
                None => Err(source.error(name, field, "has no set of its own at the start")),
            },
        }
    }

    fn node(
        &self,
        source: Source<'_>,
        name: &Spanned<String>,
        field: &'static str,
    ) -> Result<NodeId, FileError> {
        let names = self.names();
        let index = names.iter().position(|other| other == name.get_ref());
        index.map(NodeId).ok_or_else(|| {
            source.error(name, field, format!("no node `{}`; there are {}", name.get_ref(), names.join(", ")))
        })
    }

    fn segment(
        &self,
        source: Source<'_>,
        name: &Spanned<String>,
        field: &'static str,
    ) -> Result<SegmentId, FileError> {
        let index = self.segments.iter().position(|segment| segment.name == *name.get_ref());
        index.map(SegmentId).ok_or_else(|| {
            let names: Vec<_> = self.segments.iter().map(|segment| segment.name.as_str()).collect();
            source.error(
                name,
                field,
                format!("no segment `{}`; there are {}", name.get_ref(), names.join(", ")),
            )
        })
    }
}

/// TEST-NET-2 with the hosts, and TEST-NET-3.
fn default_segments(wiring: Wiring, faults: Faults) -> Vec<SegmentSpec> {
    [("lan", nodes::LAN, Role::Lan, wiring), ("outside", nodes::OUTSIDE, Role::Outside, Wiring::Switch)]
        .map(|(name, prefix, role, wiring)| SegmentSpec {
            name: name.to_owned(),
            prefix,
            role,
            wiring,
            faults,
        })
        .into()
}

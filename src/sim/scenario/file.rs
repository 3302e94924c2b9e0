//! A scenario as a TOML file, and what makes it a sound one.

use core::net::Ipv4Addr;

use serde::Deserialize;
use smoltcp::time::Duration;
use toml::Spanned;

use super::{
    Action, Fault, Faults, Flow, HostSpec, LegacySpec, NodeId, Scenario, ScenarioError, Service, Wiring,
};
use crate::ports::{PortSet, Psid, Scheme};
use crate::sim::station::{GATEWAY, INET, LAN};

/// The longest time that a scenario can name, in seconds: a year.
const MAX_SECONDS: f64 = 31_536_000.0;
/// The largest number of hosts of a kind: the last byte of a link-layer address tells them apart.
const MAX_NODES: usize = 200;

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
    shared: Vec<FileShared>,
    #[serde(default)]
    host: Vec<FileHost>,
    #[serde(default)]
    legacy: Vec<FileLegacy>,
    #[serde(default)]
    event: Vec<FileEvent>,
    #[serde(default)]
    flow: Vec<FileFlow>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFaults {
    loss: Option<Spanned<f64>>,
    duplicate: Option<Spanned<f64>>,
    reorder: Option<Spanned<f64>>,
    delay_ms: Option<Spanned<[f64; 2]>>,
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
    #[serde(default)]
    thief: bool,
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

/// The text, for the line of a value.
#[derive(Clone, Copy)]
struct Source<'a>(&'a str);

impl Source<'_> {
    fn error<T>(self, value: &Spanned<T>, field: &'static str, message: impl Into<String>) -> ScenarioError {
        let before = self.0.get(..value.span().start).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        ScenarioError::Value { line, field, message: message.into() }
    }

    fn time(self, value: &Spanned<f64>, field: &'static str) -> Result<Duration, ScenarioError> {
        let seconds = *value.get_ref();
        if !(0.0..=MAX_SECONDS).contains(&seconds) {
            return Err(self.error(value, field, "write seconds, from 0 to a year"));
        }
        Ok(Duration::from_micros((seconds * 1e6).round() as u64))
    }

    fn probability(self, value: Option<&Spanned<f64>>, field: &'static str) -> Result<f64, ScenarioError> {
        let Some(value) = value else { return Ok(0.0) };
        if !(0.0..=1.0).contains(value.get_ref()) {
            return Err(self.error(value, field, "write a probability, from 0 to 1"));
        }
        Ok(*value.get_ref())
    }
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// See [`ScenarioError`].
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let file: File = toml::from_str(text).map_err(|error| ScenarioError::Toml(Box::new(error)))?;
        let source = Source(text);
        let mut scenario = Self {
            about: file.about,
            duration: source.time(&file.duration, "duration")?,
            settle: source.time(&file.settle, "settle")?,
            wiring: file.wiring,
            faults: faults(source, &file.faults)?,
            shared: Vec::new(),
            hosts: Vec::new(),
            legacy: Vec::new(),
            events: Vec::new(),
            flows: Vec::new(),
        };
        for shared in &file.shared {
            scenario.add_shared(source, shared)?;
        }
        for host in &file.host {
            scenario.add_host(source, host)?;
        }
        for legacy in &file.legacy {
            scenario.add_legacy(source, legacy)?;
        }
        for event in &file.event {
            let (at, node) =
                (source.time(&event.at, "event.at")?, scenario.node(source, &event.node, "event.node")?);
            if at >= scenario.duration {
                return Err(source.error(&event.at, "event.at", "is not before the end of `duration`"));
            }
            scenario.events.push(Fault { at, action: event.action, node });
        }
        for flow in &file.flow {
            scenario.add_flow(source, flow)?;
        }
        Ok(scenario)
    }

    fn add_shared(&mut self, source: Source<'_>, shared: &FileShared) -> Result<(), ScenarioError> {
        let address = self.lan_address(source, &shared.address, "shared.address")?;
        let [offset, length] = *shared.scheme.get_ref();
        let scheme = Scheme::new(offset, length)
            .map_err(|error| source.error(&shared.scheme, "shared.scheme", error.to_string()))?;
        self.shared.push((address, scheme));
        Ok(())
    }

    fn add_host(&mut self, source: Source<'_>, host: &FileHost) -> Result<(), ScenarioError> {
        let name = self.new_name(source, &host.name, "host.name")?;
        let (address, set) = match (&host.address, &host.psid, self.shared.first()) {
            (Some(address), None, _) => (self.lan_address(source, address, "host.address")?, PortSet::FULL),
            (address, Some(psid), Some((first, _))) => {
                let address = address.as_ref().map_or(*first, |address| *address.get_ref());
                let known = self.shared.iter().find(|(shared, _)| *shared == address);
                let (_, scheme) = known.ok_or_else(|| {
                    source.error(psid, "host.psid", format!("{address} is no address of a [[shared]] table"))
                })?;
                let psid = Psid::new(*scheme, *psid.get_ref())
                    .map_err(|error| source.error(psid, "host.psid", error.to_string()))?;
                (address, PortSet::Psid(psid))
            }
            (_, Some(psid), None) => {
                return Err(source.error(psid, "host.psid", "needs an address in a [[shared]] table"));
            }
            (None, None, _) => {
                return Err(source.error(&host.name, "host.name", "give the host a `psid` or an `address`"));
            }
        };
        let taken =
            self.hosts.iter().find(|other| !other.thief && other.address == address && other.set == set);
        match (taken, host.thief) {
            (Some(other), false) => {
                return Err(source.error(
                    &host.name,
                    "host.name",
                    format!("its set is that of {}", other.name),
                ));
            }
            (None, true) => {
                return Err(source.error(&host.name, "host.thief", "no host above has this set"));
            }
            _ => {}
        }
        self.hosts.push(HostSpec { name, address, set, thief: host.thief });
        Ok(())
    }

    fn add_legacy(&mut self, source: Source<'_>, legacy: &FileLegacy) -> Result<(), ScenarioError> {
        let name = self.new_name(source, &legacy.name, "legacy.name")?;
        let address = self.lan_address(source, &legacy.address, "legacy.address")?;
        self.legacy.push(LegacySpec { name, address });
        Ok(())
    }

    fn add_flow(&mut self, source: Source<'_>, flow: &FileFlow) -> Result<(), ScenarioError> {
        let from = self.node(source, &flow.from, "flow.from")?;
        if from == NodeId(0) {
            return Err(source.error(&flow.from, "flow.from", "the router has no programs"));
        }
        let every = source.time(&flow.every, "flow.every")?;
        if every < Duration::from_millis(1) {
            return Err(source.error(&flow.every, "flow.every", "write at least a millisecond, 0.001"));
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
                let node = self.node(source, to, "flow.to")?;
                let shared = self.host(node).is_some_and(|host| !host.set.is_full());
                match service {
                    Service::Stack if !shared => {
                        return Err(source.error(to, "flow.to", "only a sharing host has a stack part"));
                    }
                    Service::Program if node == NodeId(0) => {
                        return Err(source.error(to, "flow.to", "the router has no programs"));
                    }
                    _ if node == from => return Err(source.error(to, "flow.to", "is the sender")),
                    _ => Some(node),
                }
            }
        };
        self.flows.push(Flow { from, to, service: flow.service, every });
        Ok(())
    }

    fn node(
        &self,
        source: Source<'_>,
        name: &Spanned<String>,
        field: &'static str,
    ) -> Result<NodeId, ScenarioError> {
        let names = self.names();
        let index = names.iter().position(|other| other == name.get_ref());
        index.map(NodeId).ok_or_else(|| {
            source.error(name, field, format!("no node `{}`; there are {}", name.get_ref(), names.join(", ")))
        })
    }

    fn new_name(
        &self,
        source: Source<'_>,
        name: &Spanned<String>,
        field: &'static str,
    ) -> Result<String, ScenarioError> {
        if self.names().contains(&name.get_ref().as_str()) {
            return Err(source.error(name, field, "another node has this name"));
        }
        if self.hosts.len().max(self.legacy.len()) >= MAX_NODES {
            return Err(source.error(name, field, format!("more than {MAX_NODES} hosts of a kind")));
        }
        Ok(name.get_ref().clone())
    }

    fn lan_address(
        &self,
        source: Source<'_>,
        address: &Spanned<Ipv4Addr>,
        field: &'static str,
    ) -> Result<Ipv4Addr, ScenarioError> {
        let ip = *address.get_ref();
        let used = self.shared.iter().map(|(ip, _)| *ip);
        let used = used.chain(self.hosts.iter().map(|host| host.address));
        let used = used.chain(self.legacy.iter().map(|legacy| legacy.address));
        let group = ip == LAN.address() || Some(ip) == LAN.broadcast();
        if !LAN.contains_addr(&ip) || group || ip == GATEWAY || ip == INET {
            return Err(source.error(
                address,
                field,
                format!("{ip} is no address for a host on the LAN, {LAN}"),
            ));
        }
        if used.into_iter().any(|other| other == ip) {
            return Err(source.error(address, field, format!("{ip} is in use")));
        }
        Ok(ip)
    }
}

fn faults(source: Source<'_>, file: &FileFaults) -> Result<Faults, ScenarioError> {
    let mut faults = Faults {
        loss: source.probability(file.loss.as_ref(), "faults.loss")?,
        duplicate: source.probability(file.duplicate.as_ref(), "faults.duplicate")?,
        reorder: source.probability(file.reorder.as_ref(), "faults.reorder")?,
        ..Faults::default()
    };
    if let Some(delay) = &file.delay_ms {
        let [shortest, longest] = *delay.get_ref();
        if !(0.0..=10_000.0).contains(&shortest) || !(shortest..=10_000.0).contains(&longest) {
            let message = "write the shortest and the longest in milliseconds, up to 10000";
            return Err(source.error(delay, "faults.delay_ms", message));
        }
        let micros = |millis: f64| Duration::from_micros((millis * 1e3).round() as u64);
        faults.delay = (micros(shortest), micros(longest));
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"about = "a test"
duration = 10
settle = 70.5
wiring = "hub"
faults = { loss = 0.1, delay_ms = [1, 2.5] }
[[shared]]
address = "198.51.100.2"
scheme = [0, 4]
[[host]]
name = "h1"
psid = 1
[[legacy]]
name = "old"
address = "198.51.100.10"
[[event]]
at = 3
action = "crash"
node = "h1"
[[flow]]
from = "inet"
to = "h1"
every = 0.5
"#;

    #[test]
    fn a_scenario_is_read() {
        let scenario = Scenario::parse(GOOD).unwrap();
        assert_eq!(scenario.names(), ["router", "h1", "old", "inet"]);
        assert_eq!(scenario.settle, Duration::from_millis(70_500));
        assert_eq!(scenario.faults.delay, (Duration::from_millis(1), Duration::from_micros(2500)));
        let crash = Fault { at: Duration::from_secs(3), action: Action::Crash, node: NodeId(1) };
        assert_eq!(scenario.events, [crash]);
        assert_eq!((scenario.flows[0].from, scenario.flows[0].to), (NodeId(3), Some(NodeId(1))));
    }

    #[test]
    fn an_error_names_line_and_field() {
        let error = |from: &str, to: &str| {
            assert_eq!(GOOD.matches(from).count(), 1, "{from}");
            Scenario::parse(&GOOD.replace(from, to)).unwrap_err().to_string()
        };
        for (from, to, line, field) in [
            ("loss = 0.1", "loss = 1.1", "line 5", "faults.loss"),
            ("[0, 4]", "[16, 4]", "line 8", "shared.scheme"),
            ("psid = 1", "psid = 16", "line 11", "host.psid"),
            ("100.10", "101.10", "line 14", "legacy.address"),
            ("100.10", "100.2", "line 14", "legacy.address"),
            ("at = 3", "at = 10", "line 16", "event.at"),
            ("node = \"h1\"", "node = \"h9\"", "line 18", "event.node"),
            ("to = \"h1\"", "to = \"inet\"", "line 21", "flow.to"),
            ("every = 0.5", "every = 0", "line 22", "flow.every"),
            ("every = 0.5", "evry = 0.5", "line 22", "evry"),
            ("every = 0.5", "every = \"0.5\"", "line 22", "every"),
            ("\"crash\"", "\"crush\"", "line 17", "crush"),
        ] {
            let message = error(from, to);
            assert!(message.contains(line) && message.contains(field), "{to}: {message}");
        }
    }
}

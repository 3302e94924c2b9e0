//! `pearp ports`: which ports of a host's set are in use, and by whom.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::output::{print_json, print_table};
use super::{Node, client};
use crate::ports::{PortBitmap, PortRange};
use crate::runtime::{Owner, Request, Socket, SocketKind, SocketState, read_sockets};

const EXAMPLES: &str = "Examples:
  ip netns exec lab-h1 pearp ports
  ip netns exec lab-h1 pearp ports --watch
  ip netns exec lab-h1 pearp ports --json | jq '.sockets[] | select(.in_set | not)'

A port counts once, whatever protocols and connections use it: the kernel lets connections to different peers share
one. Run it as root: the processes of other users are not shown otherwise.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PortsArgs {
    #[command(flatten)]
    node: Node,
    /// The address to tell of, where the host has several [default: the first one]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<Ipv4Addr>,
    /// Print JSON: {address, ports, portless, listening, connected, time_wait, free, outside, mapped, processes,
    /// sockets}
    #[arg(long)]
    json: bool,
    /// Print again every second, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

/// What a host says of its set.
struct Set {
    address: Ipv4Addr,
    program: PortBitmap,
    /// What has no port and is the host's.
    portless: Option<String>,
    /// Ports outside the set for which the host has chosen others.
    mapped: Value,
}

/// The ports of one process.
#[derive(Default)]
struct Used {
    ports: BTreeSet<u16>,
    sockets: usize,
}

pub(super) fn run(args: &PortsArgs) -> anyhow::Result<()> {
    loop {
        let usage = usage(ask(&args.node, args.address)?)?;
        let mut out = io::stdout().lock();
        if args.json {
            print_json(&mut out, &serde_json::to_value(&usage)?)?;
        } else {
            if args.watch {
                // Home, and everything below is gone.
                write!(out, "\x1b[H\x1b[J")?;
            }
            print(&mut out, usage)?;
        }
        out.flush()?;
        if !args.watch {
            return Ok(());
        }
        drop(out);
        thread::sleep(Duration::from_secs(1));
    }
}

fn ask(node: &Node, chosen: Option<Ipv4Addr>) -> anyhow::Result<Set> {
    let (status, _) = client::ask(node, &Request::Status)?;
    let address_of = |one: &Value| one["address"].as_str()?.parse::<Ipv4Addr>().ok();
    let addresses = status["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_chosen = |one: &&Value| chosen.is_none() || address_of(one) == chosen;
    let one = addresses.iter().find(is_chosen);
    if let (Some(chosen), None, false) = (chosen, one, addresses.is_empty()) {
        let addresses: Vec<_> = addresses.iter().filter_map(address_of).map(|ip| ip.to_string()).collect();
        bail!("{chosen} is no address of this host: it has {}", addresses.join(", "));
    }
    let ranges: Option<Vec<(u16, u16)>> =
        one.and_then(|one| serde_json::from_value(one["program_ports"].clone()).ok());
    match (ranges, one.and_then(address_of)) {
        (Some(ranges), Some(address)) => {
            let ranges = ranges.into_iter().filter_map(|(first, last)| PortRange::new(first, last));
            let program = ranges.flat_map(PortRange::ports).collect();
            let portless = one.and_then(|one| one["portless"].as_str()).map(str::to_owned);
            Ok(Set { address, program, portless, mapped: status["mapped"].clone() })
        }
        _ if status["role"] == "host" => bail!("this host has no port set yet: see `pearp status`"),
        _ => bail!("only a host has programs with ports: run this in the namespace of one"),
    }
}

/// Whether a socket can send from the shared address.
fn counts(socket: &Socket, address: Ipv4Addr) -> bool {
    let local = socket.local.0;
    let ours = local == IpAddr::V4(address) || local.is_unspecified();
    ours && socket.kind != SocketKind::Raw && socket.kind != SocketKind::Icmp
}

/// What is in use, as it is printed.
#[derive(Serialize)]
struct Usage {
    address: Ipv4Addr,
    /// Of the program part.
    ports: usize,
    /// What has no port and is the host's: IP protocols by number, and `residual`.
    portless: Option<String>,
    listening: usize,
    connected: usize,
    time_wait: usize,
    free: usize,
    /// Ports that are not of the program part.
    outside: usize,
    /// As in a status.
    mapped: Value,
    processes: Vec<ProcessLine>,
    sockets: Vec<SocketLine>,
}

#[derive(Serialize)]
struct ProcessLine {
    pid: u32,
    name: String,
    ports: usize,
    sockets: usize,
}

#[derive(Serialize)]
struct SocketLine {
    protocol: &'static str,
    port: u16,
    state: &'static str,
    remote: Option<String>,
    in_set: bool,
    pid: Option<u32>,
    name: Option<String>,
}

fn usage(set: Set) -> anyhow::Result<Usage> {
    let mut sockets = read_sockets(Path::new("/proc")).context("cannot read the sockets from /proc")?;
    sockets.retain(|socket| counts(socket, set.address));
    sockets.sort_by_key(|socket| (socket.local.1, socket.kind, socket.state, socket.remote));
    let mut by_state: BTreeMap<SocketState, BTreeSet<u16>> = BTreeMap::new();
    let mut by_process: BTreeMap<Owner, Used> = BTreeMap::new();
    let (mut used, mut outside) = (BTreeSet::new(), BTreeSet::new());
    for socket in &sockets {
        let port = socket.local.1;
        if !set.program.contains(port) {
            outside.insert(port);
            continue;
        }
        used.insert(port);
        by_state.entry(socket.state).or_default().insert(port);
        if let Some(owner) = &socket.owner {
            let used = by_process.entry(owner.clone()).or_default();
            used.ports.insert(port);
            used.sockets += 1;
        }
    }
    let count = |state| by_state.get(&state).map_or(0, BTreeSet::len);
    let total = set.program.count() as usize;
    let process = |(Owner { pid, name }, used): (Owner, Used)| ProcessLine {
        pid,
        name,
        ports: used.ports.len(),
        sockets: used.sockets,
    };
    let socket = |socket: Socket| {
        let ((ip, port), (pid, name)) =
            (socket.remote, socket.owner.map(|owner| (owner.pid, owner.name)).unzip());
        SocketLine {
            protocol: socket.kind.name(),
            port: socket.local.1,
            state: socket.state.name(),
            remote: (port != 0).then(|| format!("{ip}:{port}")),
            in_set: set.program.contains(socket.local.1),
            pid,
            name,
        }
    };
    Ok(Usage {
        address: set.address,
        ports: total,
        portless: set.portless,
        listening: count(SocketState::Listening),
        connected: count(SocketState::Connected),
        time_wait: count(SocketState::TimeWait),
        free: total - used.len(),
        outside: outside.len(),
        mapped: set.mapped,
        processes: by_process.into_iter().map(process).collect(),
        sockets: sockets.into_iter().map(socket).collect(),
    })
}

fn print(out: &mut impl Write, usage: Usage) -> io::Result<()> {
    let Usage { address, ports, listening, connected, time_wait, free, outside, .. } = usage;
    let used = ports - free;
    let percent = (used * 100).checked_div(ports).unwrap_or(0);
    writeln!(
        out,
        "{address}: {used} of {ports} program ports in use ({percent} %): {listening} listening, {connected} connected, \
         {time_wait} in TIME-WAIT; {free} free",
    )?;
    if let Some(portless) = usage.portless {
        writeln!(out, "IP protocols without ports: {portless}")?;
    }
    if outside > 0 {
        writeln!(out, "{outside} more are outside the set")?;
    }
    let mapped = usage.mapped.as_array().map(Vec::as_slice).unwrap_or_default();
    if !mapped.is_empty() {
        writeln!(out, "\nPorts outside the set for which the host has chosen others:")?;
        let text = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let row = |line: &Value| {
            ["port", "protocol", "mapped", "to", "packets", "pid", "name"].map(|name| text(&line[name]))
        };
        let head = ["Port", "Proto", "Mapped to", "Peer", "Packets", "PID", "Process"];
        print_table(out, head, mapped.iter().map(row))?;
    }
    if !usage.processes.is_empty() {
        writeln!(out)?;
        let row = |line: ProcessLine| {
            [line.pid.to_string(), line.name, line.ports.to_string(), line.sockets.to_string()]
        };
        print_table(out, ["PID", "Process", "Ports", "Sockets"], usage.processes.into_iter().map(row))?;
    }
    if !usage.sockets.is_empty() {
        writeln!(out)?;
        let none = || "-".to_owned();
        let row = |line: SocketLine| {
            let port = format!("{}{}", line.port, if line.in_set { "" } else { " !" });
            let pid = line.pid.map_or_else(none, |pid| pid.to_string());
            let (remote, name) = (line.remote.unwrap_or_else(none), line.name.unwrap_or_else(none));
            [port, line.protocol.to_owned(), line.state.to_owned(), remote, pid, name]
        };
        let head = ["Port", "Proto", "State", "Peer", "PID", "Process"];
        print_table(out, head, usage.sockets.into_iter().map(row))?;
    }
    Ok(())
}

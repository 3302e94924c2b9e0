//! `pearp who`: who had a port at a time.

use std::io::{self, Write};
use std::net::SocketAddrV4;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::output::{leased_ranges, print_json, shown_ports};
use super::{Node, client};
use crate::ports::Psid;
use crate::runtime::{Holding, Request, read_holdings};

const EXAMPLES: &str = "Examples:
  ip netns exec lab-router pearp who 198.51.100.2:5001
  ip netns exec lab-router pearp who 198.51.100.2:5001 --at 2026-11-23T10:15:00Z
  pearp who 198.51.100.2:5001 --lease-file leases --json

The answer comes from the lease file of the router or dhcpd, in which one line for each time that a client had a set stays for a year
after its end: no log of connections is needed. The clocks of who asks and of the server should agree.
Exit status: 0 somebody had it, 1 nobody had it, or the file cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct WhoArgs {
    #[command(flatten)]
    node: Node,
    /// The address and port
    #[arg(value_name = "ADDRESS:PORT")]
    endpoint: SocketAddrV4,
    /// When, as in RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// The lease file, where no server runs [default: that of the router or dhcpd in this network namespace]
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    lease_file: Option<PathBuf>,
    /// Print JSON: {address, ports, psid, client, link_address, host_name, from, until}
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &WhoArgs) -> anyhow::Result<()> {
    let at = args.at.unwrap_or_else(Timestamp::now);
    let path = match &args.lease_file {
        Some(path) => path.clone(),
        None => ask(&args.node)?,
    };
    let (address, port) = (*args.endpoint.ip(), args.endpoint.port());
    let micros = at.as_microsecond();
    let had = |holding: &Holding| {
        holding.address == address
            && holding.set.contains(port)
            && (holding.from..holding.until).contains(&micros)
    };
    // Of two that overlap, which can only be a client that came back, the later one.
    let holding = read_holdings(&path)?.into_iter().rev().find(had);
    let Some(holding) = holding else { bail!("nobody had a lease of {} at {at}", args.endpoint) };
    let mut out = io::stdout().lock();
    if args.json {
        print_json(&mut out, &value(&holding)?)?;
    } else {
        print(&mut out, &holding, at)?;
    }
    Ok(())
}

/// The lease file of the node on this socket.
fn ask(node: &Node) -> anyhow::Result<PathBuf> {
    let (status, _) = client::ask(node, &Request::Status)?;
    match status["lease_file"].as_str() {
        Some(path) => Ok(path.into()),
        None => bail!("this node gives no leases: ask a router with --dhcp or a dhcpd, or name a lease file"),
    }
}

fn time(micros: i64) -> anyhow::Result<Timestamp> {
    // The year 9999 is the last one that can be shown.
    let micros = micros.min(Timestamp::MAX.as_microsecond());
    Timestamp::from_microsecond(micros).context("a time in the lease file is none")
}

/// To the second: up for a beginning would hide who had it, and down for an end is who had it for sure.
fn shown_time(micros: i64) -> anyhow::Result<Timestamp> {
    Ok(Timestamp::from_second(time(micros)?.as_second())?)
}

fn value(holding: &Holding) -> anyhow::Result<Value> {
    let (ports, truncated) = leased_ranges(holding.set);
    let mut value = json!({
        "address": holding.address,
        "ports": ports,
        "psid": (holding.set != Psid::FULL).then(|| holding.set.to_string()),
        "client": holding.client,
        "link_address": holding.link_address,
        "host_name": holding.host_name,
        "from": time(holding.from)?.to_string(),
        "until": time(holding.until)?.to_string(),
    });
    if truncated {
        value["ports_truncated"] = json!(true);
    }
    Ok(value)
}

fn print(out: &mut impl Write, holding: &Holding, at: Timestamp) -> anyhow::Result<()> {
    let (ports, truncated) = leased_ranges(holding.set);
    let psid = holding.set.to_string();
    writeln!(out, "link address  {}", holding.link_address)?;
    writeln!(out, "name          {}", holding.host_name.as_deref().unwrap_or("-"))?;
    writeln!(out, "client        {}", holding.client)?;
    writeln!(out, "address       {}", holding.address)?;
    writeln!(out, "ports         {}", shown_ports(&ports, Some(&psid), truncated))?;
    writeln!(out, "from          {}", shown_time(holding.from)?)?;
    let lasts = if holding.until > Timestamp::now().as_microsecond() { ", unless it is renewed" } else { "" };
    writeln!(out, "until         {}{lasts}", shown_time(holding.until)?)?;
    writeln!(out, "asked for     {at}")?;
    Ok(())
}

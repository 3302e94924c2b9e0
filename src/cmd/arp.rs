//! `pearp arp`: the ARP table, like `arp`, with ports.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::serve::shown;
use super::{Node, client};
use crate::neighbor::Entry;
use crate::runtime::Request;
use crate::wire::pe_arp::Claim;

/// Ranges listed of one claim. A PSID can stand for 32,767; `psid` names it whole.
const MAX_RANGES: usize = 1024;

const EXAMPLES: &str = "Examples:
  ip netns exec lab-router pearp arp -n
  ip netns exec lab-router pearp arp --json | jq '.[] | select(.state == \"reachable\")'

Without -n, addresses that /etc/hosts names are shown by name.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ArpArgs {
    #[command(flatten)]
    node: Node,
    /// Numbers only: do not look addresses up in /etc/hosts
    #[arg(short)]
    numeric: bool,
    /// Print JSON: [{address, ports, protocol, link_address, link, state, source, age_s}]
    #[arg(long)]
    json: bool,
}

/// One line of the table.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    address: Ipv4Addr,
    /// Empty where the owner holds every port, or where it holds what has no port, of `protocol`.
    ports: Vec<(u16, u16)>,
    /// More ranges than are listed.
    #[serde(default, skip_serializing_if = "is_false")]
    ports_truncated: bool,
    /// `a,k,psid` where the claim is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    psid: Option<String>,
    protocol: String,
    link_address: Option<String>,
    link: String,
    state: String,
    source: String,
    age_s: Option<f64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The table as JSON.
pub(super) fn table(entries: Vec<(String, Entry)>) -> serde_json::Value {
    let lines: Vec<_> = entries.into_iter().map(|(link, entry)| line(link, &entry)).collect();
    serde_json::to_value(lines).unwrap_or_default()
}

fn line(link: String, entry: &Entry) -> Line {
    let mut protocol = match entry.protocol {
        0 => "any".to_owned(),
        number => protocol_name(number),
    };
    let mut psid = None;
    let mut ports_truncated = false;
    let ports = match entry.claim {
        Claim::Range(range) => vec![(range.first(), range.last())],
        Claim::Psid(claimed) => {
            psid = Some(claimed.to_string());
            ports_truncated = claimed.ranges().nth(MAX_RANGES).is_some();
            claimed.ranges().take(MAX_RANGES).map(|range| (range.first(), range.last())).collect()
        }
        Claim::Full => Vec::new(),
        Claim::Portless(number) => {
            protocol = protocol_name(number);
            Vec::new()
        }
    };
    Line {
        address: entry.ip,
        ports,
        ports_truncated,
        psid,
        protocol,
        link_address: entry.hardware.map(shown),
        link,
        state: entry.state.to_owned(),
        source: entry.source.to_owned(),
        age_s: entry.age.map(|age| age.total_millis() as f64 / 1000.0),
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        number => number.to_string(),
    }
}

pub(super) fn run(args: &ArpArgs) -> anyhow::Result<()> {
    let (value, _) = client::ask(&args.node, &Request::Arp)?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &value)?;
        writeln!(out)?;
        return Ok(());
    }
    let lines: Vec<Line> = serde_json::from_value(value).context("the node is of another version")?;
    let names = if args.numeric { HashMap::new() } else { hosts() };
    let head = ["Address", "Ports", "Proto", "HWaddress", "State", "Source", "Age", "Link"];
    let rows: Vec<[String; 8]> = lines
        .iter()
        .map(|line| {
            [
                names.get(&line.address).cloned().unwrap_or_else(|| line.address.to_string()),
                shown_ports(line),
                line.protocol.clone(),
                line.link_address.clone().unwrap_or_else(|| "(incomplete)".to_owned()),
                line.state.clone(),
                line.source.clone(),
                line.age_s.map_or_else(|| "-".to_owned(), |age| format!("{age:.0}s")),
                line.link.clone(),
            ]
        })
        .collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|at| rows.iter().map(|row| row[at].len()).chain([head[at].len()]).max().unwrap_or(0))
        .collect();
    let mut write = |row: &[&str]| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())
    };
    write(&head)?;
    for row in &rows {
        write(&row.each_ref().map(String::as_str))?;
    }
    Ok(())
}

fn shown_ports(line: &Line) -> String {
    match &line.ports[..] {
        [] => "all".to_owned(),
        [(first, last)] if first == last => first.to_string(),
        [(first, last)] => format!("{first}-{last}"),
        [(first, last), ..] => {
            let psid = line.psid.as_deref().unwrap_or("?");
            let more = if line.ports_truncated { "many" } else { &(line.ports.len() - 1).to_string() };
            format!("psid {psid}: {first}-{last} and {more} more")
        }
    }
}

/// Names from /etc/hosts. The resolver would block for seconds in a network without one.
fn hosts() -> HashMap<Ipv4Addr, String> {
    let text = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let entry = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.to_owned()))
    };
    text.lines().filter_map(entry).collect()
}

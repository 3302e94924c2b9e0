//! `pearp explain`: what a node would do with a packet, and why.

mod packet;

use std::io::{self, Write};

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use smoltcp::wire::EthernetAddress;

use self::packet::Packet;
use super::arp::line;
use super::output::print_json;
use super::serve::{parse_hardware, shown};
use super::{Node, client};
use crate::node::{Explanation, Fate};
use crate::runtime::{Asked, Request};

const EXAMPLES: &str = "Examples:
  ip netns exec lab-router pearp explain 'tcp 203.0.113.80:443 > 198.51.100.2:5001'
  ip netns exec lab-router pearp explain --from 02:00:00:00:02:02 'udp 198.51.100.2:5001 > 203.0.113.80:53'
  ip netns exec lab-h1 pearp explain 'udp 198.51.100.2:60000 > 203.0.113.80:53'
  ip netns exec lab-router pearp explain 'icmp 3/4 203.0.113.9 > 198.51.100.2 about tcp 198.51.100.2:5001 > 203.0.113.80:443'

PACKET is PROTOCOL SOURCE > DESTINATION, in quotes. PROTOCOL is tcp, udp, udplite, dccp or sctp, with ADDRESS:PORT twice;
ping with the identifier at its source, or pong at its destination; esp with the SPI, or gre with the key or without, at the
destination; icmp TYPE/CODE; or a number. Behind it may stand `ttl N`, `len N` (bytes), `df`, and for an ICMP error `about
PACKET`. Nothing is sent and nothing changes. At a host, a packet from an address of the host is one of its programs'.
Exit status: 0 the packet goes somewhere, or waits; 1 it is dropped, or nothing could be found out.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    node: Node,
    /// The packet
    #[arg(value_name = "PACKET")]
    packet: Packet,
    /// Who sends it, so that a router looks whether it may [default: whoever may]
    #[arg(long, value_name = "MAC", value_parser = parse_hardware)]
    from: Option<EthernetAddress>,
    /// By which link it comes, as `pearp status` names them [default: the one that its source belongs to]
    #[arg(long, value_name = "LINK")]
    link: Option<String>,
    /// Print JSON: {verdict, reason, link, link_address, steps: [{rule, text}], binding, leases}
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let bytes = args.packet.bytes();
    let request = Request::Explain(Asked {
        packet: bytes[..bytes.len().min(MAX_SENT)].to_vec(),
        len: bytes.len(),
        from: args.from.map(|from| from.0),
        link: args.link.clone(),
    });
    let (value, _) = client::ask(&args.node, &request)?;
    let mut out = io::stdout().lock();
    if args.json {
        print_json(&mut out, &value)?
    } else {
        print(&mut out, &value)?
    }
    if value["verdict"] == "dropped" {
        out.flush()?;
        bail!("the packet from {} would be dropped: {}", args.packet.source(), text(&value["reason"]));
    }
    Ok(())
}

/// Bytes of a packet that decide; the rest is zero, and is told by its length.
const MAX_SENT: usize = 256;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn print(out: &mut impl Write, value: &Value) -> io::Result<()> {
    let list = |name: &str| value[name].as_array().cloned().unwrap_or_default();
    let steps = list("steps");
    let width = steps.iter().map(|step| text(&step["rule"]).chars().count()).max().unwrap_or(0);
    for step in &steps {
        writeln!(out, "{:width$}  {}", text(&step["rule"]), text(&step["text"]))?;
    }
    for lease in list("leases") {
        writeln!(
            out,
            "{:width$}  {} {} is leased to {}, {} ({}), for {} s more",
            "lease",
            text(&lease["address"]),
            lease["psid"].as_str().unwrap_or("all ports"),
            text(&lease["link_address"]),
            lease["host_name"].as_str().unwrap_or("no name"),
            text(&lease["client"]),
            lease["left_s"]
        )?;
    }
    let end = match (text(&value["verdict"]), value["reason"].as_str(), value["link"].as_str()) {
        (verdict, Some(reason), _) => format!("{verdict}: {reason}"),
        (verdict, None, Some(link)) => match value["link_address"].as_str() {
            Some(address) => format!("{verdict} by {link} to {address}"),
            None => format!("{verdict} by {link}"),
        },
        (verdict, None, None) => verdict.to_owned(),
    };
    writeln!(out, "{:width$}  {end}", "so")
}

/// The packet of a request.
pub(super) fn bytes_of(asked: &Asked) -> Result<Vec<u8>, String> {
    let (mut bytes, len) = (asked.packet.clone(), asked.len);
    if len > usize::from(u16::MAX) || len < bytes.len() {
        return Err(format!("{len} bytes are no such packet"));
    }
    bytes.resize(len, 0);
    Ok(bytes)
}

/// An explanation as JSON; `links` are the names of the node's links.
pub(super) fn value(about: Explanation, links: &[String], leases: Value) -> Value {
    let Explanation { steps, binding, outcome } = about;
    let (verdict, reason, link, address) = match outcome {
        Some(Fate::Forward(link, address)) => ("forwarded", None, links.get(link.0), address),
        Some(Fate::Delivered) => ("delivered", None, None, None),
        Some(Fate::Pending) | None => ("pending", None, None, None),
        Some(Fate::Dropped(reason)) => ("dropped", Some(reason.name()), None, None),
    };
    let binding = binding.map(|entry| line(link.cloned().unwrap_or_default(), &entry));
    json!({
        "verdict": verdict,
        "reason": reason,
        "link": link,
        "link_address": address.map(shown),
        "steps": steps.iter().map(|step| json!({ "rule": step.rule, "text": step.text })).collect::<Vec<_>>(),
        "binding": binding,
        "leases": leases,
    })
}

/// The link of a request by its name, or the one that the node takes.
pub(super) fn link_of(links: &[String], name: Option<&str>, taken: Option<usize>) -> Result<usize, String> {
    match name {
        Some(name) => links
            .iter()
            .position(|link| link == name)
            .ok_or_else(|| format!("this node has no link `{name}`, but {}", links.join(" and "))),
        None => taken.ok_or_else(|| "by which link does it come? Name one with --link".to_owned()),
    }
}

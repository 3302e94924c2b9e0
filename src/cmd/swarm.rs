//! `pearp swarm`.

use std::net::Ipv4Addr;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use super::arp::table;
use super::explain;
use super::host::{phase_name, range_pairs};
use super::router::parse_address;
use super::serve::{Ready, ServeArgs, counters, parse_hardware, shown};
use crate::link::{DeviceName, Offloads};
use crate::neighbor::ClaimPhase;
use crate::node::{Host, LinkId, Node, Swarm, SwarmConfig, SwarmHost};
use crate::ports::{PsidError, Scheme};
use crate::runtime::{Asked, Clock, EventLoop, Service, random_seed};
use crate::wire::{FlowKey, ipv4};

const EXAMPLES: &str = "Example: 4000 hosts that share one address, 16 ports each, on one TAP
  pearp swarm --hosts 4000 --lan lab-lan:swarm --mac 02:00:00:10:00:01 --address 198.51.100.2/24 --psid 0,12 \\
              --gateway 198.51.100.1

Each host has a link-layer address of its own and does PE-ARP for its own ports. Host 1 is called s1. On its lowest
port a host answers UDP datagrams with the same datagram, and HTTP with a page that names it; on the next port it
sends back what it receives over TCP. `pearp status --json` lists all hosts with their ports.
SIGTERM or Ctrl-C gives all sets back (RELEASE) and ends the swarm.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SwarmArgs {
    /// Name in logs and lists
    #[arg(long, default_value = "swarm")]
    name: String,
    /// How many hosts, 1 to 16384
    #[arg(long, value_name = "N")]
    hosts: usize,
    /// The TAP of all of them on the LAN, as [NETNS:]TAP, or fd:N for an open one
    #[arg(long, value_name = "DEVICE")]
    lan: DeviceName,
    /// Link-layer address of the first host; the others have those that follow
    #[arg(long, value_name = "MAC", value_parser = parse_hardware)]
    mac: EthernetAddress,
    /// A shared address with the length of the on-link prefix; may be given several times: when the sets of one are
    /// used up, hosts share the next
    #[arg(long, value_name = "ADDRESS/LENGTH", value_parser = parse_address, required = true)]
    address: Vec<Ipv4Cidr>,
    /// How the ports of an address are divided: offset bits, PSID bits. Each host has one PSID; those with ports below
    /// 1024 are given to nobody
    #[arg(long, value_name = "A,K", value_parser = parse_scheme)]
    psid: Scheme,
    /// Leave the first N sets to other hosts
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: usize,
    /// The router, for what is not on the link
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    #[command(flatten)]
    serve: ServeArgs,
}

fn parse_scheme(text: &str) -> Result<Scheme, String> {
    text.parse().map_err(|error: PsidError| error.to_string())
}

pub(super) fn run(args: SwarmArgs) -> anyhow::Result<()> {
    for address in &args.address {
        if let Some(gateway) = args.gateway
            && (gateway == address.address()
                || (address.prefix_len() < 32 && !address.contains_addr(&gateway)))
        {
            bail!("gateway {gateway} is not another node of {}", address.network());
        }
        if args.address.iter().filter(|other| other.address() == address.address()).count() > 1 {
            bail!("address {} is given twice", address.address());
        }
    }
    let clock = Clock::start();
    let ready = args.serve.ready();
    let lan = args.serve.open_lan(&args.lan, &clock)?;
    let control = args.serve.bind()?;
    let config = SwarmConfig {
        lan: args.lan.to_string(),
        hardware: args.mac,
        addresses: args.address,
        scheme: args.psid,
        skip: args.skip,
        hosts: args.hosts,
        gateway: args.gateway,
        mtu: args.serve.mtu(),
        pro: args.serve.pro,
        seed: random_seed()?,
    };
    let offloads = lan.offloads();
    let swarm = Swarm::new(config, clock.now())?;
    let sandbox = args.serve.sandbox(&control, Vec::new(), None)?;
    let service = SwarmService { swarm, name: args.name, offloads, ready, served_at: None };
    let event_loop = EventLoop::new(service, vec![lan], control, clock, args.serve.io)?;
    sandbox.enter()?;
    event_loop.run()
}

struct SwarmService {
    swarm: Swarm,
    name: String,
    offloads: Offloads,
    ready: Option<Ready>,
    /// When every host had its set, from the start of the process.
    served_at: Option<Instant>,
}

/// One host in a status.
fn listed(one: SwarmHost<'_>) -> Value {
    let ports = one.host.services();
    json!({
        "name": one.name(),
        "address": one.host.address().address(),
        "link_address": shown(one.host.hardware()),
        "ports": range_pairs(one.host.set().ranges()),
        "state": phase_name(one.host.phase()),
        "udp_echo_port": ports.udp_echo,
        "http_port": ports.http,
        "tcp_echo_port": ports.tcp_echo,
    })
}

impl Service for SwarmService {
    fn node(&mut self) -> &mut dyn Node {
        &mut self.swarm
    }

    fn arp(&mut self, now: Instant) -> Value {
        table(self.swarm.neighbors(now))
    }

    fn status(&mut self, _now: Instant) -> Value {
        let config = self.swarm.config();
        let (counters, drops) = counters(self.swarm.counters());
        let lost = self.swarm.hosts().filter(|one| one.host.phase() == ClaimPhase::Lost).count();
        let addresses: Vec<_> = config.addresses.iter().map(|address| address.address()).collect();
        json!({
            "name": self.name,
            "role": "swarm",
            "pid": std::process::id(),
            "state": if self.swarm.is_settled() { "bound" } else { "probing" },
            "hosts_wanted": config.hosts,
            "hosts_lost": lost,
            "ready_ms": self.served_at.map(|at| at.total_millis()),
            "addresses": addresses,
            "psid": config.scheme.to_string(),
            "gateway": config.gateway,
            "links": [json!({ "link": config.lan, "offload": self.offloads.to_string() })],
            "counters": counters,
            "drops": drops,
            "hosts": self.swarm.hosts().map(listed).collect::<Vec<_>>(),
        })
    }

    fn explain(&mut self, asked: &Asked, now: Instant) -> Result<Value, String> {
        let packet = explain::bytes_of(asked)?;
        let view = ipv4::check(&packet).map_err(|error| error.to_string())?;
        let key = FlowKey::of(&view).map_err(|unkeyed| unkeyed.to_string())?;
        let port = key.destination.or(key.source);
        let owner = self.swarm.hosts().map(|one| one.host).find(|host| {
            let address = host.address().address();
            address == view.dst_addr() && port.is_some_and(|port| host.set().contains(port))
        });
        let Some(host) = owner else {
            return Err("no host of the swarm has this address and port".to_owned());
        };
        let links = [self.swarm.config().lan.clone()];
        Ok(explain::value(host.explain(LinkId(0), &packet, now), &links, json!([])))
    }

    fn host(&mut self) -> Option<&mut Host> {
        None
    }

    fn turn(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.served_at.is_none() && self.swarm.is_settled() {
            self.served_at = Some(now);
            let (hosts, millis) = (self.swarm.hosts().len(), now.total_millis());
            tracing::info!(name = %self.name, hosts, millis, "swarm serves");
            if let Some(ready) = self.ready.take() {
                ready.tell(&self.name);
            }
        }
        Ok(())
    }

    fn stop(&mut self, now: Instant) {
        self.swarm.release(now);
        tracing::info!(name = %self.name, "swarm ended");
    }
}

//! `pearp dhcpd`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use super::arp::table;
use super::leases;
use super::leasing::LeaseStore;
use super::router::parse_address;
use super::serve::{ServeArgs, counters, link, parse_hardware};
use crate::dhcp::ServerLink;
use crate::link::{DeviceName, Offloads};
use crate::node::{Dhcpd, DhcpdConfig, Host, Lessor, Node};
use crate::runtime::{Asked, Clock, EventLoop, Service, random_seed};

const EXAMPLES: &str = "Example, with a TAP that is a port of the LAN's bridge:
  pearp dhcpd --lan dhcpd --mac 02:00:00:00:00:05 --address 198.51.100.5/24 --gateway 198.51.100.1 \\
              --dhcp pools.toml --lease-file leases

  [[shared]]                      # in pools.toml: 15 parts of one address
  addresses = \"198.51.100.2\"
  scheme = [0, 4]

  [[whole]]                       # for clients that know nothing of parts
  addresses = \"198.51.100.100-198.51.100.199\"

It leases as `pearp router --dhcp` does, beside a router that stays as it is, and forwards nothing. Hosts believe
it when it says that a port has no owner. There should be no other DHCP server on the LAN.
`pearp status`, `leases`, `who` and `arp` ask it. SIGTERM or Ctrl-C ends it; leases stay in the lease file.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DhcpdArgs {
    /// The TAP on the LAN, as [NETNS:]TAP, or fd:N for one that is open as descriptor N
    #[arg(long, value_name = "DEVICE")]
    lan: DeviceName,
    /// Link-layer address of the server on the LAN
    #[arg(long, value_name = "MAC", value_parser = parse_hardware)]
    mac: EthernetAddress,
    /// The server's own address, of which no pool has a part, with the length of the on-link prefix
    #[arg(long, value_name = "ADDRESS/LENGTH", value_parser = parse_address)]
    address: Ipv4Cidr,
    /// The router of the LAN: clients are told of it, unless their pool names another one as `router`, and answers to
    /// other networks go there
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    /// Give leases from the pools of this TOML file
    #[arg(long, value_name = "FILE")]
    dhcp: PathBuf,
    /// Where the leases are kept; made if it is missing
    #[arg(long, value_name = "FILE")]
    lease_file: PathBuf,
    #[command(flatten)]
    serve: ServeArgs,
}

pub(super) fn run(args: DhcpdArgs) -> anyhow::Result<()> {
    let address = args.address;
    if let Some(gateway) = args.gateway
        && (gateway == address.address() || !address.contains_addr(&gateway))
    {
        bail!("gateway {gateway} is not another node of {}", address.network());
    }
    let clock = Clock::start();
    let ready = args.serve.ready();
    let link = ServerLink { link: 0, address, router: args.gateway };
    let (store, server) = LeaseStore::open(&args.dhcp, &args.lease_file, vec![link], &clock)?;
    let lan = args.serve.open_lan(&args.lan, &clock)?;
    let control = args.serve.bind()?;
    let config = DhcpdConfig {
        lan: args.lan.to_string(),
        hardware: args.mac,
        address,
        gateway: args.gateway,
        pro: args.serve.pro,
        seed: random_seed()?,
    };
    let (pools, leases) = (server.config().pools.len(), server.leases().count());
    let dhcpd = Dhcpd::new(config, server, clock.now());
    let sandbox = args.serve.sandbox(&control, vec![store.directory()], None)?;
    let service = DhcpdService { dhcpd, store, offloads: lan.offloads() };
    let event_loop = EventLoop::new(service, vec![lan], control, clock, args.serve.io)?;
    sandbox.enter()?;
    tracing::info!(address = %address.address(), pools, leases, "dhcpd serves");
    if let Some(ready) = ready {
        ready.tell("dhcpd");
    }
    event_loop.run()?;
    tracing::info!("dhcpd ended");
    Ok(())
}

struct DhcpdService {
    dhcpd: Dhcpd,
    store: LeaseStore,
    offloads: Offloads,
}

impl Service for DhcpdService {
    fn node(&mut self) -> &mut dyn Node {
        &mut self.dhcpd
    }

    fn arp(&mut self, now: Instant) -> Value {
        table(self.dhcpd.neighbors(now))
    }

    fn status(&mut self, now: Instant) -> Value {
        let (counters, drops) = counters(self.dhcpd.counters());
        let (name, address, config) = self.dhcpd.describe();
        let mut status = json!({
            "name": "dhcpd",
            "role": "dhcpd",
            "pid": std::process::id(),
            "links": [link(name, address, config, self.offloads)],
        });
        self.store.tell(&mut status, &self.dhcpd, now);
        status["counters"] = counters;
        status["drops"] = drops;
        status
    }

    fn leases(&mut self, now: Instant) -> Option<Value> {
        Some(leases::list(self.dhcpd.leases(), |_| None, now))
    }

    fn explain(&mut self, _asked: &Asked, _now: Instant) -> Result<Value, String> {
        Err("a DHCP server forwards nothing: ask the router, or a host".to_owned())
    }

    fn host(&mut self) -> Option<&mut Host> {
        None
    }

    fn turn(&mut self, now: Instant) -> anyhow::Result<()> {
        self.store.commit(&mut self.dhcpd, now);
        Ok(())
    }

    fn stop(&mut self, _now: Instant) {}
}

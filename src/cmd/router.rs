//! `pearp router`.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use super::arp::table;
use super::leasing::LeaseStore;
use super::serve::{MIN_MTU, ServeArgs, counters, link, parse_hardware};
use super::{explain, leases};
use crate::dhcp::{Lease, LeaseState, Server, ServerLink};
use crate::link::{DeviceName, Link, Offloads};
use crate::node::{EchoAnswer, Host, Lessor, LinkId, Node, Role, Route, Router, RouterConfig, RouterLink};
use crate::ports::{Psid, Scheme};
use crate::runtime::{Asked, Clock, EventLoop, Service, random_seed};
use crate::wire::{FlowKey, Medium, ipv4};

const EXAMPLES: &str = "Example, in a namespace of its own, with TAPs that are ports of two bridges:
  pearp router --lan lab-lan:router,address=198.51.100.1/24,mac=02:00:00:00:00:01 \\
               --outside lab-wan:router,address=203.0.113.1/24,mac=02:00:00:00:01:01 \\
               --shared 198.51.100.2=0,4

LINK is DEVICE,address=ADDRESS/LENGTH,mac=MAC[,mtu=BYTES]; its MTU is that of --mtu where it has none of its own.
DEVICE is [NETNS:]TAP, or fd:N where whoever starts the router has opened the TAP as descriptor N: then it needs no privilege,
and runs as any user. SIGTERM or Ctrl-C ends the router.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RouterArgs {
    /// A link with hosts on it; may be given several times
    #[arg(long, value_name = "LINK", required = true)]
    lan: Vec<LinkArg>,
    /// A link to the outside, where only plain ARP is spoken
    #[arg(long, value_name = "LINK")]
    outside: Vec<LinkArg>,
    /// A shared address and its sharing scheme, as ADDRESS=A,K; may be given several times
    #[arg(long, value_name = "ADDRESS=A,K", value_parser = parse_shared)]
    shared: Vec<(Ipv4Addr, Scheme)>,
    /// A route by another router, as PREFIX=GATEWAY, for example 0.0.0.0/0=203.0.113.254
    #[arg(long, value_name = "PREFIX=GATEWAY", value_parser = parse_route)]
    route: Vec<Route>,
    /// Who answers a ping of a shared address: `router`, for all its hosts; or `owner`, the host that owns the identifier
    #[arg(long, value_name = "router|owner", default_value = "router", value_parser = parse_echo)]
    echo: EchoAnswer,
    /// Give leases by DHCP on the LANs, from the pools of this TOML file
    #[arg(long, value_name = "FILE", requires = "lease_file")]
    dhcp: Option<PathBuf>,
    /// Where the leases are kept; made if it is missing
    #[arg(long, value_name = "FILE", requires = "dhcp")]
    lease_file: Option<PathBuf>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Clone, Debug)]
struct LinkArg {
    device: DeviceName,
    address: Ipv4Cidr,
    hardware: EthernetAddress,
    /// Where it is another one than that of all links.
    mtu: Option<u16>,
}

impl FromStr for LinkArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let device = parts.next().unwrap_or_default().parse()?;
        let (mut address, mut hardware, mut mtu) = (None, None, None);
        for part in parts {
            match part.split_once('=') {
                Some(("address", value)) => address = Some(parse_address(value)?),
                Some(("mac", value)) => hardware = Some(parse_hardware(value)?),
                Some(("mtu", value)) => mtu = Some(parse_mtu(value)?),
                _ => {
                    return Err(format!("`{part}` is none of address=ADDRESS/LENGTH, mac=MAC and mtu=BYTES"));
                }
            }
        }
        Ok(Self {
            device,
            address: address.ok_or("address=ADDRESS/LENGTH is missing")?,
            hardware: hardware.ok_or("mac=MAC is missing")?,
            mtu,
        })
    }
}

/// An address with the length of its on-link prefix.
pub(super) fn parse_address(text: &str) -> Result<Ipv4Cidr, String> {
    let bad = || format!("`{text}` is not an address with a prefix length, like 198.51.100.2/24");
    let cidr: Ipv4Cidr = text.parse().map_err(|()| bad())?;
    if !text.contains('/') || !crate::wire::icmp::is_host(cidr.address()) {
        return Err(bad());
    }
    let network = cidr.network().address();
    if cidr.prefix_len() < 31 && (cidr.address() == network || Some(cidr.address()) == cidr.broadcast()) {
        return Err(format!("{} is not a host's address in its network", cidr.address()));
    }
    Ok(cidr)
}

fn parse_mtu(text: &str) -> Result<u16, String> {
    let bytes = text.parse().ok().filter(|bytes| *bytes >= MIN_MTU);
    bytes.ok_or_else(|| format!("`{text}` is no MTU: write {MIN_MTU} to {} bytes", u16::MAX))
}

fn parse_echo(text: &str) -> Result<EchoAnswer, String> {
    match text {
        "router" => Ok(EchoAnswer::Router),
        "owner" => Ok(EchoAnswer::Owner),
        _ => Err(format!("`{text}` is neither `router` nor `owner`")),
    }
}

fn parse_shared(text: &str) -> Result<(Ipv4Addr, Scheme), String> {
    let (address, scheme) = text.split_once('=').ok_or("write ADDRESS=A,K, for example 198.51.100.2=0,4")?;
    let address = address.parse().map_err(|_| format!("`{address}` is not an IPv4 address"))?;
    Ok((address, scheme.parse().map_err(|error: crate::ports::PsidError| error.to_string())?))
}

fn parse_route(text: &str) -> Result<Route, String> {
    let (prefix, gateway) =
        text.split_once('=').ok_or("write PREFIX=GATEWAY, for example 0.0.0.0/0=203.0.113.254")?;
    let prefix: Ipv4Cidr = prefix.parse().map_err(|()| format!("`{prefix}` is not a prefix"))?;
    let gateway = gateway.parse().map_err(|_| format!("`{gateway}` is not an IPv4 address"))?;
    Ok(Route { prefix: prefix.network(), gateway })
}

pub(super) fn run(args: RouterArgs) -> anyhow::Result<()> {
    let links: Vec<(Role, &LinkArg)> = args
        .lan
        .iter()
        .map(|link| (Role::Lan, link))
        .chain(args.outside.iter().map(|link| (Role::Outside, link)))
        .collect();
    check(&args, &links)?;
    let clock = Clock::start();
    let ready = args.serve.ready();
    let (store, server) = open_leases(&args, &clock)?.unzip();
    let mut shared = args.shared.clone();
    shared.extend(server.iter().flat_map(|server| server.config().shared()));
    let authority = shared.len() > args.shared.len();
    if let Some((address, _)) = args.shared.first().filter(|_| authority) {
        bail!(
            "--shared {address} and --dhcp with [[shared]] pools: a router that leases sets believes nobody else, so \
             make the address a pool, too, and leave --shared out"
        );
    }
    let mut devices: Vec<Box<dyn Link>> = Vec::new();
    for (role, link) in &links {
        devices.push(match role {
            // One file takes the frames of one link.
            Role::Lan if devices.is_empty() => args.serve.open_lan(&link.device, &clock)?,
            Role::Lan | Role::Outside => args.serve.open(&link.device, Medium::Ethernet)?,
        });
    }
    let control = args.serve.bind()?;
    let config = RouterConfig {
        links: links
            .iter()
            .map(|(role, link)| RouterLink {
                name: link.device.to_string(),
                role: *role,
                hardware: link.hardware,
                address: link.address,
                mtu: link.mtu.map_or(args.serve.mtu(), usize::from),
            })
            .collect(),
        shared,
        authority,
        echo: args.echo,
        routes: args.route.clone(),
        pro: args.serve.pro,
        seed: random_seed()?,
    };
    let shared = config.shared.len();
    let mut router = Router::new(config, clock.now());
    if let Some(server) = server {
        tracing::info!(pools = server.config().pools.len(), leases = server.leases().count(), "DHCP serves");
        router.serve_dhcp(server, clock.now());
    }
    let offloads = devices.iter().map(|device| device.offloads()).collect();
    let files = store.iter().map(LeaseStore::directory).collect();
    let sandbox = args.serve.sandbox(&control, files, None)?;
    let service = RouterService { router, store, offloads };
    let event_loop = EventLoop::new(service, devices, control, clock, args.serve.io)?;
    sandbox.enter()?;
    tracing::info!(shared, links = links.len(), "router serves");
    if let Some(ready) = ready {
        ready.tell("router");
    }
    event_loop.run()?;
    tracing::info!("router ended");
    Ok(())
}

fn check(args: &RouterArgs, links: &[(Role, &LinkArg)]) -> anyhow::Result<()> {
    for (address, _) in &args.shared {
        let lan = args.lan.iter().any(|link| link.address.contains_addr(address));
        if !lan {
            bail!("shared address {address} is on no --lan: give one whose prefix contains it");
        }
        if links.iter().any(|(_, link)| link.address.address() == *address) {
            bail!("shared address {address} is the router's own: share another one");
        }
    }
    for (at, (_, link)) in links.iter().enumerate() {
        if links[..at].iter().any(|(_, other)| other.device == link.device) {
            bail!("device {} is given twice: each link has its own", link.device);
        }
    }
    for route in &args.route {
        let on_link = links.iter().any(|(_, link)| link.address.contains_addr(&route.gateway));
        if !on_link {
            bail!("gateway {} of route {} is on none of the links", route.gateway, route.prefix);
        }
    }
    Ok(())
}

fn open_leases(args: &RouterArgs, clock: &Clock) -> anyhow::Result<Option<(LeaseStore, Server)>> {
    let (Some(pools), Some(lease_file)) = (&args.dhcp, &args.lease_file) else { return Ok(None) };
    // The LANs are the first links.
    let link = |(link, lan): (usize, &LinkArg)| {
        let address = lan.address;
        ServerLink { link, address, router: Some(address.address()) }
    };
    let links = args.lan.iter().enumerate().map(link).collect();
    LeaseStore::open(pools, lease_file, links, clock).map(Some)
}

struct RouterService {
    router: Router,
    /// Where there is a DHCP server.
    store: Option<LeaseStore>,
    /// Those of each link.
    offloads: Vec<Offloads>,
}

impl Service for RouterService {
    fn node(&mut self) -> &mut dyn Node {
        &mut self.router
    }

    fn arp(&mut self, now: Instant) -> Value {
        table(self.router.neighbors(now))
    }

    fn status(&mut self, now: Instant) -> Value {
        let (counters, drops) = counters(self.router.counters());
        let links: Vec<_> = self
            .router
            .describe()
            .zip(&self.offloads)
            .map(|((name, address, config), offloads)| link(name, address, config, *offloads))
            .collect();
        let mut status = json!({
            "name": "router",
            "role": "router",
            "pid": std::process::id(),
            "links": links,
        });
        if let Some(store) = &self.store {
            store.tell(&mut status, &self.router, now);
        }
        status["counters"] = counters;
        status["drops"] = drops;
        status
    }

    fn leases(&mut self, now: Instant) -> Option<Value> {
        let traffic = |lease: &Lease| self.router.traffic(lease);
        self.store.as_ref().map(|_| leases::list(self.router.leases(), traffic, now))
    }

    fn explain(&mut self, asked: &Asked, now: Instant) -> Result<Value, String> {
        let packet = explain::bytes_of(asked)?;
        let from = asked.from.map(EthernetAddress);
        let links: Vec<_> = self.router.describe().map(|(name, ..)| name.to_owned()).collect();
        let view = ipv4::check(&packet).map_err(|error| error.to_string())?;
        let ingress = self.router.ingress_of(view.src_addr()).map(|link| link.0);
        let link = explain::link_of(&links, asked.link.as_deref(), ingress)?;
        let about = self.router.explain(LinkId(link), from, &packet, now);
        // Of both ends, if they have one.
        let key = FlowKey::of(&view).ok();
        let ends = [
            (view.src_addr(), key.and_then(|key| key.source)),
            (view.dst_addr(), key.and_then(|key| key.destination)),
        ];
        let named = |lease: &&Lease| {
            let live = lease.state == LeaseState::Bound && lease.until > now;
            let whole = lease.set == Psid::FULL;
            live && ends.iter().any(|(ip, port)| {
                lease.ip == *ip && (whole || port.is_some_and(|port| lease.set.contains(port)))
            })
        };
        let leases = leases::list(self.router.leases().filter(named), |_| None, now);
        Ok(explain::value(about, &links, leases))
    }

    fn host(&mut self) -> Option<&mut Host> {
        None
    }

    fn turn(&mut self, now: Instant) -> anyhow::Result<()> {
        if let Some(store) = &mut self.store {
            store.commit(&mut self.router, now);
        }
        Ok(())
    }

    fn stop(&mut self, _now: Instant) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_may_have_an_mtu_of_its_own() {
        let parse = |more: &str| {
            let text = format!("lan:router,address=198.51.100.1/24,mac=02:00:00:00:00:01{more}");
            text.parse().map(|link: LinkArg| link.mtu)
        };
        assert_eq!(parse(""), Ok(None));
        for (mtu, bytes) in [(",mtu=576", 576), (",mtu=1492", 1492), (",mtu=65535", 65_535)] {
            assert_eq!(parse(mtu), Ok(Some(bytes)));
        }
        for wrong in [",mtu=575", ",mtu=65536", ",mtu=", ",mtu=-1", ",mtu=1e3"] {
            assert!(parse(wrong).is_err_and(|error| error.contains("576 to 65535")), "{wrong}");
        }
        assert!(parse(",mut=1492").is_err_and(|error| error.contains("mtu=BYTES")));
    }
}

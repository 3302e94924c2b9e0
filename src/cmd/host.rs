//! `pearp host`.

mod doctor;
mod hook;
mod service;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::bail;
use clap::{ArgAction, Args};
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use super::router::parse_address;
use super::serve::{ServeArgs, parse_hardware, shown};
use crate::dhcp::client;
use crate::link::{DeviceName, Link};
use crate::node::{
    EchoPort, Host, HostConfig, HostLinks, HostOptions, LeakPolicy, LeasedConfig, LeasedHost, MAX_LEASES,
    SetConfig,
};
use crate::ports::{PortSet, Portless, Psid};
use crate::runtime::{Attendant, Clock, EventLoop, HookCommand, LeaseFile, random_seed};
use crate::wire::Medium;
use doctor::Doctor;
use hook::Hook;
use service::{HostService, Station};
pub(super) use service::{phase_name, range_pairs};

const EXAMPLES: &str = "Examples, in the namespace of the host's programs, where the TUN pe0 is:
  pearp host --name h1 --lan lab-lan:h1 --mac 02:00:00:00:02:01 --dhcp --hook netns/lease-hook
  pearp host --name h1 --lan lab-lan:h1 --mac 02:00:00:00:02:01 --address 198.51.100.2/24 \\
             --gateway 198.51.100.1 --psid 0,4,1 --hook netns/lease-hook

The hook is called as `HOOK bound` when an address is in use, with the variables interface, ip, addresses, prefix_len,
router, ports, program_ports, stack_ports, port_range and reserved_ports; it gives the programs their address. With
--dhcp there are dns, domain and serverid as well, and it is also called as `HOOK renew` when the lease lasts longer or
has other ports, and as `HOOK deconfig` when an address is used no longer.
SIGTERM or Ctrl-C ends the host; the TUN keeps its address. A set of the command line is given back (RELEASE), a
lease is kept unless --release says otherwise.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[group(id = "set", required = true, multiple = false, args = ["dhcp", "psid", "ports"])]
pub(super) struct HostArgs {
    /// Name in logs and lists
    #[arg(long, default_value = "host")]
    name: String,
    /// The TAP on the LAN, as [NETNS:]TAP, or fd:N for one that is open as descriptor N
    #[arg(long, value_name = "DEVICE")]
    lan: DeviceName,
    /// The TUN to the programs, as [NETNS:]TUN or fd:N
    #[arg(long, value_name = "DEVICE", default_value = "pe0")]
    tun: DeviceName,
    /// Link-layer address on the LAN
    #[arg(long, value_name = "MAC", value_parser = parse_hardware)]
    mac: EthernetAddress,
    /// Lease address, ports and gateway by DHCP: a part of an address where the server has one, otherwise a whole one
    #[arg(long)]
    dhcp: bool,
    /// Where the lease is kept over a restart of this process
    #[arg(long, value_name = "FILE", conflicts_with_all = ["psid", "ports"])]
    lease_file: Option<PathBuf>,
    /// Give the lease back at the end
    #[arg(long, conflicts_with_all = ["psid", "ports"])]
    release: bool,
    /// Lease so many addresses, each whole or a part of it; a program chooses one by binding it
    #[arg(long, value_name = "N", conflicts_with_all = ["psid", "ports"], default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=MAX_LEASES as i64))]
    addresses: u32,
    /// Ask for further ports where programs use more than four fifths of them, and give some back where they use less
    /// than a fifth for ten minutes: `on` or `off`
    #[arg(long, value_name = "on|off", conflicts_with_all = ["psid", "ports"], default_value = "on",
        value_parser = parse_switch, action = ArgAction::Set)]
    grow: bool,
    /// Number of the first lease among those of the host, in its client identifier (RFC 4361)
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["psid", "ports"], default_value_t = 0)]
    iaid: u32,
    /// The (shared) address with the length of the on-link prefix
    #[arg(long, value_name = "ADDRESS/LENGTH", value_parser = parse_address, conflicts_with = "dhcp",
        required_unless_present = "dhcp")]
    address: Option<Ipv4Cidr>,
    /// The router, for what is not on the link
    #[arg(long, value_name = "ADDRESS", conflicts_with = "dhcp")]
    gateway: Option<Ipv4Addr>,
    /// The host's ports as a PSID: offset bits, PSID bits, PSID
    #[arg(long, value_name = "A,K,PSID")]
    psid: Option<Psid>,
    /// The host's ports as ranges, as 5000-5999,6010; 0-65535 for an address of its own
    #[arg(long, value_name = "RANGES")]
    ports: Option<PortSet>,
    /// What the host owns of the address that has no port: numbers of IP protocols, and `residual` for all those that no
    /// sharer owns by number, as 47,41,residual (47 is GRE, 41 IPv6 in IPv4) [default: nothing]
    #[arg(long, value_name = "LIST", conflicts_with = "dhcp")]
    portless: Option<Portless>,
    /// Ports of the set, from the top, for the host's own stack; the rest is for programs [default: one in eight]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    stack_ports: Option<u32>,
    /// Port of the own stack's TCP and UDP echo service: a port of the stack part, `lowest` or `off`
    #[arg(long, value_name = "PORT", default_value = "lowest", value_parser = parse_echo)]
    echo: EchoPort,
    /// What becomes of packets from source ports outside the set: `map`, the host chooses another source port for them,
    /// of the stack part; or `reject`, they are dropped and the program gets an ICMP error
    #[arg(long, value_name = "map|reject", default_value = "map", value_parser = parse_leaks)]
    leaks: LeakPolicy,
    /// Believe this node when it says that ports have no owner; may be given several times
    #[arg(long, value_name = "MAC", value_parser = parse_hardware)]
    authority: Vec<EthernetAddress>,
    /// Script that gives the address to the programs
    #[arg(long, value_name = "PATH")]
    hook: Option<PathBuf>,
    #[command(flatten)]
    serve: ServeArgs,
}

fn parse_echo(text: &str) -> Result<EchoPort, String> {
    match text {
        "off" => Ok(EchoPort::Off),
        "lowest" => Ok(EchoPort::Lowest),
        port => match port.parse() {
            Ok(port) if port > 0 => Ok(EchoPort::Port(port)),
            _ => Err(format!("`{port}` is no port, nor `lowest`, nor `off`")),
        },
    }
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("neither `on` nor `off`".to_owned()),
    }
}

fn parse_leaks(text: &str) -> Result<LeakPolicy, String> {
    match text {
        "map" => Ok(LeakPolicy::Map),
        "reject" => Ok(LeakPolicy::Reject),
        _ => Err("neither `map` nor `reject`".to_owned()),
    }
}

pub(super) fn run(args: HostArgs) -> anyhow::Result<()> {
    let fixed = args.address.map(|address| fixed_config(&args, address)).transpose()?;
    let clock = Clock::start();
    let ready = args.serve.ready();
    // Before anything is open that is none of its business.
    let interface = args.tun.interface()?;
    let hook = args.hook.clone().map(|path| HookCommand { path, interface });
    let attendant = Attendant::start(hook.as_ref())?;
    let lan = args.serve.open_lan(&args.lan, &clock)?;
    let tun = args.serve.open(&args.tun, Medium::Ip)?;
    let control = args.serve.bind()?;
    let offloads = [(args.lan.to_string(), lan.offloads()), (args.tun.to_string(), tun.offloads())];
    let (station, lease_file) = match fixed {
        Some(config) => (Station::Fixed(Box::new(Host::new(config, clock.now())?)), None),
        None => {
            let (leased, lease_file) = leased(&args, &clock)?;
            (Station::Leased(Box::new(leased)), lease_file)
        }
    };
    let files = lease_file.iter().map(LeaseFile::directory).collect();
    let sandbox = args.serve.sandbox(&control, files, Some(attendant.pid()))?;
    let service = HostService {
        station,
        name: args.name,
        link_address: shown(args.mac),
        hook: hook.map(|_| Hook::default()),
        offloads,
        lease_file,
        releases: args.release,
        ready,
        told: BTreeSet::new(),
        served: BTreeSet::new(),
        doctor: Doctor::default(),
        attendant,
        looking: false,
    };
    let event_loop = EventLoop::new(service, vec![lan, tun], control, clock, args.serve.io)?;
    sandbox.enter()?;
    event_loop.run()
}

/// What the command line says of a host that has a set of its own.
fn fixed_config(args: &HostArgs, address: Ipv4Cidr) -> anyhow::Result<HostConfig> {
    let set = match (args.psid, args.ports.clone()) {
        (Some(psid), _) => PortSet::Psid(psid),
        (None, Some(ports)) => ports,
        (None, None) => bail!("give --psid or --ports"),
    };
    let count = set.to_bitmap().count();
    let stack_ports = args.stack_ports.unwrap_or(2);
    if count <= stack_ports {
        bail!("a set of {count} ports leaves none for programs: {stack_ports} are the own stack's");
    }
    if set.is_full() && args.portless.is_some() {
        bail!("--portless goes with a part of an address: who has all ports has everything else, too");
    }
    if let Some(gateway) = args.gateway
        && (gateway == address.address() || (address.prefix_len() < 32 && !address.contains_addr(&gateway)))
    {
        bail!("gateway {gateway} is not another node of {}", address.network());
    }
    let portless = args.portless.clone().unwrap_or_default();
    let first = SetConfig { address, gateway: args.gateway, set, portless, lease: None };
    Ok(HostConfig { options: options(args)?, first })
}

fn options(args: &HostArgs) -> anyhow::Result<HostOptions> {
    Ok(HostOptions {
        links: HostLinks { lan: args.lan.to_string(), tun: args.tun.to_string() },
        hardware: args.mac,
        stack_ports: args.stack_ports,
        echo: args.echo,
        leaks: args.leaks,
        authorities: args.authority.clone(),
        mtu: args.serve.mtu(),
        pro: args.serve.pro,
        seed: random_seed()?,
    })
}

/// A host that asks for what it had before, or for anything.
fn leased(args: &HostArgs, clock: &Clock) -> anyhow::Result<(LeasedHost, Option<LeaseFile>)> {
    let config = client::Config {
        hardware: args.mac,
        iaid: args.iaid,
        host_name: Some(args.name.clone()),
        shares: true,
        wish: client::Wish::Any,
        seed: random_seed()?,
    };
    let open = |path: &PathBuf| LeaseFile::new(path.clone(), config.id(), clock.epoch());
    let lease_file = args.lease_file.as_ref().map(open).transpose()?;
    let config = LeasedConfig {
        options: options(args)?,
        client: config,
        addresses: args.addresses,
        grows: args.grow,
        stored: lease_file.as_ref().map(LeaseFile::load).unwrap_or_default(),
    };
    Ok((LeasedHost::new(config, clock.now()), lease_file))
}

//! `pearp host`.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use super::arp::table;
use super::router::parse_address;
use super::serve::{ServeArgs, counters, parse_hardware, shown, tell_ready};
use crate::link::{DeviceName, Link, Offloads};
use crate::neighbor::ClaimPhase;
use crate::node::{EchoPort, Host, HostConfig, HostLinks, Node};
use crate::ports::{PortRange, PortSet, Psid};
use crate::runtime::{Clock, EventLoop, Service, random_seed};
use crate::wire::Medium;

const EXAMPLES: &str = "Example, in the namespace of the host's programs, where the TUN pe0 is:
  pearp host --name h1 --lan lab-lan:h1 --mac 02:00:00:00:02:01 --address 198.51.100.2/24 \\
             --gateway 198.51.100.1 --psid 0,4,1 --hook netns/lease-hook

The hook is called as `HOOK bound` when the set is in use, with the variables interface, ip, prefix_len, router,
ports, program_ports, stack_ports, port_range and reserved_ports; it gives the programs their address.
SIGTERM or Ctrl-C gives the set back (RELEASE) and ends the host; the TUN keeps its address.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[group(id = "set", required = true, multiple = false, args = ["psid", "ports"])]
pub(super) struct HostArgs {
    /// Name in logs and lists
    #[arg(long, default_value = "host")]
    name: String,
    /// The TAP on the LAN, as [NETNS:]TAP
    #[arg(long, value_name = "DEVICE")]
    lan: DeviceName,
    /// The TUN to the programs, as [NETNS:]TUN
    #[arg(long, value_name = "DEVICE", default_value = "pe0")]
    tun: DeviceName,
    /// Link-layer address on the LAN
    #[arg(long, value_name = "MAC", value_parser = parse_hardware)]
    mac: EthernetAddress,
    /// The (shared) address with the length of the on-link prefix
    #[arg(long, value_name = "ADDRESS/LENGTH", value_parser = parse_address)]
    address: Ipv4Cidr,
    /// The router, for what is not on the link
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    /// The host's ports as a PSID: offset bits, PSID bits, PSID
    #[arg(long, value_name = "A,K,PSID")]
    psid: Option<Psid>,
    /// The host's ports as ranges, as 5000-5999,6010; 0-65535 for an address of its own
    #[arg(long, value_name = "RANGES")]
    ports: Option<PortSet>,
    /// Ports of the set, from the top, for the host's own stack; the rest is for programs [default: one in eight]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    stack_ports: Option<u32>,
    /// Port of the own stack's TCP and UDP echo service: a port of the stack part, `lowest` or `off`
    #[arg(long, value_name = "PORT", default_value = "lowest", value_parser = parse_echo)]
    echo: EchoPort,
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

pub(super) fn run(args: HostArgs) -> anyhow::Result<()> {
    let set = match (args.psid, args.ports) {
        (Some(psid), _) => PortSet::Psid(psid),
        (None, Some(ports)) => ports,
        (None, None) => bail!("give --psid or --ports"),
    };
    let count = set.to_bitmap().count();
    let stack_ports = args.stack_ports.unwrap_or(2);
    if count <= stack_ports {
        bail!("a set of {count} ports leaves none for programs: {stack_ports} are the own stack's");
    }
    if let Some(gateway) = args.gateway
        && (gateway == args.address.address()
            || (args.address.prefix_len() < 32 && !args.address.contains_addr(&gateway)))
    {
        bail!("gateway {gateway} is not another node of {}", args.address.network());
    }
    let clock = Clock::start();
    let lan = args.serve.open_lan(&args.lan, &clock)?;
    let tun = args.serve.open(&args.tun, Medium::Ip)?;
    let control = args.serve.bind()?;
    let config = HostConfig {
        links: HostLinks { lan: args.lan.to_string(), tun: args.tun.to_string() },
        hardware: args.mac,
        address: args.address,
        gateway: args.gateway,
        set,
        stack_ports: args.stack_ports,
        echo: args.echo,
        authorities: args.authority,
        lease: None,
        mtu: args.serve.mtu(),
        pro: args.serve.pro,
        seed: random_seed()?,
    };
    let offloads = [(args.lan.to_string(), lan.offloads()), (args.tun.to_string(), tun.offloads())];
    let host = Host::new(config, clock.now())?;
    let service = HostService {
        host,
        name: args.name,
        interface: args.tun.name,
        offloads,
        hook: args.hook,
        ready_fd: args.serve.ready_fd,
        stage: Stage::Claiming,
    };
    let event_loop = EventLoop::new(service, vec![lan, tun], control, clock, args.serve.io)?;
    event_loop.run()
}

/// How far the start has come.
#[derive(Debug)]
enum Stage {
    /// The set is being probed.
    Claiming,
    /// The hook runs.
    Hook(Child),
    /// Everything is done.
    Serving,
}

/// Where a set stands, in a status.
pub(super) fn phase_name(phase: ClaimPhase) -> &'static str {
    match phase {
        ClaimPhase::Unclaimed => "released",
        ClaimPhase::Expired => "expired",
        ClaimPhase::Probing { .. } => "probing",
        ClaimPhase::Announcing { .. } | ClaimPhase::Held => "bound",
        ClaimPhase::Lost => "lost",
    }
}

/// Ranges as pairs of numbers.
pub(super) fn range_pairs(ranges: Vec<PortRange>) -> Vec<(u16, u16)> {
    ranges.into_iter().map(|range| (range.first(), range.last())).collect()
}

struct HostService {
    host: Host,
    name: String,
    interface: String,
    /// Name and offloads of each link.
    offloads: [(String, Offloads); 2],
    hook: Option<PathBuf>,
    ready_fd: Option<i32>,
    stage: Stage,
}

impl HostService {
    /// Calls the hook as udhcpc calls its script: the reason as argument, the rest as variables.
    fn start_hook(&self, hook: &PathBuf, reason: &str) -> anyhow::Result<Child> {
        let program = self.host.program_part().ranges();
        let listed =
            |ranges: &[PortRange]| ranges.iter().map(PortRange::to_string).collect::<Vec<_>>().join(",");
        let lowest = program.first().map_or(0, |range| range.first());
        let highest = program.last().map_or(0, |range| range.last());
        let holes: Vec<_> = program
            .windows(2)
            .filter_map(|pair| {
                PortRange::new(pair[0].last().checked_add(1)?, pair[1].first().checked_sub(1)?)
            })
            .collect();
        let address = self.host.address();
        let router = self.host.gateway().map(|gateway| gateway.to_string()).unwrap_or_default();
        Command::new(hook)
            .arg(reason)
            .env("interface", &self.interface)
            .env("ip", address.address().to_string())
            .env("prefix_len", address.prefix_len().to_string())
            .env("router", router)
            .env("ports", listed(&self.host.set().ranges()))
            .env("program_ports", listed(&program))
            .env("stack_ports", listed(&self.host.stack_part().ranges()))
            .env("port_range", format!("{lowest} {highest}"))
            .env("reserved_ports", listed(&holes))
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run the lease hook {}: is it executable?", hook.display()))
    }

    fn serve(&mut self) {
        let address = self.host.address().address();
        tracing::info!(name = %self.name, %address, ports = %self.host.set(), "host serves");
        if let Some(fd) = self.ready_fd.take() {
            tell_ready(fd, &self.name);
        }
        self.stage = Stage::Serving;
    }
}

impl Service for HostService {
    fn node(&mut self) -> &mut dyn Node {
        &mut self.host
    }

    fn arp(&mut self, now: Instant) -> Value {
        table(self.host.neighbors(now))
    }

    fn status(&mut self, _now: Instant) -> Value {
        let (counters, drops) = counters(self.host.counters());
        let (used, echo) = self.host.stack_use();
        let address = self.host.address();
        json!({
            "name": self.name,
            "role": "host",
            "pid": std::process::id(),
            "state": phase_name(self.host.phase()),
            "address": address.address(),
            "prefix_len": address.prefix_len(),
            "gateway": self.host.gateway(),
            "link_address": shown(self.host.hardware()),
            "links": self.offloads.each_ref().map(|(link, offloads)| {
                json!({ "link": link, "offload": offloads.to_string() })
            }),
            "ports": range_pairs(self.host.set().ranges()),
            "program_ports": range_pairs(self.host.program_part().ranges()),
            "stack_ports": range_pairs(self.host.stack_part().ranges()),
            "stack_ports_used": used,
            "echo_port": echo,
            "counters": counters,
            "drops": drops,
        })
    }

    fn host(&mut self) -> Option<&mut Host> {
        Some(&mut self.host)
    }

    fn turn(&mut self, _now: Instant) -> anyhow::Result<()> {
        if let Some(hardware) = self.host.take_lost() {
            let owner = shown(hardware);
            let set = self.host.set();
            if self.ready_fd.is_some() {
                bail!(
                    "ports {set} of {} are in use by {owner}: give this host another set",
                    self.host.address()
                );
            }
            tracing::error!(%owner, ports = %set, "set is in use by another host; probing again in 60 s");
        }
        match &mut self.stage {
            Stage::Claiming if self.host.phase().holds() => match &self.hook {
                Some(hook) => self.stage = Stage::Hook(self.start_hook(hook, "bound")?),
                None => self.serve(),
            },
            Stage::Hook(child) => {
                if let Some(status) = child.try_wait().context("cannot wait for the lease hook")? {
                    if !status.success() {
                        bail!("the lease hook failed ({status}): its messages are above");
                    }
                    self.serve();
                }
            }
            Stage::Claiming | Stage::Serving => {}
        }
        Ok(())
    }

    fn stop(&mut self, now: Instant) {
        self.host.release(now);
        tracing::info!(name = %self.name, "host ended");
    }
}

//! The sub-commands, one file each.

mod arp;
mod attendant;
mod client;
mod dhcpd;
mod explain;
mod host;
mod leases;
mod leasing;
mod nc;
mod output;
mod ports;
mod psid;
mod router;
mod serve;
mod sim;
mod status;
mod swarm;
mod who;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, Parser, Subcommand};
use tracing::Level;

use crate::runtime::ATTENDANT_COMMAND;

const ABOUT: &str = "Port Enhanced ARP: many hosts share one IPv4 address, each with its own ports.";

const EXAMPLES: &str = "Examples:
  netns/lab up                       a lab with three hosts that share 198.51.100.2
  ip netns exec lab-router pearp arp the router's ARP table, with ports
  ip netns exec lab-h1 pearp status  what host h1 is and has counted";

#[derive(Debug, Parser)]
#[command(name = "pearp", version, about = ABOUT, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    /// Log more: -v debug, -vv every message
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a host that shares an address
    Host(Box<host::HostArgs>),
    /// Run thousands of hosts that share addresses, in one process on one TAP
    Swarm(Box<swarm::SwarmArgs>),
    /// Run the edge router
    Router(router::RouterArgs),
    /// Run a DHCP server of addresses and port sets beside another router
    Dhcpd(dhcpd::DhcpdArgs),
    /// Show a node's ARP table, with ports
    Arp(arp::ArpArgs),
    /// Show what a node is and has counted
    Status(status::StatusArgs),
    /// Show the DHCP leases that a router or dhcpd gave
    Leases(leases::LeasesArgs),
    /// Show who had a port of an address at a time, by the lease file of a router or dhcpd
    Who(who::WhoArgs),
    /// Show what a router or host would do with a packet: which binding, lease and rule decide
    Explain(explain::ExplainArgs),
    /// Show which ports of a host's set are in use, and by which programs
    Ports(ports::PortsArgs),
    /// Connect to HOST PORT from a host's own stack; standard input and output carry the stream
    Nc(nc::NcArgs),
    /// Show the port ranges of a PSID
    Psid(psid::PsidArgs),
    /// Run a network of hosts and a router in memory, on a virtual clock
    Sim(sim::SimArgs),
    /// Do for a host what takes privileges: run its lease hook, look into /proc
    #[command(name = ATTENDANT_COMMAND, hide = true)]
    Attendant(attendant::AttendantArgs),
}

/// How a command finds its node.
#[derive(Debug, Args)]
struct Node {
    /// Control socket of the node [default: that of this network namespace, under $PEARP_RUN or /run/pearp]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.verbose);
    let result = match cli.command {
        Command::Host(args) => host::run(*args),
        Command::Swarm(args) => swarm::run(*args),
        Command::Router(args) => router::run(args),
        Command::Dhcpd(args) => dhcpd::run(args),
        Command::Arp(args) => arp::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Leases(args) => leases::run(&args),
        Command::Who(args) => who::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Ports(args) => ports::run(&args),
        Command::Nc(args) => nc::run(&args),
        Command::Psid(args) => psid::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Attendant(args) => attendant::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // `pearp arp | head` is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell if standard error is closed.
            let _ = writeln!(io::stderr(), "pearp: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn start_logging(verbose: u8) {
    let level = match verbose {
        0 => Level::INFO,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let terminal = io::IsTerminal::is_terminal(&io::stderr());
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(terminal)
        .with_target(false)
        .init();
}

//! `meter`: the measurements of `scripts/bench` that need microseconds. One end serves, the other one asks.
//!
//! A TCP client says with its first byte what it wants; UDP datagrams are echoed, or start a paced stream.
//! Each client prints one line of JSON.

#![allow(clippy::print_stdout, reason = "this is a program")]

mod client;
mod server;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// What the first byte of a TCP connection asks for.
mod ask {
    /// Every byte comes back at once.
    pub(crate) const ECHO: u8 = b'e';
    /// A UDP port to flood; when the flood has ended, a line of JSON with what arrived.
    pub(crate) const FLOOD: u8 = b'f';
    /// Bytes of [`super::pattern`] until the client has had enough.
    pub(crate) const STREAM: u8 = b's';
}

/// The first byte of a datagram that asks for a paced stream; the second one says for how many seconds.
const PACED: u8 = b'p';
/// Between two datagrams of a paced stream.
const PACE: Duration = Duration::from_millis(1);
/// Payload of the datagrams of a flood.
const SMALL: usize = 64;
/// A flood has ended when nothing arrives for as long as this.
const SILENCE: Duration = Duration::from_millis(300);

/// The byte at a position of a stream: one that is lost, doubled or out of order shows.
fn pattern(position: u64) -> u8 {
    (position % 251) as u8
}

/// Measures packets in microseconds, for scripts/bench.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve TCP and UDP at PORT, and close each connection to PORT+1 at once
    Serve {
        /// The address and the lower port, for example 0.0.0.0:5300
        address: SocketAddr,
    },
    /// Request and response of one byte over one TCP connection: microseconds
    Latency {
        /// Where `serve` is
        server: SocketAddr,
        /// For how long
        seconds: f64,
    },
    /// Connections one after the other, each closed by the server: how many in a second
    Connect {
        /// Where `serve` is
        server: SocketAddr,
        /// For how long
        seconds: f64,
    },
    /// Datagrams of 64 bytes as fast as they can be sent: how many arrive in a second
    Flood {
        /// Where `serve` is
        server: SocketAddr,
        /// For how long
        seconds: f64,
    },
    /// What the first datagram to each server takes longer than those after it
    First {
        /// Where `serve` is
        #[arg(required = true)]
        servers: Vec<SocketAddr>,
    },
    /// The longest silence of a TCP transfer and of a UDP stream, both from the server
    Gap {
        /// Where `serve` is
        server: SocketAddr,
        /// For how long
        seconds: u8,
    },
}

fn main() -> anyhow::Result<()> {
    let shown = match Args::parse().command {
        Command::Serve { address } => return server::serve(address).context("cannot serve"),
        Command::Latency { server, seconds } => client::latency(server, seconds),
        Command::Connect { server, seconds } => client::connect(server, seconds),
        Command::Flood { server, seconds } => client::flood(server, seconds),
        Command::First { servers } => client::first(&servers),
        Command::Gap { server, seconds } => client::gap(server, seconds),
    }?;
    println!("{shown}");
    Ok(())
}

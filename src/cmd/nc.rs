//! `pearp nc`: a connection from the host's own stack.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::thread;

use clap::Args;

use super::{Node, client};
use crate::runtime::Request;

const EXAMPLES: &str = "Example:
  echo hello | ip netns exec lab-h1 pearp nc 203.0.113.80 80

The source port is taken at random from the host's stack part (`pearp status` shows it), by sockets that run in
the host process. The programs of the host use the kernel's sockets and the rest of the set.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct NcArgs {
    #[command(flatten)]
    node: Node,
    /// IPv4 address to connect to
    host: Ipv4Addr,
    /// TCP port to connect to
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
}

pub(super) fn run(args: &NcArgs) -> anyhow::Result<()> {
    let (value, mut incoming) =
        client::ask(&args.node, &Request::Connect { address: args.host, port: args.port })?;
    tracing::debug!(source_port = %value["source_port"], "connected");
    let mut outgoing = incoming.get_ref().try_clone()?;
    // Ends with the process, also while it waits for input.
    thread::spawn(move || {
        let copied = io::copy(&mut io::stdin().lock(), &mut outgoing);
        // The peer may have closed first: then there is nothing to shut down.
        let _ = copied.and_then(|_| outgoing.shutdown(Shutdown::Write));
    });
    let mut out = io::stdout().lock();
    let mut space = [0; 16 * 1024];
    loop {
        match incoming.read(&mut space)? {
            0 => return Ok(()),
            len => {
                out.write_all(&space[..len])?;
                out.flush()?;
            }
        }
    }
}

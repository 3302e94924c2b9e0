//! What node processes have in common: options, links, readiness.

use std::env;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::RawFd;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::{Map, Value, json};
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use crate::link::{Capture, Device, DeviceName, Link, OffloadMode, Offloads, OpenError, inherited};
use crate::neighbor::Config;
use crate::node::Counters;
use crate::runtime::{Clock, ControlSocket, IoMode, Sandbox, SandboxMode, control_path};
pub(super) use crate::wire::written as shown;
use crate::wire::{Medium, is_station, pe_arp};

/// The default of `--sandbox`.
const SANDBOX_VARIABLE: &str = "PEARP_SANDBOX";

/// The least MTU of a link, in bytes: every host takes datagrams of this size (RFC 791 §3.1).
pub(super) const MIN_MTU: u16 = 576;

/// Options of every node process.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Control socket [default: NETNS.sock in /run/pearp/control, or under $PEARP_RUN]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Write `ready NAME` to this file descriptor when the node serves
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(RawFd).range(3..))]
    ready_fd: Option<RawFd>,
    /// Record every frame of the LAN in this pcap file
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Largest IP packet of the links, in bytes
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u16).range(i64::from(MIN_MTU)..))]
    mtu: u16,
    /// Take super-frames and open checksums from the kernel and pass them on in one piece, as far as it has these
    /// offloads: `on`; or have frames of wire size: `off`
    #[arg(long, value_name = "on|off", default_value = "on")]
    offload: OffloadMode,
    /// How frames of devices are read and written: `auto`, many at a time by io_uring, where the kernel has it; or
    /// `single`, one in each system call
    #[arg(long, value_name = "auto|single", default_value = "auto", hide = true)]
    pub(super) io: IoMode,
    /// What the node may do when everything is open: `on`, no more than it needs; `kill`, the same, and it is killed where it
    /// wants more; `off`, for debuggers, whatever it could before [default: $PEARP_SANDBOX, or on]
    #[arg(long, value_name = "on|kill|off")]
    sandbox: Option<SandboxMode>,
    /// ar$pro of PE-ARP messages
    #[arg(long, value_name = "NUMBER", default_value = "0x88B5", value_parser = parse_pro, hide = true)]
    pub(super) pro: u16,
}

impl ServeArgs {
    pub(super) fn mtu(&self) -> usize {
        self.mtu.into()
    }

    pub(super) fn bind(&self) -> anyhow::Result<ControlSocket> {
        ControlSocket::bind(&self.socket.clone().unwrap_or_else(control_path))
    }

    /// The descriptor of `--ready-fd`, in the hands of this process alone. To be called before another one could have its
    /// number.
    pub(super) fn ready(&self) -> Option<Ready> {
        let fd = self.ready_fd?;
        match inherited(fd) {
            Ok(own) => {
                // There is another one for it now.
                let _ = nix::unistd::close(fd);
                Some(Ready { file: own.into(), fd })
            }
            Err(error) => {
                tracing::warn!(fd, %error, "cannot use the file descriptor of --ready-fd");
                None
            }
        }
    }

    /// What a node needs when everything is open: its control socket, directories in which it writes files, a child.
    pub(super) fn sandbox(
        &self,
        control: &ControlSocket,
        files: Vec<PathBuf>,
        child: Option<u32>,
    ) -> anyhow::Result<Sandbox> {
        let mode = match (self.sandbox, env::var(SANDBOX_VARIABLE)) {
            (Some(mode), _) => mode,
            (None, Ok(text)) => {
                text.parse().map_err(|error: String| anyhow!("${SANDBOX_VARIABLE}: {error}"))?
            }
            (None, Err(_)) => SandboxMode::On,
        };
        Ok(Sandbox { mode, control: control.directory(), files, child })
    }

    /// Opens a device.
    pub(super) fn open(&self, device: &DeviceName, medium: Medium) -> Result<Box<dyn Link>, OpenError> {
        Ok(Box::new(Device::open(device, medium, self.offload)?))
    }

    /// Opens a LAN device, recorded where that is asked for.
    pub(super) fn open_lan(&self, device: &DeviceName, clock: &Clock) -> anyhow::Result<Box<dyn Link>> {
        let link = self.open(device, Medium::Ethernet)?;
        let Some(path) = &self.capture else { return Ok(link) };
        let file =
            File::create(path).with_context(|| format!("cannot write the capture {}", path.display()))?;
        Ok(Box::new(Capture::new(link, BufWriter::new(file), clock.epoch())?))
    }
}

fn parse_pro(text: &str) -> Result<u16, String> {
    let number =
        text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u16::from_str_radix(hex, 16).ok());
    // Below 0x0600 an EtherType is a length, and 0x0800 is plain ARP's.
    let valid = number.filter(|number| *number >= 0x0600 && *number != 0x0800);
    valid.ok_or_else(|| {
        format!("`{text}` is no EtherType that PE-ARP could use, like {:#06x}", pe_arp::DEFAULT_PRO)
    })
}

/// A link-layer address of one host, as `02:00:00:00:02:01`.
pub(super) fn parse_hardware(text: &str) -> Result<EthernetAddress, String> {
    let address: EthernetAddress = text.parse().map_err(|()| {
        format!("`{text}` is not a link-layer address: write six bytes as 02:00:00:00:02:01")
    })?;
    if !is_station(address) {
        return Err(format!("`{text}` is not the address of one host: the first byte must be even"));
    }
    Ok(address)
}

/// What whoever started the node waits for.
#[derive(Debug)]
pub(super) struct Ready {
    file: File,
    fd: RawFd,
}

impl Ready {
    /// Tells that the node serves, once.
    pub(super) fn tell(mut self, name: &str) {
        // In one write: other nodes may tell the same pipe at this moment.
        if let Err(error) = self.file.write_all(format!("ready {name}\n").as_bytes()) {
            tracing::warn!(fd = self.fd, %error, "cannot write to the file descriptor of --ready-fd");
        }
        // Whoever waits sees the end of it.
    }
}

/// `counters` and `drops` of a status.
pub(super) fn counters(counters: &Counters) -> (Value, Value) {
    let drops: Map<_, _> =
        counters.drops().map(|(reason, count)| (reason.name().to_owned(), json!(count))).collect();
    let dropped: u64 = counters.drops().map(|(_, count)| count).sum();
    let all = json!({
        "received": counters.received,
        "originated": counters.originated,
        "delivered": counters.delivered,
        "forwarded": counters.forwarded,
        "pending": counters.pending,
        "dropped": dropped,
        "arp_sent": counters.arp_sent,
        "arp_lost": counters.arp_lost,
        "mapped": counters.mapped,
    });
    (all, Value::Object(drops))
}

/// One LAN or outside link of a node with an address of its own, in a status.
pub(super) fn link(name: &str, address: Ipv4Cidr, config: &Config, offloads: Offloads) -> Value {
    let shared: Vec<_> = config.schemes.iter().map(|(ip, scheme)| format!("{ip}={scheme}")).collect();
    json!({
        "link": name,
        "address": address.address(),
        "prefix_len": address.prefix_len(),
        "link_address": shown(config.hardware),
        "role": if config.pe { "lan" } else { "outside" },
        "shared": shared,
        "offload": offloads.to_string(),
    })
}

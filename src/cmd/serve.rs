//! What node processes have in common: options, links, readiness.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value, json};
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use crate::link::{Capture, Device, DeviceName, Link, OffloadMode, Offloads, OpenError};
use crate::neighbor::Config;
use crate::node::Counters;
use crate::runtime::{Clock, ControlSocket, IoMode, control_path};
use crate::wire::{Medium, is_station, pe_arp};

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
    pub(super) ready_fd: Option<RawFd>,
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

/// Tells whoever started the node that it serves.
pub(super) fn tell_ready(fd: RawFd, name: &str) {
    let told = fs::OpenOptions::new().write(true).open(Path::new("/proc/self/fd").join(fd.to_string()));
    // In one write: other nodes may tell the same pipe at this moment.
    let line = format!("ready {name}\n");
    if let Err(error) = told.and_then(|mut file| file.write_all(line.as_bytes())) {
        tracing::warn!(fd, %error, "cannot write to the file descriptor of --ready-fd");
    }
    // Whoever waits sees the end of it.
    let _ = nix::unistd::close(fd);
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

/// A link-layer address in the usual notation.
pub(super) fn shown(hardware: EthernetAddress) -> String {
    hardware.to_string().replace('-', ":")
}

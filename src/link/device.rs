//! TAP and TUN devices, in any network namespace. Without offloads through `tun-tap`, one frame of wire size per
//! system call; with them a virtio-net header stands in front of each frame, and a super-frame of up to 64 KiB
//! crosses in one call. A ring moves many of either kind in one call.

use core::fmt;
use core::str::FromStr;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::libc::{IFF_NO_PI, IFF_TAP, IFF_TUN, IFF_VNET_HDR, O_NONBLOCK};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sched::{CloneFlags, setns};
use smoltcp::time::Instant;
use tun_tap::{Iface, Mode};

use super::framing::Framing;
use super::{Link, OffloadMode, Offloads, RingPort, inherited, ioctl};
use crate::wire::{Frame, Medium, VIRTIO_NET_HEADER};

/// The driver.
const TUN_DRIVER: &str = "/dev/net/tun";

/// Where `ip netns` keeps its namespaces.
const NETNS_DIR: &str = "/run/netns";

/// The longest interface name that Linux takes, in bytes.
const MAX_NAME: usize = 15;

/// The lowest descriptor that a device may have: those below are standard input, output and error.
const FIRST_INHERITED: RawFd = 3;

/// How long to wait for a carrier, and between two looks. The kernel may take a second over it.
const MAX_RUNNING_LOOKS: u32 = 2000;
const RUNNING_LOOK: Duration = Duration::from_millis(1);

/// A device as `[NETNS:]NAME`, or as `fd:N`: a descriptor that is attached to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// By its name.
    Interface {
        /// The namespace, as `ip netns` names it; `None` for the own one.
        netns: Option<String>,
        /// The interface.
        name: String,
    },
    /// Whoever started this process has opened it.
    Inherited(RawFd),
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface { netns: Some(netns), name } => write!(f, "{netns}:{name}"),
            Self::Interface { netns: None, name } => f.write_str(name),
            Self::Inherited(fd) => write!(f, "fd:{fd}"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(number) = text.strip_prefix("fd:") {
            let fd = number.parse().ok().filter(|fd| *fd >= FIRST_INHERITED);
            return fd.map(Self::Inherited).ok_or_else(|| {
                format!("`{text}` is not a descriptor: write fd:N, N from {FIRST_INHERITED} up")
            });
        }
        let (netns, name) = match text.split_once(':') {
            Some((netns, name)) => (Some(netns), name),
            None => (None, text),
        };
        let plain = |part: &str| !part.is_empty() && !part.contains(['/', ':', ' ']);
        if !plain(name) || name.len() > MAX_NAME || netns.is_some_and(|netns| !plain(netns)) {
            return Err(format!(
                "`{text}` is not a device: write NAME, NETNS:NAME or fd:N, NAME of at most {MAX_NAME} bytes"
            ));
        }
        Ok(Self::Interface { netns: netns.map(str::to_owned), name: name.to_owned() })
    }
}

impl DeviceName {
    /// The name of the interface, without that of its namespace.
    ///
    /// # Errors
    /// Where a descriptor is not attached to one.
    pub fn interface(&self) -> Result<String, OpenError> {
        match self {
            Self::Interface { name, .. } => Ok(name.clone()),
            Self::Inherited(fd) => inherited::interface(*fd),
        }
    }
}

/// Why a device could not be opened. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The namespace cannot be entered.
    #[error("cannot enter network namespace `{netns}`: {error}; `ip netns list` shows those that exist")]
    Netns {
        /// Its name.
        netns: String,
        /// Why.
        error: io::Error,
    },
    /// No such interface.
    #[error("no device `{device}`: create it with `ip{} tuntap add {name} mode {mode}`", in_netns(.device))]
    Missing {
        /// Which.
        device: DeviceName,
        /// Its interface.
        name: String,
        /// `tap` or `tun`.
        mode: &'static str,
    },
    /// The kernel has no TUN/TAP driver.
    #[error("/dev/net/tun is missing: load it with `modprobe tun`")]
    NoDriver,
    /// No privilege.
    #[error("no permission to open `{0}`: run as root, or make the device with `user`")]
    Permission(DeviceName),
    /// Another process holds it.
    #[error("`{0}` is in use: another process is attached to it")]
    Busy(DeviceName),
    /// Not a device of this kind.
    #[error("`{device}` is not a single-queue {mode} device")]
    Kind {
        /// Which.
        device: DeviceName,
        /// `tap` or `tun`.
        mode: &'static str,
    },
    /// Nothing was inherited under this number.
    #[error("descriptor {0} is not open: whoever starts this process must leave it open for it")]
    NotOpen(RawFd),
    /// It is something else, or a TUN/TAP that is no device yet.
    #[error(
        "descriptor {0} is not attached to a TUN or TAP: open /dev/net/tun and attach it (TUNSETIFF) before"
    )]
    NotAttached(RawFd),
    /// It cannot be used as it was attached.
    #[error("descriptor {fd} (`{interface}`) {problem}")]
    Attached {
        /// Which.
        fd: RawFd,
        /// What it is attached to.
        interface: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Anything else.
    #[error("cannot open `{device}`: {error}")]
    Other {
        /// Which.
        device: DeviceName,
        /// Why.
        error: io::Error,
    },
}

fn in_netns(device: &DeviceName) -> String {
    match device {
        DeviceName::Interface { netns: Some(netns), .. } => format!(" -n {netns}"),
        _ => String::new(),
    }
}

// TUN_F_* of linux/if_tun.h: what the reader of a device takes.
const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_TSO_ECN: u32 = 0x08;
const TUN_F_USO4: u32 = 0x20;
const TUN_F_USO6: u32 = 0x40;

/// What to ask for, the best first. TSO needs checksums, and USO (Linux 6.2) is for both versions of IP or for none.
const STEPS: [(u32, Offloads); 3] = [
    (
        TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6,
        Offloads { checksum: true, tcp: true, ecn: true, udp: true },
    ),
    (
        TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
        Offloads { checksum: true, tcp: true, ecn: true, udp: false },
    ),
    (TUN_F_CSUM, Offloads { checksum: true, tcp: false, ecn: false, udp: false }),
];

/// An open TAP or TUN.
#[derive(Debug)]
pub struct Device {
    file: DeviceFile,
    medium: Medium,
    offloads: Offloads,
}

/// How frames look to the driver.
#[derive(Debug)]
pub(super) enum DeviceFile {
    /// As they are.
    Plain(Iface),
    /// As they are, by a descriptor that was inherited.
    PlainInherited(File),
    /// Behind a virtio-net header.
    VirtioNet(File),
}

impl Device {
    /// Attaches to an existing device, so that it and its addresses outlive the process; or takes over a descriptor that is
    /// attached.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(device: &DeviceName, medium: Medium, mode: OffloadMode) -> Result<Self, OpenError> {
        match device {
            DeviceName::Interface { netns: None, name } => Self::open_here(device, name, medium, mode),
            // The namespace belongs to the thread, and the descriptor stays valid after its end.
            DeviceName::Interface { netns: Some(netns), name } => thread::scope(|scope| {
                let opened = scope.spawn(|| {
                    enter(netns).map_err(|error| OpenError::Netns { netns: netns.clone(), error })?;
                    Self::open_here(device, name, medium, mode)
                });
                opened.join().unwrap_or_else(|_| {
                    let error = io::Error::other("the opening thread failed");
                    Err(OpenError::Other { device: device.clone(), error })
                })
            }),
            DeviceName::Inherited(fd) => {
                let (interface, file, offloads) = inherited::open(*fd, medium, mode)?;
                if medium == Medium::Ethernet {
                    // Where the interface is in another namespace, this cannot be seen.
                    await_running(&interface);
                }
                Ok(Self { file, medium, offloads })
            }
        }
    }

    fn open_here(
        device: &DeviceName,
        name: &str,
        medium: Medium,
        mode: OffloadMode,
    ) -> Result<Self, OpenError> {
        let kind = kind(medium);
        // Opening a name that does not exist would make a device that nothing is connected to.
        if if_nametoindex(name).is_err() {
            return Err(OpenError::Missing { device: device.clone(), name: name.to_owned(), mode: kind });
        }
        let opened = match mode {
            OffloadMode::On => open_with_offloads(name, medium),
            OffloadMode::Off => open_plain(name, medium),
        };
        let (file, offloads) = opened.map_err(|error: io::Error| match error.raw_os_error() {
            Some(libc_enoent) if libc_enoent == nix::errno::Errno::ENOENT as i32 => OpenError::NoDriver,
            Some(code) if code == nix::errno::Errno::EBUSY as i32 => OpenError::Busy(device.clone()),
            Some(code) if code == nix::errno::Errno::EINVAL as i32 => {
                OpenError::Kind { device: device.clone(), mode: kind }
            }
            _ if error.kind() == io::ErrorKind::PermissionDenied => OpenError::Permission(device.clone()),
            _ => OpenError::Other { device: device.clone(), error },
        })?;
        if medium == Medium::Ethernet {
            await_running(name);
        }
        Ok(Self { file, medium, offloads })
    }
}

/// As `ip tuntap` calls it.
pub(super) fn kind(medium: Medium) -> &'static str {
    match medium {
        Medium::Ethernet => "tap",
        Medium::Ip => "tun",
    }
}

fn open_plain(name: &str, medium: Medium) -> io::Result<(DeviceFile, Offloads)> {
    let mode = match medium {
        Medium::Ethernet => Mode::Tap,
        Medium::Ip => Mode::Tun,
    };
    let iface = Iface::without_packet_info(name, mode)?;
    iface.set_non_blocking()?;
    // The device remembers what an earlier process took, and would hand over super-frames without a header.
    ioctl::set_offload(&iface, 0)?;
    Ok((DeviceFile::Plain(iface), Offloads::default()))
}

fn open_with_offloads(name: &str, medium: Medium) -> io::Result<(DeviceFile, Offloads)> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open(TUN_DRIVER)?;
    let kind = match medium {
        Medium::Ethernet => IFF_TAP,
        Medium::Ip => IFF_TUN,
    };
    ioctl::attach(&file, name, kind | IFF_NO_PI | IFF_VNET_HDR)?;
    let offloads = set_offloads(&file, OffloadMode::On)?;
    Ok((DeviceFile::VirtioNet(file), offloads))
}

/// Agrees with the driver on headers, and on the best offloads that it has; or on none.
pub(super) fn set_offloads(file: &File, mode: OffloadMode) -> io::Result<Offloads> {
    // The device remembers these from an earlier process.
    ioctl::set_header(file, VIRTIO_NET_HEADER)?;
    let steps = if mode == OffloadMode::On { &STEPS[..] } else { &[] };
    for (flags, offloads) in steps {
        match ioctl::set_offload(file, *flags) {
            Ok(()) => return Ok(*offloads),
            Err(error) => tracing::debug!(flags, %error, "the kernel has fewer offloads"),
        }
    }
    ioctl::set_offload(file, 0)?;
    Ok(Offloads::default())
}

/// Waits until the kernel has told the bridge that the device has a carrier now, a moment after it was attached.
/// What is sent before that is lost, and the one PROBE of a host would be among it.
fn await_running(name: &str) {
    for _ in 0..MAX_RUNNING_LOOKS {
        let flags = getifaddrs().ok().and_then(|mut all| all.find(|one| one.interface_name == name));
        match flags.map(|one| one.flags) {
            // A device that is down gets no carrier.
            Some(flags)
                if flags.contains(InterfaceFlags::IFF_UP) && !flags.contains(InterfaceFlags::IFF_RUNNING) =>
            {
                thread::sleep(RUNNING_LOOK);
            }
            _ => return,
        }
    }
}

fn enter(netns: &str) -> io::Result<()> {
    let namespace = File::open(Path::new(NETNS_DIR).join(netns))?;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

impl Device {
    fn framing(&self) -> Framing {
        Framing { medium: self.medium, virtio_net: matches!(self.file, DeviceFile::VirtioNet(_)) }
    }
}

impl Link for Device {
    fn medium(&self) -> Medium {
        self.medium
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn receive(&mut self, frame: &mut Frame, _now: Instant) -> io::Result<()> {
        let space = self.framing().space(frame);
        let len = match &mut self.file {
            DeviceFile::Plain(iface) => iface.recv(space)?,
            DeviceFile::PlainInherited(file) | DeviceFile::VirtioNet(file) => file.read(space)?,
        };
        self.framing().received(frame, len);
        Ok(())
    }

    fn send(&mut self, frame: &Frame, _now: Instant) -> io::Result<()> {
        match &self.file {
            DeviceFile::Plain(iface) => iface.send(frame.bytes()).map(drop),
            DeviceFile::PlainInherited(file) => {
                let mut file: &File = file;
                file.write(frame.bytes()).map(drop)
            }
            DeviceFile::VirtioNet(file) => {
                let header = frame.offload.emit(self.medium);
                let mut file: &File = file;
                file.write_vectored(&[IoSlice::new(&header), IoSlice::new(frame.bytes())]).map(drop)
            }
        }
    }

    fn fd(&self) -> Option<RawFd> {
        Some(match &self.file {
            DeviceFile::Plain(iface) => iface.as_raw_fd(),
            DeviceFile::PlainInherited(file) | DeviceFile::VirtioNet(file) => file.as_raw_fd(),
        })
    }

    fn ring_port(&self) -> Option<RingPort> {
        Some(RingPort { fd: self.fd()?, framing: self.framing() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let device: DeviceName = "lab-lan:h1".parse().unwrap();
        let of_lab = DeviceName::Interface { netns: Some("lab-lan".to_owned()), name: "h1".to_owned() };
        assert_eq!((&device, device.to_string()), (&of_lab, "lab-lan:h1".to_owned()));
        assert_eq!(device.interface().unwrap(), "h1");
        let here = DeviceName::Interface { netns: None, name: "pe0".to_owned() };
        assert_eq!("pe0".parse(), Ok(here));
        let inherited: DeviceName = "fd:3".parse().unwrap();
        assert_eq!((&inherited, inherited.to_string()), (&DeviceName::Inherited(3), "fd:3".to_owned()));
        for bad in
            ["", ":", "a:", ":b", "a:b:c", "../x:y", "0123456789abcdef", "a b", "fd:2", "fd:-1", "fd:x"]
        {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_device_says_how_to_make_it() {
        let device: DeviceName = "nosuchtap0".parse().unwrap();
        let error = Device::open(&device, Medium::Ethernet, OffloadMode::On).unwrap_err().to_string();
        assert_eq!(error, "no device `nosuchtap0`: create it with `ip tuntap add nosuchtap0 mode tap`");
        let device: DeviceName = "no-such-netns:tap0".parse().unwrap();
        let error = Device::open(&device, Medium::Ethernet, OffloadMode::On).unwrap_err().to_string();
        assert!(error.starts_with("cannot enter network namespace `no-such-netns`"), "{error}");
    }
}

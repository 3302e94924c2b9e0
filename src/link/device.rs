//! TAP and TUN devices, in any network namespace, through `tun-tap`: one frame of wire size per system call.

use core::fmt;
use core::str::FromStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sched::{CloneFlags, setns};
use smoltcp::time::Instant;
use tun_tap::{Iface, Mode};

use super::Link;
use crate::wire::{Frame, Medium};

/// Where `ip netns` keeps its namespaces.
const NETNS_DIR: &str = "/run/netns";

/// The longest interface name that Linux takes, in bytes.
const MAX_NAME: usize = 15;

/// How long to wait for a carrier, and between two looks. The kernel may take a second over it.
const MAX_RUNNING_LOOKS: u32 = 2000;
const RUNNING_LOOK: Duration = Duration::from_millis(1);

/// A device as `[NETNS:]NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName {
    /// The namespace, as `ip netns` names it; `None` for the own one.
    pub netns: Option<String>,
    /// The interface.
    pub name: String,
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.netns {
            Some(netns) => write!(f, "{netns}:{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (netns, name) = match text.split_once(':') {
            Some((netns, name)) => (Some(netns), name),
            None => (None, text),
        };
        let plain = |part: &str| !part.is_empty() && !part.contains(['/', ':', ' ']);
        if !plain(name) || name.len() > MAX_NAME || netns.is_some_and(|netns| !plain(netns)) {
            return Err(format!(
                "`{text}` is not a device: write NAME or NETNS:NAME, NAME of at most {MAX_NAME} bytes"
            ));
        }
        Ok(Self { netns: netns.map(str::to_owned), name: name.to_owned() })
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
    #[error("no device `{device}`: create it with `ip{} tuntap add {} mode {mode}`", in_netns(.device), .device.name)]
    Missing {
        /// Which.
        device: DeviceName,
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
    device.netns.as_ref().map_or_else(String::new, |netns| format!(" -n {netns}"))
}

/// An open TAP or TUN.
#[derive(Debug)]
pub struct Device {
    iface: Iface,
    medium: Medium,
}

impl Device {
    /// Attaches to an existing device, so that it and its addresses outlive the process.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(device: &DeviceName, medium: Medium) -> Result<Self, OpenError> {
        match &device.netns {
            None => Self::open_here(device, medium),
            // The namespace belongs to the thread, and the descriptor stays valid after its end.
            Some(netns) => thread::scope(|scope| {
                let opened = scope.spawn(|| {
                    enter(netns).map_err(|error| OpenError::Netns { netns: netns.clone(), error })?;
                    Self::open_here(device, medium)
                });
                opened.join().unwrap_or_else(|_| {
                    let error = io::Error::other("the opening thread failed");
                    Err(OpenError::Other { device: device.clone(), error })
                })
            }),
        }
    }

    fn open_here(device: &DeviceName, medium: Medium) -> Result<Self, OpenError> {
        let (mode, mode_name) = match medium {
            Medium::Ethernet => (Mode::Tap, "tap"),
            Medium::Ip => (Mode::Tun, "tun"),
        };
        // Opening a name that does not exist would make a device that nothing is connected to.
        if if_nametoindex(device.name.as_str()).is_err() {
            return Err(OpenError::Missing { device: device.clone(), mode: mode_name });
        }
        let open = || {
            let iface = Iface::without_packet_info(&device.name, mode)?;
            iface.set_non_blocking()?;
            Ok(iface)
        };
        let iface = open().map_err(|error: io::Error| match error.raw_os_error() {
            Some(libc_enoent) if libc_enoent == nix::errno::Errno::ENOENT as i32 => OpenError::NoDriver,
            Some(code) if code == nix::errno::Errno::EBUSY as i32 => OpenError::Busy(device.clone()),
            Some(code) if code == nix::errno::Errno::EINVAL as i32 => {
                OpenError::Kind { device: device.clone(), mode: mode_name }
            }
            _ if error.kind() == io::ErrorKind::PermissionDenied => OpenError::Permission(device.clone()),
            _ => OpenError::Other { device: device.clone(), error },
        })?;
        if medium == Medium::Ethernet {
            await_running(&device.name);
        }
        Ok(Self { iface, medium })
    }
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

impl Link for Device {
    fn medium(&self) -> Medium {
        self.medium
    }

    fn receive(&mut self, frame: &mut Frame, _now: Instant) -> io::Result<()> {
        let len = self.iface.recv(frame.space(self.medium))?;
        frame.set_len(len);
        Ok(())
    }

    fn send(&mut self, frame: &Frame, _now: Instant) -> io::Result<()> {
        self.iface.send(frame.bytes()).map(drop)
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.iface.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let device: DeviceName = "lab-lan:h1".parse().unwrap();
        assert_eq!((device.netns.as_deref(), device.name.as_str()), (Some("lab-lan"), "h1"));
        assert_eq!(device.to_string(), "lab-lan:h1");
        assert_eq!("pe0".parse::<DeviceName>().unwrap().netns, None);
        for bad in ["", ":", "a:", ":b", "a:b:c", "../x:y", "0123456789abcdef", "a b"] {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_device_says_how_to_make_it() {
        let device: DeviceName = "nosuchtap0".parse().unwrap();
        let error = Device::open(&device, Medium::Ethernet).unwrap_err().to_string();
        assert_eq!(error, "no device `nosuchtap0`: create it with `ip tuntap add nosuchtap0 mode tap`");
        let device: DeviceName = "no-such-netns:tap0".parse().unwrap();
        let error = Device::open(&device, Medium::Ethernet).unwrap_err().to_string();
        assert!(error.starts_with("cannot enter network namespace `no-such-netns`"), "{error}");
    }
}

//! Devices that whoever started this process has opened for it: so it needs no privilege.

use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_TUN, IFF_VNET_HDR, c_int};

use super::device::{DeviceFile, kind, set_offloads};
use super::{OffloadMode, Offloads, OpenError, ioctl};
use crate::wire::Medium;

/// Takes over a descriptor; the name of its interface as well.
pub(super) fn open(
    fd: RawFd,
    medium: Medium,
    mode: OffloadMode,
) -> Result<(String, DeviceFile, Offloads), OpenError> {
    let (file, interface, flags) = attached(fd)?;
    let problem = |problem| OpenError::Attached { fd, interface: interface.clone(), problem };
    check(flags, medium, mode).map_err(problem)?;
    let set_up = || -> io::Result<(DeviceFile, Offloads)> {
        let status = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(status | OFlag::O_NONBLOCK))?;
        if flags & IFF_VNET_HDR == 0 {
            ioctl::set_offload(&file, 0)?;
            return Ok((DeviceFile::PlainInherited(file), Offloads::default()));
        }
        let offloads = set_offloads(&file, mode)?;
        Ok((DeviceFile::VirtioNet(file), offloads))
    };
    let (file, offloads) = set_up().map_err(|error| problem(format!("cannot be set up: {error}")))?;
    Ok((interface, file, offloads))
}

/// The name of the interface that a descriptor is attached to.
pub(super) fn interface(fd: RawFd) -> Result<String, OpenError> {
    attached(fd).map(|(_, interface, _)| interface)
}

fn attached(fd: RawFd) -> Result<(File, String, c_int), OpenError> {
    let own: OwnedFd = ioctl::inherited(fd).map_err(|error| match error.raw_os_error() {
        Some(code) if code == Errno::EBADF as i32 => OpenError::NotOpen(fd),
        _ => OpenError::Other { device: super::DeviceName::Inherited(fd), error },
    })?;
    let file = File::from(own);
    let (interface, flags) = ioctl::interface(&file).map_err(|_| OpenError::NotAttached(fd))?;
    Ok((file, interface, flags))
}

/// Whether a device that was attached with these IFF_* flags can be used; else what is wrong.
fn check(flags: c_int, medium: Medium, mode: OffloadMode) -> Result<(), String> {
    let wanted = match medium {
        Medium::Ethernet => IFF_TAP,
        Medium::Ip => IFF_TUN,
    };
    if flags & (IFF_TAP | IFF_TUN) != wanted {
        let other = if medium == Medium::Ethernet { Medium::Ip } else { Medium::Ethernet };
        return Err(format!("is a {}, and a {} is wanted here", kind(other), kind(medium)));
    }
    if flags & IFF_MULTI_QUEUE != 0 {
        return Err("has several queues: make and attach it without IFF_MULTI_QUEUE".to_owned());
    }
    if flags & IFF_NO_PI == 0 {
        return Err("puts packet information in front of frames: attach it with IFF_NO_PI".to_owned());
    }
    if flags & IFF_VNET_HDR == 0 && mode == OffloadMode::On {
        return Err("has no virtio-net header: attach it with IFF_VNET_HDR, or give --offload off".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_device_must_be_attached_as_it_is_used() {
        let sound = IFF_NO_PI | IFF_VNET_HDR;
        let (tap, tun) = (Medium::Ethernet, Medium::Ip);
        let (on, off) = (OffloadMode::On, OffloadMode::Off);
        for (flags, medium, mode, said) in [
            (IFF_TAP | sound, tap, on, ""),
            (IFF_TAP | sound, tap, off, ""),
            (IFF_TUN | sound, tun, on, ""),
            (IFF_TUN | IFF_NO_PI, tun, off, ""),
            (IFF_TUN | sound, tap, on, "is a tun, and a tap is wanted"),
            (IFF_TAP | sound, tun, on, "is a tap, and a tun is wanted"),
            (IFF_TAP | sound | IFF_MULTI_QUEUE, tap, on, "without IFF_MULTI_QUEUE"),
            (IFF_TAP | IFF_VNET_HDR, tap, on, "with IFF_NO_PI"),
            (IFF_TAP | IFF_NO_PI, tap, on, "or give --offload off"),
        ] {
            let problem = check(flags, medium, mode).err().unwrap_or_default();
            assert!(problem.contains(said) && problem.is_empty() == said.is_empty(), "{problem}: {said}");
        }
    }

    #[test]
    fn what_is_no_device_is_said_so() {
        let file = File::open("/dev/null").unwrap();
        let error = open(file.as_raw_fd(), Medium::Ethernet, OffloadMode::On).unwrap_err().to_string();
        assert!(error.ends_with("open /dev/net/tun and attach it (TUNSETIFF) before"), "{error}");
        for fd in [-1, 1 << 20] {
            let error = open(fd, Medium::Ip, OffloadMode::On).unwrap_err().to_string();
            assert!(error.contains("is not open"), "{error}");
        }
    }
}

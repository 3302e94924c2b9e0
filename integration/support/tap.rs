//! Devices that a test opens for a process which may not.

#![allow(
    unsafe_code,
    reason = "no safe crate attaches a TAP with a virtio-net header; a live request is passed"
)]

use std::fs::File;

use nix::libc::{IFNAMSIZ, c_int, c_short};

use super::lab::Lab;

/// `struct ifreq` of linux/if.h.
#[repr(C)]
struct Request {
    name: [u8; IFNAMSIZ],
    flags: c_short,
    _other: [u8; 22],
}

mod request {
    nix::ioctl_write_ptr_bad!(
        set_interface,
        nix::request_code_write!(b'T', 202, size_of::<super::c_int>()),
        super::Request
    );
}

/// Attaches to a device in the namespace of a node, with IFF_* flags.
#[track_caller]
pub(crate) fn open_device(lab: &Lab, node: &str, name: &str, flags: c_int) -> File {
    lab.inside(node, || {
        let file = File::options().read(true).write(true).open("/dev/net/tun").expect("there is a driver");
        let mut request = Request { name: [0; IFNAMSIZ], flags: flags as c_short, _other: [0; 22] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: the request is a live `struct ifreq`.
        unsafe { request::set_interface(std::os::fd::AsRawFd::as_raw_fd(&file), &raw const request) }
            .expect("nobody else is attached");
        file
    })
}

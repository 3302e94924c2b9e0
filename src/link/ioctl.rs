//! The requests of the TUN/TAP driver that `tun-tap` does not make, and descriptors that this process was started with.

#![allow(unsafe_code, reason = "no safe crate makes these requests; each passes a value or a live reference")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc::{IFNAMSIZ, c_int, c_short};

/// `struct ifreq` of linux/if.h, as TUNSETIFF reads and writes it.
#[repr(C)]
pub(super) struct InterfaceRequest {
    name: [u8; IFNAMSIZ],
    flags: c_short,
    /// The rest of the union.
    _other: [u8; 22],
}

mod request {
    use super::{InterfaceRequest, c_int};

    nix::ioctl_write_ptr_bad!(
        set_interface,
        nix::request_code_write!(b'T', 202, size_of::<c_int>()),
        InterfaceRequest
    );
    nix::ioctl_write_int!(set_offload, b'T', 208);
    nix::ioctl_read_bad!(
        interface,
        nix::request_code_read!(b'T', 210, size_of::<core::ffi::c_uint>()),
        InterfaceRequest
    );
    nix::ioctl_write_ptr!(set_header_len, b'T', 216, c_int);
    nix::ioctl_write_ptr!(set_little_endian, b'T', 220, c_int);
}

/// TUNSETIFF: attaches to the interface `name`, with IFF_* flags.
pub(super) fn attach(device: &impl AsRawFd, name: &str, flags: c_int) -> io::Result<()> {
    let mut request = InterfaceRequest { name: [0; IFNAMSIZ], flags: flags as c_short, _other: [0; 22] };
    // The name ends with a zero.
    let target = request.name[..IFNAMSIZ - 1].get_mut(..name.len()).ok_or(io::ErrorKind::InvalidInput)?;
    target.copy_from_slice(name.as_bytes());
    // SAFETY: the request is a live `struct ifreq`, of which the driver reads and writes no more than there is.
    unsafe { request::set_interface(device.as_raw_fd(), &raw mut request) }?;
    Ok(())
}

/// TUNSETVNETHDRSZ and TUNSETVNETLE: virtio-net headers have `len` bytes and are little-endian.
pub(super) fn set_header(device: &impl AsRawFd, len: usize) -> io::Result<()> {
    let len = c_int::try_from(len).map_err(io::Error::other)?;
    let little_endian: c_int = 1;
    // SAFETY: the driver reads one int through a live reference.
    unsafe { request::set_header_len(device.as_raw_fd(), &raw const len) }?;
    // SAFETY: as above.
    unsafe { request::set_little_endian(device.as_raw_fd(), &raw const little_endian) }?;
    Ok(())
}

/// TUNSETOFFLOAD: what the reader of the device takes, as TUN_F_*.
pub(super) fn set_offload(device: &impl AsRawFd, flags: u32) -> io::Result<()> {
    // SAFETY: the argument is a value.
    unsafe { request::set_offload(device.as_raw_fd(), flags.into()) }?;
    Ok(())
}

/// TUNGETIFF: the interface that a descriptor is attached to, with its IFF_* flags.
pub(super) fn interface(device: &impl AsRawFd) -> io::Result<(String, c_int)> {
    let mut request = InterfaceRequest { name: [0; IFNAMSIZ], flags: 0, _other: [0; 22] };
    // SAFETY: the driver writes one `struct ifreq` through a live reference.
    unsafe { request::interface(device.as_raw_fd(), &raw mut request) }?;
    let name = request.name.split(|byte| *byte == 0).next().unwrap_or_default();
    // Flags are 16 bits, of which the highest is none of the sign.
    Ok((String::from_utf8_lossy(name).into_owned(), c_int::from(request.flags as u16)))
}

/// A descriptor for what `fd` was opened for when this process was started. `fd` itself is for no child of this process.
///
/// # Errors
/// Where it is not open.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(nix::libc::EBADF));
    }
    // SAFETY: the kernel is asked about a number; where no descriptor has it, or another one than the caller thinks, it
    // says so, or gives a duplicate. Nothing is closed or kept.
    let given = unsafe { BorrowedFd::borrow_raw(fd) };
    let own = fcntl(given, FcntlArg::F_DUPFD_CLOEXEC(0))?;
    fcntl(given, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(own) })
}

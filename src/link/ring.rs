//! Many reads and writes of devices in one system call, by io_uring.
//!
//! With RWF_NOWAIT every request is over when the call returns (O_NONBLOCK alone would leave a read with the kernel
//! until a frame comes): nothing stays there between calls. That keeps buffers in safe hands, and a device that a
//! killed process held is free at once; multishot reads and registered files would be taken down some time after the
//! end of the process.

#![allow(
    unsafe_code,
    reason = "the kernel is given addresses of buffers; `Ring::run` says why they stay valid"
)]

use std::io;
use std::os::fd::RawFd;
use std::process;

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, types};
use nix::libc::{EAGAIN, EBUSY, EINTR, RWF_NOWAIT};

use super::framing::Framing;
use crate::node::LinkId;
use crate::wire::{Frame, Medium};

/// Jobs that a ring takes at a time.
const ENTRIES: u32 = 256;

/// A device as a ring sees it.
#[derive(Clone, Copy, Debug)]
pub struct RingPort {
    pub(super) fd: RawFd,
    pub(super) framing: Framing,
}

impl RingPort {
    /// A descriptor whose messages are frames, with nothing in front of them.
    pub fn plain(fd: RawFd, medium: Medium) -> Self {
        Self { fd, framing: Framing { medium, virtio_net: false } }
    }
}

/// A frame that is read or written.
#[derive(Debug)]
pub struct Job {
    /// The frame. A write may add to what is in front of it.
    pub frame: Frame,
    link: LinkId,
    port: RingPort,
    /// As the system call has it.
    result: i32,
}

impl Job {
    /// A job of no link yet, with a buffer that takes any frame.
    pub fn idle() -> Self {
        Self {
            frame: Frame::buffer(),
            link: LinkId(0),
            port: RingPort::plain(-1, Medium::Ethernet),
            result: 0,
        }
    }

    /// Makes it a job of this link.
    pub fn set(&mut self, link: LinkId, port: RingPort) {
        (self.link, self.port) = (link, port);
    }

    /// Whose job it is.
    pub fn link(&self) -> LinkId {
        self.link
    }

    /// What became of it.
    ///
    /// # Errors
    /// As [`super::Link::receive`] and [`super::Link::send`].
    pub fn result(&self) -> io::Result<()> {
        if self.result < 0 { Err(io::Error::from_raw_os_error(-self.result)) } else { Ok(()) }
    }
}

/// An io_uring.
pub struct Ring(IoUring);

impl Ring {
    /// Most jobs in one call.
    pub const MAX_JOBS: usize = ENTRIES as usize;

    /// A ring, which belongs to this thread.
    ///
    /// # Errors
    /// Where the kernel has none, or it is forbidden. A kernel that knows these flags is Linux 6.6 or later, and has
    /// devices that take RWF_NOWAIT.
    pub fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_no_sqarray();
        let ring = builder.setup_r_disabled().build(ENTRIES)?;
        // Whatever gets hold of this process reads and writes by it, and opens and connects nothing: a ring asks no
        // seccomp filter.
        let mut allowed = [opcode::Read::CODE, opcode::Write::CODE].map(Restriction::sqe_op);
        ring.submitter().register_restrictions(&mut allowed)?;
        ring.submitter().register_enable_rings()?;
        Ok(Self(ring))
    }

    /// Does all writes, and then all reads, in this order. There are at most [`Ring::MAX_JOBS`].
    pub fn run(&mut self, writes: &mut [Job], reads: &mut [Job]) {
        let first_read = writes.len();
        for (number, job) in writes.iter_mut().enumerate() {
            let bytes = job.port.framing.bytes(&mut job.frame);
            let write = opcode::Write::new(types::Fd(job.port.fd), bytes.as_ptr(), bytes.len() as u32)
                .rw_flags(RWF_NOWAIT);
            self.push(&write.build().user_data(number as u64));
        }
        for (number, job) in reads.iter_mut().enumerate() {
            let space = job.port.framing.space(&mut job.frame);
            let read = opcode::Read::new(types::Fd(job.port.fd), space.as_mut_ptr(), space.len() as u32)
                .rw_flags(RWF_NOWAIT);
            self.push(&read.build().user_data((first_read + number) as u64));
        }
        let mut missing = first_read + reads.len();
        while missing > 0 {
            if let Err(error) = self.0.submit_and_wait(missing)
                && !matches!(error.raw_os_error(), Some(EINTR | EAGAIN | EBUSY))
            {
                tracing::error!(%error, "the kernel does not take back the buffers it was given");
                process::abort();
            }
            for entry in self.0.completion() {
                let number = entry.user_data() as usize;
                let job = match number.checked_sub(first_read) {
                    None => &mut writes[number],
                    Some(number) => &mut reads[number],
                };
                job.result = entry.result();
                missing -= 1;
            }
        }
        for job in reads {
            if let Ok(len) = usize::try_from(job.result) {
                job.port.framing.received(&mut job.frame, len);
            }
        }
    }

    fn push(&mut self, entry: &io_uring::squeue::Entry) {
        // SAFETY: the entry has the address and the length of a buffer in a `Job` that `run` holds exclusively. No
        // buffer moves or is touched before `run` has seen the completions of all entries, and without them it ends
        // the process. No two entries have the same buffer.
        unsafe { self.0.submission().push(entry) }.expect("a caller has no more than MAX_JOBS");
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn frames_cross_in_order_and_nothing_waits() {
        let mut ring = Ring::new().expect("a kernel that lets tests use io_uring");
        let (near, far) = UnixDatagram::pair().unwrap();
        let job = |link, socket: &UnixDatagram, bytes: &[u8]| {
            let mut job = Job::idle();
            job.set(LinkId(link), RingPort::plain(socket.as_raw_fd(), Medium::Ethernet));
            job.frame.space(Medium::Ethernet)[..bytes.len()].copy_from_slice(bytes);
            job.frame.set_len(bytes.len());
            job
        };
        let mut writes = [job(0, &near, b"one"), job(0, &near, b"three"), job(0, &near, b"5")];
        let mut reads = [0; 4].map(|_| job(1, &far, b""));
        for _ in 0..3 {
            ring.run(&mut writes, &mut reads);
            assert!(writes.iter().all(|job| job.result().is_ok()));
            let read: Vec<_> =
                reads.iter().take_while(|job| job.result().is_ok()).map(|job| job.frame.bytes()).collect();
            assert_eq!(read, [&b"one"[..], b"three", b"5"]);
            assert_eq!(reads[3].result().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        let socket = opcode::Socket::new(nix::libc::AF_INET, nix::libc::SOCK_STREAM, 0).build();
        ring.push(&socket);
        ring.0.submit_and_wait(1).unwrap();
        let refused = ring.0.completion().next().map(|entry| entry.result());
        assert_eq!(refused, Some(-nix::libc::EACCES), "it opens nothing");
        drop(far);
        ring.run(&mut writes, &mut []);
        assert!(writes.iter().all(|job| job.result().is_err()), "a lost frame is known to be lost");
    }
}

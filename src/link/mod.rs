//! Links: TAP and TUN devices, queues in memory, a wrapper that records frames, and a ring that moves many frames in
//! one system call.

mod capture;
mod device;
mod framing;
mod inherited;
mod ioctl;
mod memory;
mod offloads;
mod ring;

pub use capture::Capture;
pub use device::{Device, DeviceName, OpenError};
pub use ioctl::inherited;
pub use memory::MemoryLink;
pub use offloads::{OffloadMode, Offloads};
pub use ring::{Job, Ring, RingPort};

use std::io;
use std::os::fd::RawFd;

use smoltcp::time::Instant;

use crate::wire::{Frame, Medium};

/// What carries frames. Neither call blocks.
pub trait Link {
    /// What the link carries.
    fn medium(&self) -> Medium;

    /// Which frames it takes that are not of wire size; [`crate::wire::Segments`] cuts the others.
    fn offloads(&self) -> Offloads;

    /// Reads a frame into the buffer.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where none is there; others where the device fails.
    fn receive(&mut self, frame: &mut Frame, now: Instant) -> io::Result<()>;

    /// Sends a frame.
    ///
    /// # Errors
    /// Where the device does not take it: the frame is lost, and counted by the caller.
    fn send(&mut self, frame: &Frame, now: Instant) -> io::Result<()>;

    /// What to wait on, if the link has a file descriptor.
    fn fd(&self) -> Option<RawFd>;

    /// How a [`Ring`] reads and writes it, if it may: not where every frame must pass [`Link::receive`] and
    /// [`Link::send`].
    fn ring_port(&self) -> Option<RingPort> {
        None
    }
}

impl Link for Box<dyn Link> {
    fn medium(&self) -> Medium {
        (**self).medium()
    }

    fn offloads(&self) -> Offloads {
        (**self).offloads()
    }

    fn receive(&mut self, frame: &mut Frame, now: Instant) -> io::Result<()> {
        (**self).receive(frame, now)
    }

    fn send(&mut self, frame: &Frame, now: Instant) -> io::Result<()> {
        (**self).send(frame, now)
    }

    fn fd(&self) -> Option<RawFd> {
        (**self).fd()
    }

    fn ring_port(&self) -> Option<RingPort> {
        (**self).ring_port()
    }
}

//! A link without a device: two queues, for tests and for nodes in one process.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};

use smoltcp::time::Instant;

use super::{Link, Offloads};
use crate::wire::{Frame, Medium};

/// Frames that may wait at one end.
const MAX_QUEUE: usize = 1024;

type Queue = Arc<Mutex<VecDeque<Frame>>>;

/// One end of a link in memory.
#[derive(Clone, Debug)]
pub struct MemoryLink {
    medium: Medium,
    offloads: Offloads,
    incoming: Queue,
    outgoing: Queue,
}

impl MemoryLink {
    /// Both ends of a link.
    pub fn pair(medium: Medium, offloads: Offloads) -> (Self, Self) {
        let (a, b) = (Queue::default(), Queue::default());
        let one = Self { medium, offloads, incoming: Arc::clone(&a), outgoing: Arc::clone(&b) };
        (one, Self { medium, offloads, incoming: b, outgoing: a })
    }
}

impl Link for MemoryLink {
    fn medium(&self) -> Medium {
        self.medium
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn receive(&mut self, frame: &mut Frame, _now: Instant) -> io::Result<()> {
        let mut queue = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let from = queue.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        frame.space(self.medium)[..from.len()].copy_from_slice(from.bytes());
        frame.set_len(from.len());
        frame.offload = from.offload;
        Ok(())
    }

    fn send(&mut self, frame: &Frame, _now: Instant) -> io::Result<()> {
        let mut queue = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= MAX_QUEUE {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        queue.push_back(frame.clone());
        Ok(())
    }

    fn fd(&self) -> Option<RawFd> {
        None
    }
}

//! TCP connections of the host's own stack.

use core::net::Ipv4Addr;

use smoltcp::time::Instant;

use super::Host;
use crate::node::stack::{Stack, StackError, StreamId, StreamState};
use crate::wire::icmp::is_host;

impl Host {
    /// Opens a TCP connection from the stack part of the first address.
    ///
    /// # Errors
    /// See [`StackError`].
    pub fn connect(&mut self, to: Ipv4Addr, port: u16, now: Instant) -> Result<StreamId, StackError> {
        if !is_host(to) {
            return Err(StackError::Address);
        }
        let id = self.addresses[0].stack.connect(to, port, &mut self.rng)?;
        self.run_stack(now);
        Ok(id)
    }

    fn stack_of(&mut self, id: StreamId) -> Option<&mut Stack> {
        self.addresses.iter_mut().map(|address| &mut address.stack).find(|stack| stack.number() == id.stack)
    }

    /// The source port of a stream.
    pub fn stream_port(&self, id: StreamId) -> Option<u16> {
        let stacks = self.addresses.iter().map(|address| &address.stack);
        stacks.filter(|stack| stack.number() == id.stack).find_map(|stack| stack.local_port(id))
    }

    /// What a stream can do.
    pub fn stream_state(&mut self, id: StreamId) -> StreamState {
        self.stack_of(id).map_or(StreamState::Closed, |stack| stack.state(id))
    }

    /// Sends bytes on a stream; how many there was room for.
    pub fn stream_send(&mut self, id: StreamId, bytes: &[u8], now: Instant) -> usize {
        let sent = self.stack_of(id).map_or(0, |stack| stack.send(id, bytes));
        if sent > 0 {
            self.run_stack(now);
        }
        sent
    }

    /// Reads bytes from a stream; how many.
    pub fn stream_receive(&mut self, id: StreamId, space: &mut [u8], now: Instant) -> usize {
        let received = self.stack_of(id).map_or(0, |stack| stack.receive_stream(id, space));
        if received > 0 {
            // The window has opened.
            self.run_stack(now);
        }
        received
    }

    /// Closes the own side of a stream.
    pub fn stream_close(&mut self, id: StreamId, now: Instant) {
        self.stack_of(id).into_iter().for_each(|stack| stack.close(id));
        self.run_stack(now);
    }

    /// Leaves a stream for good.
    pub fn stream_leave(&mut self, id: StreamId, now: Instant) {
        self.stack_of(id).into_iter().for_each(|stack| stack.leave(id, now));
        self.run_stack(now);
    }
}

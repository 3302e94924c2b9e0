//! The host's own sockets: smoltcp above the PE-ARP layer, on `Medium::Ip`.
//!
//! Its source ports come from the stack part of the host's set, at random (PE-ARP rules 73 and 91).

use core::net::Ipv4Addr;
use std::collections::VecDeque;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use slab::Slab;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, Ipv4Cidr};

use super::services::{ServicePorts, Services, tcp_socket};
use crate::ports::{Allocator, PortBitmap};

/// Packets that may wait for the stack.
const MAX_QUEUE: usize = 256;
/// Bytes of each direction of a TCP socket.
const TCP_BUFFER: usize = 64 * 1024;
/// Streams that may be open at a time.
const MAX_STREAMS: usize = 256;
/// How long a connection may stay without an answer, and how long one that its user left may take to end.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a silent peer is asked whether it is still there.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Where the echo service listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoPort {
    /// Nowhere.
    Off,
    /// On the lowest port of the stack part.
    Lowest,
    /// On this port of the stack part.
    Port(u16),
}

/// Why a stream could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StackError {
    /// Every port of the stack part is in use.
    #[error("every port of the stack part is in use; close a connection or enlarge it with --stack-ports")]
    NoPort,
    /// Too many open streams.
    #[error("{MAX_STREAMS} connections are open already")]
    TooManyStreams,
    /// Port 0 or an address that no host has.
    #[error("no host can have this address or port")]
    Address,
    /// The echo port is outside the stack part.
    #[error("echo port {0} is not in the stack part of the set")]
    EchoPort(u16),
}

/// A TCP connection of the host's own stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// Of the stack, among those that the host has had.
    pub(super) stack: u32,
    index: usize,
}

/// What a stream can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// Not answered yet.
    Connecting,
    /// Open; `readable` is false after the peer closed and everything was read.
    Open {
        /// More may come.
        readable: bool,
        /// The own side is still open.
        writable: bool,
    },
    /// Refused, reset or timed out.
    Closed,
}

#[derive(Debug)]
struct Stream {
    handle: SocketHandle,
    port: u16,
}

/// The sockets of a host at one of its addresses.
pub(super) struct Stack {
    number: u32,
    interface: Interface,
    device: Queues,
    sockets: SocketSet<'static>,
    streams: Slab<Stream>,
    /// Streams that their user left, and when they are reset if they did not end by themselves.
    leaving: Vec<(Stream, Instant)>,
    allocator: Allocator,
    address: Ipv4Addr,
    services: Services,
}

impl core::fmt::Debug for Stack {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Stack")
            .field("address", &self.address)
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}

impl Stack {
    /// `number`: in its [`StreamId`]s.
    pub(super) fn new(
        number: u32,
        address: Ipv4Addr,
        mtu: usize,
        ports: &[u16],
        services: Services,
        seed: u64,
        now: Instant,
    ) -> Self {
        let mut device = Queues { incoming: VecDeque::new(), outgoing: VecDeque::new(), mtu };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, now);
        interface.update_ip_addrs(|addresses| {
            // One address into an empty list with room for at least one.
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(address, 32)));
        });
        // `Medium::Ip` needs no next hop: everything goes to the host's own layer.
        let _ = interface.routes_mut().add_default_ipv4_route(address);
        let mut stack = Self {
            number,
            interface,
            device,
            sockets: SocketSet::new(Vec::new()),
            streams: Slab::new(),
            leaving: Vec::new(),
            allocator: Allocator::new(ports.iter().copied()),
            address,
            services: Services::none(now),
        };
        stack.serve(services);
        stack
    }

    /// Offers these services in place of those before.
    pub(super) fn serve(&mut self, services: Services) {
        self.services.end(&mut self.sockets);
        let ports = |services: &Services| {
            let ServicePorts { udp_echo, tcp_echo, http } = services.ports();
            [udp_echo, tcp_echo, http].into_iter().flatten()
        };
        for port in ports(&self.services) {
            self.allocator.release(port);
        }
        for port in ports(&services) {
            self.allocator.reserve(port);
        }
        self.services = services;
    }

    /// Whether a socket has the port that is no service's.
    pub(super) fn is_busy(&self, port: u16) -> bool {
        self.uses(port) && !self.services.is_at(port)
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Further ports for sockets.
    pub(super) fn add_ports(&mut self, ports: impl IntoIterator<Item = u16>) {
        self.allocator.add(ports);
    }

    /// These ports are given to no new socket, or are so again.
    pub(super) fn set_closed(&mut self, ports: &PortBitmap, closed: bool) {
        self.allocator.set_closed(ports, closed);
    }

    /// Takes ports away, and ends the streams and services on them.
    pub(super) fn remove_ports(&mut self, ports: &PortBitmap, now: Instant) {
        if ports.ports().any(|port| self.services.is_at(port)) {
            self.serve(Services::none(now));
        }
        let leaving = self.leaving.iter().map(|(stream, _)| stream);
        for stream in self.streams.iter().map(|(_, stream)| stream).chain(leaving) {
            if ports.contains(stream.port) {
                self.sockets.get_mut::<tcp::Socket<'_>>(stream.handle).abort();
            }
        }
        self.allocator.remove(ports);
    }

    pub(super) fn services(&self) -> ServicePorts {
        self.services.ports()
    }

    /// Whether a socket has the port.
    pub(super) fn uses(&self, port: u16) -> bool {
        self.allocator.uses(port)
    }

    pub(super) fn ports_used(&self) -> usize {
        self.allocator.used()
    }

    /// A random free port, for another use than a socket.
    pub(super) fn take_port(&mut self, rng: &mut impl Rng) -> Option<u16> {
        self.allocator.allocate(rng)
    }

    /// The end of that use.
    pub(super) fn give_port_back(&mut self, port: u16) {
        self.allocator.release(port);
    }

    /// Takes in a packet; false where there is no room.
    pub(super) fn receive(&mut self, packet: &[u8]) -> bool {
        let room = self.device.incoming.len() < MAX_QUEUE;
        if room {
            self.services.prepare(packet, &mut self.sockets);
            self.device.incoming.push_back(packet.to_vec());
        }
        room
    }

    /// Whether packets wait for [`Stack::poll`].
    pub(super) fn has_input(&self) -> bool {
        !self.device.incoming.is_empty()
    }

    /// Runs the sockets; [`Stack::poll_transmit`] has the packets.
    pub(super) fn poll(&mut self, now: Instant) {
        self.interface.poll(now, &mut self.device, &mut self.sockets);
        let mut moved = self.services.serve(&mut self.sockets, now);
        for (stream, until) in &self.leaving {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(stream.handle);
            // RFC 1122 §4.2.2.13: what comes now has no reader, and its sender should know.
            if socket.is_open() && (socket.can_recv() || now >= *until) {
                socket.abort();
                moved = true;
            }
        }
        if moved {
            self.interface.poll(now, &mut self.device, &mut self.sockets);
        }
        let (sockets, allocator) = (&mut self.sockets, &mut self.allocator);
        self.leaving.retain(|(stream, _)| {
            // One in TIME-WAIT still owes the peer an ACK, and another one whenever the peer repeats its FIN.
            let ended = sockets.get::<tcp::Socket<'_>>(stream.handle).state() == tcp::State::Closed;
            if ended {
                sockets.remove(stream.handle);
                allocator.release(stream.port);
            }
            !ended
        });
        if !self.has_input() {
            self.services.sweep(&mut self.sockets);
        }
    }

    /// Ends the oldest stream in TIME-WAIT. A new one needs its port more than it does: the set is small.
    fn forget_oldest(&mut self) {
        let waits = |(stream, _): &(Stream, Instant)| {
            self.sockets.get::<tcp::Socket<'_>>(stream.handle).state() == tcp::State::TimeWait
        };
        if let Some(at) = self.leaving.iter().position(waits) {
            let (stream, _) = self.leaving.remove(at);
            self.sockets.remove(stream.handle);
            self.allocator.release(stream.port);
        }
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.device.outgoing.pop_front()
    }

    pub(super) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        if self.has_input() {
            return Some(now);
        }
        // One in TIME-WAIT ends by the socket's own timer.
        let open = |stream: &Stream| self.sockets.get::<tcp::Socket<'_>>(stream.handle).is_open();
        let left = self.leaving.iter().filter(|(stream, _)| open(stream)).map(|(_, until)| *until).min();
        [self.interface.poll_at(now, &self.sockets), left].into_iter().flatten().min()
    }

    /// Opens a connection from a random free port of the stack part.
    pub(super) fn connect(
        &mut self,
        to: Ipv4Addr,
        port: u16,
        rng: &mut ChaCha8Rng,
    ) -> Result<StreamId, StackError> {
        if self.streams.len() + self.leaving.len() >= MAX_STREAMS {
            self.forget_oldest();
        }
        if self.streams.len() + self.leaving.len() >= MAX_STREAMS {
            return Err(StackError::TooManyStreams);
        }
        let local = self.allocator.allocate(rng).or_else(|| {
            self.forget_oldest();
            self.allocator.allocate(rng)
        });
        let local = local.ok_or(StackError::NoPort)?;
        let mut socket = tcp_socket(TCP_BUFFER, TCP_BUFFER);
        let remote = (IpAddress::Ipv4(to), port);
        let local_endpoint = (IpAddress::Ipv4(self.address), local);
        if socket.connect(self.interface.context(), remote, local_endpoint).is_err() {
            self.allocator.release(local);
            return Err(StackError::Address);
        }
        let handle = self.sockets.add(socket);
        let index = self.streams.insert(Stream { handle, port: local });
        Ok(StreamId { stack: self.number, index })
    }

    fn socket(&mut self, id: StreamId) -> Option<&mut tcp::Socket<'static>> {
        let stream = self.streams.get(id.index)?;
        Some(self.sockets.get_mut(stream.handle))
    }

    pub(super) fn local_port(&self, id: StreamId) -> Option<u16> {
        Some(self.streams.get(id.index)?.port)
    }

    pub(super) fn state(&mut self, id: StreamId) -> StreamState {
        use tcp::State;
        let Some(socket) = self.socket(id) else { return StreamState::Closed };
        match socket.state() {
            State::SynSent | State::SynReceived => StreamState::Connecting,
            State::Closed | State::Listen if !socket.can_recv() => StreamState::Closed,
            _ => StreamState::Open { readable: socket.may_recv(), writable: socket.may_send() },
        }
    }

    /// Queues bytes to send; how many there was room for.
    pub(super) fn send(&mut self, id: StreamId, bytes: &[u8]) -> usize {
        self.socket(id).and_then(|socket| socket.send_slice(bytes).ok()).unwrap_or(0)
    }

    /// Reads received bytes; how many.
    pub(super) fn receive_stream(&mut self, id: StreamId, space: &mut [u8]) -> usize {
        self.socket(id).and_then(|socket| socket.recv_slice(space).ok()).unwrap_or(0)
    }

    /// Closes the own side.
    pub(super) fn close(&mut self, id: StreamId) {
        if let Some(socket) = self.socket(id) {
            socket.close();
        }
    }

    /// Leaves a stream: what was sent still arrives, what arrives is refused.
    pub(super) fn leave(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.try_remove(id.index) else { return };
        self.sockets.get_mut::<tcp::Socket<'_>>(stream.handle).close();
        self.leaving.push((stream, now + TIMEOUT));
    }
}

/// The device below smoltcp: two queues.
struct Queues {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
    mtu: usize,
}

impl phy::Device for Queues {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        // Bounded by the windows of the sockets, and drained after every poll.
        (self.outgoing.len() < MAX_QUEUE).then_some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = phy::Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

struct Incoming(Vec<u8>);

impl phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

#[cfg(test)]
mod tests;

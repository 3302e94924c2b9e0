//! What a host's own stack offers: echo over TCP and UDP, and a page over HTTP.
//!
//! Sockets are made for a connection when its first segment comes, and are gone with its end: a service that nobody
//! uses takes no memory.

use core::fmt::Write;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{IpEndpoint, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};

use super::stack::{EchoPort, KEEP_ALIVE, StackError, TIMEOUT};
use crate::neighbor::TokenBucket;

/// Datagrams, and bytes, that the echo service holds.
const UDP_PACKETS: usize = 16;
const UDP_BUFFER: usize = 16 * 1024;
/// Datagrams that the echo service answers per second: two of them that were set on each other soon fall silent.
const UDP_ECHOES_PER_SECOND: u32 = 1000;

/// Where the services of a host are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServicePorts {
    /// Datagrams that come back.
    pub udp_echo: Option<u16>,
    /// Bytes that come back.
    pub tcp_echo: Option<u16>,
    /// A page.
    pub http: Option<u16>,
}

/// What a service over TCP takes.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// Connections at a time.
    connections: usize,
    /// Bytes of each of them, from and to the client.
    receive: usize,
    send: usize,
}

/// Of a host that has a process of its own.
const LARGE: Room = Room { connections: 8, receive: 64 * 1024, send: 64 * 1024 };
/// Of one host among thousands.
const SMALL: Room = Room { connections: 4, receive: 2 * 1024, send: 1024 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Echo,
    Page,
}

#[derive(Debug)]
struct Connection {
    handle: SocketHandle,
    port: u16,
    kind: Kind,
}

/// The services of one host.
#[derive(Debug)]
pub(super) struct Services {
    at: ServicePorts,
    page: String,
    room: Room,
    limit: TokenBucket,
    connections: Vec<Connection>,
    datagrams: Option<SocketHandle>,
}

impl Services {
    /// Echo over TCP and UDP on one of `ports`.
    pub(super) fn echo(echo: EchoPort, ports: &[u16], now: Instant) -> Result<Self, StackError> {
        let port = match echo {
            EchoPort::Off => None,
            EchoPort::Lowest => ports.first().copied(),
            EchoPort::Port(port) if ports.contains(&port) => Some(port),
            EchoPort::Port(port) => return Err(StackError::EchoPort(port)),
        };
        let at = ServicePorts { udp_echo: port, tcp_echo: port, http: None };
        Ok(Self::new(at, String::new(), LARGE, now))
    }

    /// UDP echo and HTTP on the lowest of `ports`, TCP echo on the next one. The page begins with `page`.
    pub(super) fn small(page: String, ports: &[u16], now: Instant) -> Self {
        let lowest = ports.first().copied();
        let at = ServicePorts { udp_echo: lowest, tcp_echo: ports.get(1).copied(), http: lowest };
        Self::new(at, page, SMALL, now)
    }

    /// None at all.
    pub(super) fn none(now: Instant) -> Self {
        Self::new(ServicePorts::default(), String::new(), LARGE, now)
    }

    fn new(at: ServicePorts, page: String, room: Room, now: Instant) -> Self {
        let limit = TokenBucket::new(UDP_ECHOES_PER_SECOND, UDP_ECHOES_PER_SECOND, now);
        let (connections, datagrams) = (Vec::new(), None);
        Self { at, page, room, limit, connections, datagrams }
    }

    /// Whether one of them is on the port.
    pub(super) fn is_at(&self, port: u16) -> bool {
        [self.at.udp_echo, self.at.tcp_echo, self.at.http].contains(&Some(port))
    }

    /// Ends what goes on.
    pub(super) fn end(&mut self, sockets: &mut SocketSet<'static>) {
        let handles = self.connections.drain(..).map(|one| one.handle).chain(self.datagrams.take());
        for handle in handles {
            sockets.remove(handle);
        }
    }

    /// Where they are.
    pub(super) fn ports(&self) -> ServicePorts {
        self.at
    }

    /// Makes the socket that a packet needs, if it is the first of its connection.
    pub(super) fn prepare(&mut self, packet: &[u8], sockets: &mut SocketSet<'static>) {
        let Ok(packet) = Ipv4Packet::new_checked(packet) else { return };
        let source = packet.src_addr();
        match packet.next_header() {
            IpProtocol::Tcp => {
                let Ok(segment) = TcpPacket::new_checked(packet.payload()) else { return };
                let kind = match Some(segment.dst_port()) {
                    port if port == self.at.http => Kind::Page,
                    port if port == self.at.tcp_echo => Kind::Echo,
                    _ => return,
                };
                if segment.syn() && !segment.ack() {
                    let client = IpEndpoint::new(source.into(), segment.src_port());
                    self.listen(segment.dst_port(), kind, client, sockets);
                }
            }
            IpProtocol::Udp => {
                let Ok(datagram) = UdpPacket::new_checked(packet.payload()) else { return };
                if Some(datagram.dst_port()) == self.at.udp_echo && self.datagrams.is_none() {
                    let mut socket = udp_socket();
                    // The port is not 0, and a new socket is not bound.
                    let _ = socket.bind(datagram.dst_port());
                    self.datagrams = Some(sockets.add(socket));
                }
            }
            _ => {}
        }
    }

    fn listen(&mut self, port: u16, kind: Kind, client: IpEndpoint, sockets: &mut SocketSet<'static>) {
        let others = self.connections.iter().filter(|one| one.port == port);
        let repeated =
            |one: &Connection| sockets.get::<tcp::Socket<'_>>(one.handle).remote_endpoint() == Some(client);
        if others.clone().any(repeated) {
            return;
        }
        if others.count() >= self.room.connections && !self.forget_oldest(port, sockets) {
            return;
        }
        let mut socket = tcp_socket(self.room.receive, self.room.send);
        if kind == Kind::Page {
            // Whoever asks for nothing is not asked whether it is still there.
            socket.set_keep_alive(None);
        }
        // A new socket can listen, and the port is not 0.
        let _ = socket.listen(port);
        self.connections.push(Connection { handle: sockets.add(socket), port, kind });
    }

    /// Ends the oldest connection of a port that is in TIME-WAIT: its client is gone, and a new one is there.
    fn forget_oldest(&mut self, port: u16, sockets: &mut SocketSet<'static>) -> bool {
        let waits = |one: &Connection| {
            let state = sockets.get::<tcp::Socket<'_>>(one.handle).state();
            one.port == port && state == tcp::State::TimeWait
        };
        let Some(at) = self.connections.iter().position(waits) else { return false };
        sockets.remove(self.connections.remove(at).handle);
        true
    }

    /// Answers what the sockets received; whether anything moved.
    pub(super) fn serve(&mut self, sockets: &mut SocketSet<'static>, now: Instant) -> bool {
        let mut moved = false;
        for connection in &self.connections {
            let socket = sockets.get_mut(connection.handle);
            moved |= match connection.kind {
                Kind::Echo => serve_echo(socket),
                Kind::Page => serve_page(socket, &self.page),
            };
        }
        if let Some(handle) = self.datagrams {
            let socket = sockets.get_mut::<udp::Socket<'_>>(handle);
            while socket.can_send() {
                let Ok((bytes, meta)) = socket.recv() else { break };
                if !self.limit.take(now) {
                    continue;
                }
                let bytes = bytes.to_vec();
                moved |= socket.send_slice(&bytes, meta.endpoint).is_ok();
            }
        }
        moved
    }

    /// Gives back what is over. To be called when all that was received has been given to the sockets.
    pub(super) fn sweep(&mut self, sockets: &mut SocketSet<'static>) {
        self.connections.retain(|connection| {
            let state = sockets.get::<tcp::Socket<'_>>(connection.handle).state();
            // One that still listens was made for a segment that was no good.
            let over = matches!(state, tcp::State::Closed | tcp::State::Listen);
            if over {
                sockets.remove(connection.handle);
            }
            !over
        });
        let idle = |handle: &mut SocketHandle| {
            let socket = sockets.get::<udp::Socket<'_>>(*handle);
            socket.recv_queue() == 0 && socket.send_queue() == 0
        };
        if let Some(handle) = self.datagrams.take_if(idle) {
            sockets.remove(handle);
        }
    }
}

/// A TCP socket with so many bytes of room.
pub(super) fn tcp_socket(receive: usize, send: usize) -> tcp::Socket<'static> {
    let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
    let mut socket = tcp::Socket::new(buffer(receive), buffer(send));
    // The timeout holds for silent connections, too: those are asked before.
    socket.set_timeout(Some(TIMEOUT));
    socket.set_keep_alive(Some(KEEP_ALIVE));
    socket
}

fn udp_socket() -> udp::Socket<'static> {
    let buffer =
        || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; UDP_PACKETS], vec![0; UDP_BUFFER]);
    udp::Socket::new(buffer(), buffer())
}

/// Sends back what came.
fn serve_echo(socket: &mut tcp::Socket<'_>) -> bool {
    let mut moved = false;
    if socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity() - socket.send_queue();
        let received = socket.recv(|bytes| {
            let len = bytes.len().min(room);
            (len, bytes[..len].to_vec())
        });
        if let Ok(bytes) = received {
            moved |= socket.send_slice(&bytes).is_ok_and(|len| len > 0);
        }
    }
    if !socket.may_recv() && socket.may_send() && socket.recv_queue() == 0 {
        socket.close();
        moved = true;
    }
    moved
}

/// Answers one request (RFC 9112) and ends the connection.
fn serve_page(socket: &mut tcp::Socket<'_>, page: &str) -> bool {
    if !socket.may_send() {
        // Nothing that comes now is read: it has been answered, or its client is gone.
        return socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok();
    }
    let capacity = socket.recv_capacity();
    let request = match socket.can_recv() {
        // Nothing is taken out before the end of the header, so that it is in one piece.
        true => socket.recv(|bytes| {
            let request = Request::of(bytes, bytes.len() >= capacity);
            (if request.is_some() { bytes.len() } else { 0 }, request)
        }),
        false => Ok(None),
    };
    let Ok(Some(request)) = request else {
        let given_up = !socket.may_recv() && socket.may_send();
        if given_up {
            socket.close();
        }
        return given_up;
    };
    let client = socket.remote_endpoint().map_or_else(String::new, |client| client.to_string());
    let (status, body) = match request {
        Request::Get | Request::Head => ("200 OK", format!("{page}\nyou are {client}\n")),
        Request::Other => ("405 Method Not Allowed\r\nAllow: GET, HEAD", String::new()),
        Request::TooLong => ("431 Request Header Fields Too Large", String::new()),
    };
    let mut answer = String::new();
    // Into a string: it cannot fail.
    let _ = write!(
        answer,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if request != Request::Head {
        answer.push_str(&body);
    }
    // The first bytes that this socket sends, and shorter than its room.
    let _ = socket.send_slice(answer.as_bytes());
    socket.close();
    true
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Get,
    Head,
    Other,
    TooLong,
}

impl Request {
    /// What is asked, once the header is complete or cannot become longer.
    fn of(bytes: &[u8], full: bool) -> Option<Self> {
        let complete = bytes.windows(4).any(|end| end == b"\r\n\r\n");
        match bytes {
            _ if !complete => full.then_some(Self::TooLong),
            [b'G', b'E', b'T', b' ', ..] => Some(Self::Get),
            [b'H', b'E', b'A', b'D', b' ', ..] => Some(Self::Head),
            _ => Some(Self::Other),
        }
    }
}

//! The control socket: one JSON line in, one JSON line out; after a `connect` the connection carries the stream.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use mio::event::Event;
use mio::net::{UnixListener, UnixStream};
use nix::sys::stat::{Mode, umask};
use serde::{Deserialize, Serialize};
use smoltcp::time::Instant;

use super::event_loop::Service;
use super::journal::directory;
use crate::node::{StreamId, StreamState};

/// Whoever starts a node may ask it, and root.
const SOCKET_MODE: u32 = 0o600;
/// The longest request, in bytes.
const MAX_REQUEST: usize = 4096;
/// Bytes moved per step between a stream and its connection.
const CHUNK: usize = 16 * 1024;
/// Steps before the links have their turn.
const MAX_STEPS: usize = 16;

/// How a connection stands after it was advanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits for its client, or for the node.
    Waiting,
    /// It has more to do at once.
    Busy,
    /// It is over.
    Over,
}

/// What a command asks a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The ARP table.
    Arp,
    /// Identity, port set, counters.
    Status,
    /// The leases that the node gave.
    Leases,
    /// What the node would do with a packet.
    Explain(Asked),
    /// A TCP connection from the node's own stack.
    Connect {
        /// To whom.
        address: Ipv4Addr,
        /// To which port.
        port: u16,
    },
}

/// A packet that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Its first bytes, from the IP header on.
    pub packet: Vec<u8>,
    /// How long it is; what is not given is zero.
    pub len: usize,
    /// The link-layer address of who sends it.
    pub from: Option<[u8; 6]>,
    /// By which link it comes.
    pub link: Option<String>,
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The result.
    Ok(serde_json::Value),
    /// What went wrong.
    Error(String),
}

/// The listening socket; its file is removed with it.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Listens on `path`, for its owner only.
    ///
    /// # Errors
    /// Where another node listens there, or the file cannot be made.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        if let Some(directory) = path.parent() {
            // Everybody may see which nodes there are, and hear from a command why it may not ask one.
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(directory)
                .with_context(|| format!("cannot make the directory {}", directory.display()))?;
        }
        match StdStream::connect(path) {
            Ok(_) => bail!(
                "another node answers on {}: end it first, or give --socket another path",
                path.display()
            ),
            // Left by a node that was killed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
                .with_context(|| format!("cannot remove the stale socket {}", path.display()))?,
            Err(_) => {}
        }
        // The file has this mode from the first: no moment at which others could connect.
        let before = umask(Mode::from_bits_truncate(!SOCKET_MODE & 0o777));
        let listener = UnixListener::bind(path);
        umask(before);
        let listener = listener.with_context(|| format!("cannot listen on {}", path.display()))?;
        let this = Self { listener, path: path.to_owned() };
        // A directory with a default ACL does not care about the umask.
        let mode = fs::symlink_metadata(path)?.permissions().mode() & 0o777;
        if mode != SOCKET_MODE {
            bail!(
                "{} came into being with mode {mode:o} and not {SOCKET_MODE:o}: give --socket a path in a directory without a \
                 default ACL",
                path.display()
            );
        }
        Ok(this)
    }
}

impl ControlSocket {
    /// The directory that it is in.
    pub fn directory(&self) -> PathBuf {
        directory(&self.path).to_owned()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Nothing to do about a file that is gone already.
        let _ = fs::remove_file(&self.path);
    }
}

#[derive(Debug)]
enum Stage {
    /// Reading the request.
    Request(Vec<u8>),
    /// Writing the answer, then done.
    Answer,
    /// Waiting for the peer of a stream.
    Connecting(StreamId),
    /// Carrying a stream.
    Relay { stream: StreamId, client_done: bool, peer_done: bool },
}

/// One client.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: UnixStream,
    stage: Stage,
    /// To the client.
    out: Vec<u8>,
    /// From the client, to the stream.
    input: Vec<u8>,
    readable: bool,
    writable: bool,
    /// The client has closed its socket: what it sent can still be read, nothing can be written.
    gone: bool,
}

impl Connection {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            stage: Stage::Request(Vec::new()),
            out: Vec::new(),
            input: Vec::new(),
            readable: true,
            writable: true,
            gone: false,
        }
    }

    pub(super) fn on_event(&mut self, event: &Event) {
        self.readable |= event.is_readable();
        self.writable |= event.is_writable();
        self.gone |= event.is_write_closed();
    }

    /// Does what can be done now.
    pub(super) fn advance(&mut self, service: &mut dyn Service, now: Instant) -> Progress {
        self.step(service, now).unwrap_or_else(|error| {
            tracing::debug!(%error, "control connection ended");
            Progress::Over
        })
    }

    fn step(&mut self, service: &mut dyn Service, now: Instant) -> io::Result<Progress> {
        if self.gone && !matches!(self.stage, Stage::Relay { .. }) {
            return Ok(Progress::Over);
        }
        if let Stage::Request(request) = &mut self.stage {
            let mut ended = false;
            while self.readable && request.len() < MAX_REQUEST && !request.contains(&b'\n') {
                let mut space = [0; MAX_REQUEST];
                let room = MAX_REQUEST - request.len();
                match self.socket.read(&mut space[..room]) {
                    Ok(0) => {
                        ended = true;
                        break;
                    }
                    Ok(len) => request.extend_from_slice(&space[..len]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                    Err(error) => return Err(error),
                }
            }
            match request.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    let (line, rest) = request.split_at(end);
                    // A client may send the first bytes of its stream at once.
                    self.input = rest[1..].to_vec();
                    let parsed = serde_json::from_slice(line);
                    self.handle(parsed, service, now);
                }
                None if request.len() >= MAX_REQUEST => {
                    self.answer(&Answer::Error("request too long".to_owned()))
                }
                None => return Ok(if ended { Progress::Over } else { Progress::Waiting }),
            }
        }
        if let Stage::Connecting(stream) = self.stage {
            self.await_peer(stream, service, now);
        }
        if let Stage::Relay { .. } = self.stage {
            return self.relay(service, now);
        }
        self.flush()?;
        let over = matches!(self.stage, Stage::Answer) && self.out.is_empty();
        Ok(if over { Progress::Over } else { Progress::Waiting })
    }

    fn handle(&mut self, request: serde_json::Result<Request>, service: &mut dyn Service, now: Instant) {
        let answer = match request {
            Err(error) => Answer::Error(format!("bad request: {error}")),
            Ok(Request::Arp) => Answer::Ok(service.arp(now)),
            Ok(Request::Status) => Answer::Ok(service.status(now)),
            Ok(Request::Leases) => service.leases(now).map_or_else(
                || {
                    Answer::Error(
                        "this node gives no leases: ask a router that runs with --dhcp, or a dhcpd"
                            .to_owned(),
                    )
                },
                Answer::Ok,
            ),
            Ok(Request::Explain(asked)) => {
                service.explain(&asked, now).map_or_else(Answer::Error, Answer::Ok)
            }
            Ok(Request::Connect { address, port }) => match service.host() {
                None => Answer::Error("a router or a swarm opens no connections: ask a host".to_owned()),
                Some(host) => match host.connect(address, port, now) {
                    Err(error) => Answer::Error(error.to_string()),
                    Ok(stream) => {
                        self.stage = Stage::Connecting(stream);
                        return;
                    }
                },
            },
        };
        self.answer(&answer);
    }

    fn answer(&mut self, answer: &Answer) {
        self.out = serde_json::to_vec(answer).unwrap_or_default();
        self.out.push(b'\n');
        self.stage = Stage::Answer;
    }

    fn await_peer(&mut self, stream: StreamId, service: &mut dyn Service, now: Instant) {
        let Some(host) = service.host() else { return };
        match host.stream_state(stream) {
            StreamState::Connecting => {}
            StreamState::Closed => {
                host.stream_leave(stream, now);
                self.answer(&Answer::Error("connection refused, or nobody answered".to_owned()));
            }
            StreamState::Open { .. } => {
                let port = host.stream_port(stream);
                self.answer(&Answer::Ok(serde_json::json!({ "source_port": port })));
                self.stage = Stage::Relay { stream, client_done: false, peer_done: false };
            }
        }
    }

    fn relay(&mut self, service: &mut dyn Service, now: Instant) -> io::Result<Progress> {
        let Stage::Relay { stream, client_done, peer_done } = &mut self.stage else {
            return Ok(Progress::Waiting);
        };
        let Some(host) = service.host() else { return Ok(Progress::Over) };
        let mut space = [0; CHUNK];
        let mut moved = false;
        for _ in 0..MAX_STEPS {
            moved = false;
            if !self.input.is_empty() {
                let sent = host.stream_send(*stream, &self.input, now);
                self.input.drain(..sent);
                moved |= sent > 0;
            }
            if self.input.is_empty() && self.readable && !*client_done {
                match self.socket.read(&mut space) {
                    Ok(0) => {
                        *client_done = true;
                        host.stream_close(*stream, now);
                    }
                    Ok(len) => {
                        self.input.extend_from_slice(&space[..len]);
                        moved = true;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                    Err(error) => return Err(error),
                }
            }
            if self.gone {
                self.out.clear();
            } else if self.out.is_empty() {
                let len = host.stream_receive(*stream, &mut space, now);
                self.out.extend_from_slice(&space[..len]);
                moved |= len > 0;
            }
            if !self.out.is_empty() && self.writable {
                match self.socket.write(&self.out) {
                    Ok(len) => {
                        self.out.drain(..len);
                        moved |= len > 0;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                    Err(error) => return Err(error),
                }
            }
            if !moved {
                break;
            }
        }
        let state = host.stream_state(*stream);
        if self.out.is_empty() && !*peer_done && !matches!(state, StreamState::Open { readable: true, .. }) {
            *peer_done = true;
            if !self.gone {
                self.socket.shutdown(Shutdown::Write)?;
            }
        }
        let ended = state == StreamState::Closed && self.out.is_empty();
        let nobody_reads = self.gone && self.input.is_empty();
        Ok(if ended || (*client_done && (*peer_done || nobody_reads)) {
            Progress::Over
        } else if moved {
            Progress::Busy
        } else {
            Progress::Waiting
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.writable && !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(len) => drop(self.out.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Leaves the stream, if there is one, when the connection ends.
    pub(super) fn end(&mut self, service: &mut dyn Service, now: Instant) {
        let stream = match self.stage {
            Stage::Connecting(stream) | Stage::Relay { stream, .. } => stream,
            Stage::Request(_) | Stage::Answer => return,
        };
        if let Some(host) = service.host() {
            host.stream_leave(stream, now);
        }
    }
}

#[cfg(test)]
mod tests;

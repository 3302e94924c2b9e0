//! A small child of a host, started before the host drops its privileges: it runs the lease hook and looks into /proc,
//! and nothing else. Either takes as long as it takes, and the host goes on meanwhile.

mod child;
mod look;
mod message;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, Shutdown};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::event::Event;
use mio::net::UnixStream;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::sockets::Owner;
pub use child::{HookCommand, attend};
use message::{Ask, MAX_ASK, MAX_TELL, Tell, decode, encode};
pub use message::{PortsInUse, Reason, Variable};

/// The sub-command of `pearp` that calls [`attend`].
pub const ATTENDANT_COMMAND: &str = "attendant";
/// How it is called in lists of processes; Linux takes 15 bytes.
const ATTENDANT_NAME: &core::ffi::CStr = c"pearp-attendant";
/// Questions that wait for their answers.
pub const MAX_QUESTIONS: usize = 64;
/// How long the host waits at its end for that of its attendant.
const END_WAIT: Duration = Duration::from_secs(1);
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// What an attendant says.
#[derive(Debug)]
pub enum Report {
    /// The hook has ended, or could not run.
    Hook(Reason, Result<ExitStatus, String>),
    /// The ports in use, or why they are not known.
    Ports(Result<PortsInUse, String>),
    /// Who has a port, as far as that is known. Questions are answered in their order.
    Owner {
        /// The IP protocol.
        protocol: u8,
        /// The port.
        port: u16,
        /// The program.
        owner: Option<Owner>,
    },
    /// The attendant has ended, how is said; it answers nothing any more. This comes once.
    Ended(String),
}

/// The host's end.
#[derive(Debug)]
pub struct Attendant {
    socket: UnixStream,
    child: Child,
    /// From it and to it.
    input: Vec<u8>,
    output: VecDeque<u8>,
    readable: bool,
    writable: bool,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Serves,
    /// It is not to be listened to any more, and why; it may not have been reaped yet.
    Ending(String),
    Ended,
}

impl Attendant {
    /// Starts one: this program once more, as `pearp attendant`. No privilege is dropped yet.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn start(hook: Option<&HookCommand>) -> anyhow::Result<Self> {
        let (own, other) = StdStream::pair().context("cannot make a pair of sockets")?;
        own.set_nonblocking(true)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("pearp").arg(ATTENDANT_COMMAND).stdin(Stdio::from(OwnedFd::from(other)));
        if let Some(HookCommand { path, interface }) = hook {
            command.arg("--hook").arg(path).arg("--interface").arg(interface);
        }
        let child = command.spawn().context("cannot start the attendant: is /proc mounted?")?;
        Ok(Self::of(child, UnixStream::from_std(own)))
    }

    fn of(child: Child, socket: UnixStream) -> Self {
        Self {
            socket,
            child,
            input: Vec::new(),
            output: VecDeque::new(),
            readable: true,
            writable: true,
            stage: Stage::Serves,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is asked in vain.
    pub fn has_ended(&self) -> bool {
        self.stage != Stage::Serves
    }

    /// Runs the lease hook. One call at a time: the next one after the report of this one.
    pub fn call_hook(&mut self, reason: Reason, variables: Vec<(Variable, String)>) {
        self.ask(&Ask::Hook { reason, variables });
    }

    /// Looks which ports programs use, of these addresses and of none.
    pub fn look_at_ports(&mut self, addresses: Vec<Ipv4Addr>) {
        self.ask(&Ask::Ports { addresses });
    }

    /// Looks who has a port of an IP protocol.
    pub fn find_owner(&mut self, protocol: u8, port: u16) {
        self.ask(&Ask::Owner { protocol, port });
    }

    fn ask(&mut self, ask: &Ask) {
        if self.has_ended() {
            return;
        }
        match encode(ask, MAX_ASK) {
            Ok(bytes) => {
                self.output.extend(bytes);
                self.flush();
            }
            Err(error) => self.leave(error.to_string()),
        }
    }

    fn flush(&mut self) {
        while self.writable && !self.output.is_empty() {
            match self.socket.write(self.output.as_slices().0) {
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.leave(error.to_string()),
            }
        }
    }

    /// What it has said.
    pub fn poll(&mut self) -> Option<Report> {
        self.flush();
        loop {
            if self.has_ended() {
                return self.reap();
            }
            match decode(&mut self.input, MAX_TELL) {
                Ok(Some(Tell::Hook { reason, ended })) => {
                    return Some(Report::Hook(reason, ended.map(ExitStatus::from_raw)));
                }
                Ok(Some(Tell::Ports(ports))) => return Some(Report::Ports(ports)),
                Ok(Some(Tell::Owner { protocol, port, owner })) => {
                    return Some(Report::Owner { protocol, port, owner });
                }
                Ok(None) if self.readable => self.read(),
                Ok(None) => return None,
                Err(error) => self.leave(format!("it does not say what it should: {error}")),
            }
        }
    }

    fn read(&mut self) {
        let len = self.input.len();
        self.input.resize(len + CHUNK, 0);
        let result = self.socket.read(&mut self.input[len..]);
        self.input.truncate(len + result.as_ref().copied().unwrap_or(0));
        match result {
            Ok(0) => self.leave("its end of the socket is closed".to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.leave(error.to_string()),
        }
    }

    /// It is of no use any more. It sees the end of the socket, and ends.
    fn leave(&mut self, why: String) {
        (self.input, self.output) = (Vec::new(), VecDeque::new());
        // It may be closed already.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.stage = Stage::Ending(why);
    }

    /// The last report. A process is not to be waited for at the moment when its sockets are closed; SIGCHLD comes then.
    fn reap(&mut self) -> Option<Report> {
        let Stage::Ending(why) = &mut self.stage else { return None };
        let said = match self.child.try_wait() {
            Ok(Some(status)) => format!("{status}"),
            Ok(None) => return None,
            Err(_) => mem::take(why),
        };
        self.stage = Stage::Ended;
        Some(Report::Ended(said))
    }

    pub(super) fn on_event(&mut self, event: &Event) {
        self.readable |= event.is_readable();
        self.writable |= event.is_writable();
    }

    /// What an event loop waits for.
    pub(super) fn source(&mut self) -> &mut UnixStream {
        &mut self.socket
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        // It ends when it sees this, and its own end of the socket with it.
        let _ = self.socket.shutdown(Shutdown::Write);
        let deadline = Instant::now() + END_WAIT;
        let mut space = [0; 1024];
        loop {
            match self.socket.read(&mut space) {
                Ok(len) if len > 0 => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => break,
            }
            let left = PollTimeout::try_from(deadline.saturating_duration_since(Instant::now()));
            let mut wait = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut wait, left.unwrap_or(PollTimeout::ZERO)) {
                Ok(0) => {
                    // Stopped, perhaps.
                    let _ = self.child.kill();
                    break;
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests;

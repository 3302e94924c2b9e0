//! Everything that blocks, reads a clock or owns a file descriptor: the event loop, the control socket, the lease
//! files, and what a process may do.

mod attendant;
mod client_lease;
mod clock;
mod control;
mod event_loop;
mod journal;
mod links;
mod paths;
mod sandbox;
mod sockets;

pub use attendant::{
    ATTENDANT_COMMAND, Attendant, HookCommand, MAX_QUESTIONS, PortsInUse, Reason, Report, Variable, attend,
};
pub use client_lease::LeaseFile;
pub use clock::{Clock, random_seed};
pub use control::{Answer, Asked, ControlSocket, Request};
pub use event_loop::{EventLoop, Service};
pub use journal::{Holding, Journal, read_holdings};
pub use links::IoMode;
pub use paths::control_path;
pub use sandbox::{Sandbox, SandboxMode};
pub use sockets::{Owner, Socket, SocketKind, SocketState, read_sockets};

//! Everything that blocks, reads a clock or owns a file descriptor: the event loop and the control socket.

mod clock;
mod control;
mod event_loop;
mod links;
mod paths;

pub use clock::{Clock, random_seed};
pub use control::{Answer, ControlSocket, Request};
pub use event_loop::{EventLoop, Service};
pub use links::IoMode;
pub use paths::control_path;

//! PE-ARP.
pub mod neighbor;
pub mod ports;
pub mod wire;
pub mod forward;
pub mod node;
pub mod link;
pub mod runtime;
pub mod cmd;

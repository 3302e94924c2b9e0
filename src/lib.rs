//! PE-ARP.
pub mod ports;
pub mod wire;

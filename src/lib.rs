//! PE-ARP.
pub mod neighbor;
pub mod ports;
pub mod wire;

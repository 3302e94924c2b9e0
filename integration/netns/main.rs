//! The lab with real programs: every test brings up network namespaces of its own and needs root.
//!
//! Each test says what it needs when that is missing, and fails. `scripts/test` installs it all.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod bytes;
mod claims;
mod cleanup;
mod commands;
mod dhcp;
mod dhcpd;
mod explain;
mod fragments;
mod groups;
mod growth;
mod guard;
mod icmp;
mod leaks;
mod leases;
mod liars;
mod load;
mod offload;
mod paths;
mod pmtu;
mod portless;
mod ports;
mod privileges;
mod restart;
mod scale;
mod soak;
mod swarm;
mod traffic;
mod transports;
mod tunnels;
mod usage;

//! PE-ARP: many hosts share one IPv4 address, each owning a set of its ports. ARP messages and the ARP table carry
//! ports, so that the edge router delivers by `{IP, port}` → link-layer address. Nothing above the Ethernet header is
//! rewritten. docs/protocol.md is the normative text; `PE-ARP rule n` and `PE-ARP §n` refer to it.
//!
//! # Map
//!
//! Engines speak meaning, nodes speak frames, links speak bytes, the runtime speaks file descriptors. A module
//! imports only from those above it in this list.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`config`] | TOML files: what is wrong with a value, and in which line |
//! | [`ports`] | port ranges, PSIDs, port sets, the source-port allocator |
//! | [`wire`] | bytes ⇄ meaning: PE-ARP, the frame buffer with its offload header, segmentation, fragments, flow keys, ICMP |
//! | [`neighbor`] | engine: the port-aware ARP table of one link, its questions, the own set |
//! | [`forward`] | engine: routes, fragments on their way, the rate of ICMP errors |
//! | [`dhcp`] | engine: the DHCP server, leases of whole addresses and of port sets |
//! | [`node`] | host, swarm, edge router and DHCP server: engines composed, frame in → verdict and frames out |
//! | [`sim`] | the same nodes on simulated segments and a virtual clock, deterministic by seed |
//! | [`link`] | TAP and TUN with and without offloads, many frames per system call by io_uring; memory queues; captures |
//! | [`runtime`] | the event loop, the clock, signals, the control socket, what a process may do |
//! | [`cmd`] | the sub-commands of `pearp` |
//!
//! Everything above `link` is sans-IO: the time, the seed of random choices and all input are arguments.
//! Engines do not import each other; nodes compose them.
//!
//! # Vocabulary
//!
//! - **shared address**, **sharer** – an IPv4 address with several owners, and one of them
//! - **port set** – what a sharer owns: a **PSID** under the scheme **(a, k)** of the address, or ranges
//! - **portless** – without ports: owned by IP protocol, the rest by the **residual owner** of the address
//! - **claim**, **record** – what a message says that its sender owns
//! - **binding** – the fact that a link-layer address owns ports of an address; a **lease** is a binding with a
//!   lifetime that a server gave
//! - **probe**, **confirmation**, **announcement**, **conflict**, **defence** – as in RFC 5227 and RFC 4861
//! - **next hop**, **ingress link**, **egress link**, **FIB**, **flow**, **hairpin** – as in the RFCs
//! - **program part**, **stack part** – the ports of a host's set that its programs use on the kernel's sockets, and
//!   those of the host's own stack
//!
//! # Contract of engines and nodes
//!
//! `handle_*(input, now)`, `handle_timeout(now)`, `poll_timeout()`, `poll_transmit()`, `poll_event()`: one mutation,
//! then drain. After `handle_timeout(now)` the next deadline is later than `now`. Input from the network never
//! panics, blocks, or grows memory past a named bound.

pub mod cmd;
pub mod config;
pub mod dhcp;
pub mod forward;
pub mod link;
pub mod neighbor;
pub mod node;
pub mod ports;
pub mod runtime;
pub mod sim;
pub mod wire;

//! What is on the wire must never change by accident: frames and vectors of the protocol, and captures of what nodes
//! make of frames.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod captures;
mod case;
mod cases;
mod files;
mod packets;
mod replay;
mod topology;
mod vectors;
mod words;

//! What is on the wire must never change by accident: frames and vectors of the protocol.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod vectors;

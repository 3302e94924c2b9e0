//! Forwarding decisions: routes, and the rate of ICMP errors.

mod fib;
mod limit;

pub use fib::{Fib, NextHop};
pub use limit::IcmpLimit;

//! Forwarding decisions: routes, where fragments go, and the rate of ICMP errors.

mod fib;
mod fragment;
mod limit;

pub use fib::{Fib, NextHop};
pub use fragment::{FragmentRefused, Fragments, Reassembly};
pub use limit::{IcmpLimit, Source};

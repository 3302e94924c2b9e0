//! The captures, by subject. Each says by hand what has to come of the frames that it gives.

mod arp;
mod echo;
mod errors;
pub(crate) mod found;
mod hairpin;
mod headers;
mod host;
mod host_arp;
mod limits;
mod malformed;
mod owners;
mod ports;
mod resolve;

use crate::case::Case;

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    [
        ports::cases(),
        resolve::cases(),
        arp::cases(),
        malformed::cases(),
        hairpin::cases(),
        echo::cases(),
        errors::cases(),
        limits::cases(),
        headers::cases(),
        host::cases(),
        host_arp::cases(),
        owners::cases(),
    ]
    .concat()
}

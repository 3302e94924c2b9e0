//! The one place that reads clocks and the system's randomness.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::TryRngCore;
use rand::rngs::OsRng;
use smoltcp::time::Instant;

/// The monotonic clock, as the time since it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
    epoch: Duration,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: std::time::Instant::now(), epoch }
    }

    /// The time since the start.
    pub fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// The wall-clock time of the start, since 1970.
    pub fn epoch(&self) -> Duration {
        self.epoch
    }
}

/// A seed from the system.
///
/// # Errors
/// Where the system has no randomness to give.
pub fn random_seed() -> std::io::Result<u64> {
    OsRng.try_next_u64().map_err(std::io::Error::other)
}

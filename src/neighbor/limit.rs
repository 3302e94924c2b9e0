//! Token buckets.

use smoltcp::time::{Duration, Instant};

const MICROS_PER_SECOND: u64 = 1_000_000;

/// Allows `burst` at once and `per_second` after that.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    per_second: u32,
    burst: u32,
    /// Tokens times one million.
    level: u64,
    at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let burst = burst.max(1);
        Self { per_second: per_second.max(1), burst, level: u64::from(burst) * MICROS_PER_SECOND, at: now }
    }

    fn fill(&mut self, now: Instant) {
        let micros = (now.total_micros() - self.at.total_micros()).max(0) as u64;
        let full = u64::from(self.burst) * MICROS_PER_SECOND;
        self.level = full.min(self.level.saturating_add(micros.saturating_mul(u64::from(self.per_second))));
        self.at = self.at.max(now);
    }

    /// Whether a token is there now.
    pub fn ready(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level >= MICROS_PER_SECOND
    }

    /// Takes a token; false where there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let ready = self.ready(now);
        if ready {
            self.level -= MICROS_PER_SECOND;
        }
        ready
    }

    /// Whether all tokens are there, so that a new bucket would be the same.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level == u64::from(self.burst) * MICROS_PER_SECOND
    }

    /// When the next token is there, later than `now` where there is none now.
    pub fn next_at(&mut self, now: Instant) -> Instant {
        self.fill(now);
        let missing = MICROS_PER_SECOND.saturating_sub(self.level);
        now + Duration::from_micros(missing.div_ceil(u64::from(self.per_second)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_rate() {
        let start = Instant::from_secs(5);
        let mut bucket = TokenBucket::new(20, 3, start);
        assert_eq!((0..5).filter(|_| bucket.take(start)).count(), 3);
        let next = bucket.next_at(start);
        assert_eq!(next, start + Duration::from_millis(50));
        assert!(!bucket.take(next - Duration::from_micros(1)));
        assert!(bucket.take(next) && !bucket.take(next));
        let later = next + Duration::from_secs(3600);
        assert_eq!((0..9).filter(|_| bucket.take(later)).count(), 3, "no more than the burst");
    }

    #[test]
    fn time_that_runs_backwards_gives_nothing() {
        let mut bucket = TokenBucket::new(1, 1, Instant::from_secs(10));
        assert!(bucket.take(Instant::from_secs(10)));
        assert!(!bucket.take(Instant::from_secs(1)));
        assert!(!bucket.take(Instant::from_millis(10_999)));
        assert!(bucket.take(Instant::from_secs(11)));
    }
}

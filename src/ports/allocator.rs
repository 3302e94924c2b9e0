//! Source ports for the sockets that a host's own stack opens.

use rand::Rng;

use super::PortBitmap;

/// Hands out ports of one set, each to one user at a time.
#[derive(Clone, Debug)]
pub struct Allocator {
    ports: Vec<u16>,
    used: PortBitmap,
}

impl Allocator {
    /// An allocator over `ports`.
    pub fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        Self { ports: ports.into_iter().collect(), used: PortBitmap::new() }
    }

    /// A free port chosen at random, or `None` where every port is taken.
    ///
    /// RFC 6056 §3.3.1 (algorithm 1): a random start, then the next free one, so that an off-path attacker
    /// cannot guess the port from earlier ones.
    pub fn allocate(&mut self, rng: &mut impl Rng) -> Option<u16> {
        if self.ports.is_empty() {
            return None;
        }
        let start = rng.random_range(0..self.ports.len());
        let (below, from) = self.ports.split_at(start);
        let port = from.iter().chain(below).copied().find(|port| !self.used.contains(*port))?;
        self.used.insert(port);
        Some(port)
    }

    /// Takes a given port; false where it is not in the set or already taken.
    pub fn reserve(&mut self, port: u16) -> bool {
        self.ports.contains(&port) && self.used.insert(port)
    }

    /// Gives a port back.
    pub fn release(&mut self, port: u16) {
        self.used.remove(port);
    }

    /// Whether a port is taken.
    pub fn uses(&self, port: u16) -> bool {
        self.used.contains(port)
    }

    /// The number of ports that are taken.
    pub fn used(&self) -> usize {
        self.used.count() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn every_port_once_then_none() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut allocator = Allocator::new(7680..=7695);
        assert!(allocator.reserve(7680));
        assert!(!allocator.reserve(7680) && !allocator.reserve(80));
        let mut seen: Vec<_> = (0..15).map(|_| allocator.allocate(&mut rng).unwrap()).collect();
        assert!(!seen.is_sorted(), "a sequential choice is guessable");
        seen.sort_unstable();
        assert_eq!(seen, (7681..=7695).collect::<Vec<_>>());
        assert_eq!(allocator.allocate(&mut rng), None);
        allocator.release(7690);
        assert_eq!(allocator.allocate(&mut rng), Some(7690));
        assert_eq!(Allocator::new([]).allocate(&mut rng), None);
    }
}

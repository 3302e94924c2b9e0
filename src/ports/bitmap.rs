//! One bit per port.

use super::PortRange;

/// Membership of every port in 8 KiB: one load and one mask per test, whatever the form of the set.
#[derive(Clone, PartialEq, Eq)]
pub struct PortBitmap {
    words: Box<[u64; 1024]>,
}

impl PortBitmap {
    /// No port at all.
    pub fn new() -> Self {
        Self { words: Box::new([0; 1024]) }
    }

    /// Whether `port` is in.
    pub fn contains(&self, port: u16) -> bool {
        self.words[usize::from(port >> 6)] >> (port & 63) & 1 == 1
    }

    /// Puts `port` in; false where it was already.
    pub fn insert(&mut self, port: u16) -> bool {
        let fresh = !self.contains(port);
        self.words[usize::from(port >> 6)] |= 1 << (port & 63);
        fresh
    }

    /// Takes `port` out; false where it was not in.
    pub fn remove(&mut self, port: u16) -> bool {
        let was = self.contains(port);
        self.words[usize::from(port >> 6)] &= !(1 << (port & 63));
        was
    }

    /// The number of ports.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// The ports, ascending.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        (0..=u16::MAX).filter(|port| self.contains(*port))
    }

    /// The ports as maximal ranges, ascending.
    pub fn ranges(&self) -> Vec<PortRange> {
        let mut ranges: Vec<PortRange> = Vec::new();
        for port in self.ports() {
            match ranges.last_mut() {
                Some(range) if u32::from(range.last()) + 1 == u32::from(port) => {
                    *range = PortRange::new(range.first(), port).expect("ports come in ascending order");
                }
                _ => ranges.push(PortRange::single(port)),
            }
        }
        ranges
    }
}

impl Default for PortBitmap {
    fn default() -> Self {
        Self::new()
    }
}

impl FromIterator<u16> for PortBitmap {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut bitmap = Self::new();
        for port in ports {
            bitmap.insert(port);
        }
        bitmap
    }
}

impl core::fmt::Debug for PortBitmap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.ranges()).finish()
    }
}

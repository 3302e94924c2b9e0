//! One bit per port.

use super::PortRange;

/// Membership of every port, in a word for each 64 ports from the lowest member to the highest: 8 KiB at most. One load
/// and one mask per test, whatever the form of the set.
#[derive(Clone, Default)]
pub struct PortBitmap {
    /// Words in front of the first one.
    skipped: usize,
    words: Vec<u64>,
}

impl PortBitmap {
    /// No port at all.
    pub const fn new() -> Self {
        Self { skipped: 0, words: Vec::new() }
    }

    /// Where the word of `port` is, if there is one.
    fn word_of(&self, port: u16) -> usize {
        usize::from(port >> 6).wrapping_sub(self.skipped)
    }

    /// Whether `port` is in.
    pub fn contains(&self, port: u16) -> bool {
        self.words.get(self.word_of(port)).is_some_and(|word| word >> (port & 63) & 1 == 1)
    }

    /// Puts `port` in; false where it was already.
    pub fn insert(&mut self, port: u16) -> bool {
        let word = usize::from(port >> 6);
        if self.words.is_empty() {
            self.skipped = word;
        }
        if let missing @ 1.. = self.skipped.saturating_sub(word) {
            self.words.splice(0..0, core::iter::repeat_n(0, missing));
            self.skipped = word;
        }
        let at = word - self.skipped;
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        let fresh = !self.contains(port);
        self.words[at] |= 1 << (port & 63);
        fresh
    }

    /// Takes `port` out; false where it was not in.
    pub fn remove(&mut self, port: u16) -> bool {
        let was = self.contains(port);
        if was {
            let at = self.word_of(port);
            self.words[at] &= !(1 << (port & 63));
        }
        was
    }

    /// The number of ports.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// The ports, ascending.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.words.iter().zip(self.skipped..).flat_map(|(word, at)| {
            // Each step takes the lowest bit away.
            let words = core::iter::successors(Some(*word), |word| Some(word & word.wrapping_sub(1)));
            let bits = words.take_while(|word| *word != 0).map(u64::trailing_zeros);
            // There are 1024 words at most.
            bits.map(move |bit| (at << 6) as u16 | bit as u16)
        })
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

impl PartialEq for PortBitmap {
    fn eq(&self, other: &Self) -> bool {
        self.ports().eq(other.ports())
    }
}

impl Eq for PortBitmap {}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_changes_does_not_matter() {
        let ports = [5000, 0, 65535, 63, 64, 5001, 4095];
        let mut bitmap = PortBitmap::new();
        assert!(ports.iter().all(|port| !bitmap.contains(*port) && !bitmap.remove(*port)));
        assert!(ports.iter().all(|port| bitmap.insert(*port)) && !bitmap.insert(63));
        let mut sorted = ports;
        sorted.sort_unstable();
        assert_eq!(bitmap.ports().collect::<Vec<_>>(), sorted);
        assert_eq!((bitmap.count(), bitmap.ranges().len()), (7, 5));
        assert_eq!(bitmap, sorted.into_iter().collect());
        assert!(bitmap.remove(0) && !bitmap.contains(0) && bitmap.remove(65535));
        assert_eq!(bitmap, [63, 64, 4095, 5000, 5001].into_iter().collect());
        assert_ne!(bitmap, PortBitmap::new());
    }
}

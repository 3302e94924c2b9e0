//! What a run showed.

use std::collections::BTreeMap;

use smoltcp::time::Instant;

use super::checker::Violation;

/// The outcome of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Virtual time at the end.
    pub end: Instant,
    /// Events that were handled.
    pub events: u64,
    /// Frames that were sent on all segments.
    pub frames: u64,
    /// Datagrams that programs sent, answers included.
    pub sent: u64,
    /// Datagrams that reached the program that they were for.
    pub delivered: u64,
    /// Questions that were answered: by a datagram, an echo, or ICMP.
    pub answered: u64,
    /// Frames and packets that ended otherwise, by reason: those of nodes, and `link_*` and `node_*` of the simulation.
    pub dropped: BTreeMap<&'static str, u64>,
    /// A hash of all frames, with their times: equal for equal scenarios and seeds.
    pub capture_hash: u64,
    /// All frames as a pcap file, if that was asked for.
    pub pcap: Option<Vec<u8>>,
    /// The broken invariant that ended the run.
    pub violation: Option<Violation>,
}

/// The FNV-1a hash of 64 bits, by Fowler, Noll and Vo.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fnv(u64);

impl Fnv {
    pub(super) const fn new() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3);
        }
    }

    pub(super) const fn finish(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_vectors() {
        let hash = |text: &str| {
            let mut hash = Fnv::new();
            hash.write(text.as_bytes());
            hash.finish()
        };
        assert_eq!((hash(""), hash("foobar")), (0xCBF2_9CE4_8422_2325, 0x8594_4171_F739_67E8));
    }
}

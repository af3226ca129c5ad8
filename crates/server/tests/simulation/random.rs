//! Random numbers of a seed (SplitMix64): the same on every machine and in every run.

#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number of `0..end`; 0 where that is empty.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % (end.max(1) as u64)).expect("it is smaller than a usize")
    }

    /// Returns a number of `start..=end`.
    pub(crate) fn between(&mut self, start: usize, end: usize) -> usize {
        start + self.below(end - start + 1)
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Returns a size: most are small, some are large.
    pub(crate) fn size(&mut self, large: usize) -> usize {
        match self.below(4) {
            0 => 0,
            1 => self.below(100),
            2 => self.below(large / 16 + 1),
            _ => self.below(large + 1),
        }
    }

    pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut random = Random(seed);
        let words = std::iter::repeat_with(|| random.number().to_le_bytes());
        words.flatten().take(length).collect()
    }
}

/// Returns a checksum of bytes (FNV-1a).
pub(crate) fn checksum(before: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(before, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

//! Seeded chance, so that the same options always send the same load.

/// SplitMix64: small, even, and the same on every machine.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, but not including, 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[(self.next() % of.len() as u64) as usize]
    }

    /// A gap between two arrivals that know nothing of each other.
    pub(super) fn gap(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// A rank from 0 on, the first the most likely: rank r has the weight 1 / (r + 1).
    pub(super) fn zipf(&mut self, ranks: usize) -> usize {
        let weight = |rank: usize| 1.0 / (rank + 1) as f64;
        let mut left = self.unit() * (0..ranks).map(weight).sum::<f64>();
        for rank in 0..ranks {
            left -= weight(rank);
            if left < 0.0 {
                return rank;
            }
        }
        ranks.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_zipf_prefers_the_first() {
        let (mut one, mut other) = (Random::new(7), Random::new(7));
        assert!((0..100).all(|_| one.next() == other.next()));
        let mut counts = [0; 4];
        (0..1_000).for_each(|_| counts[one.zipf(4)] += 1);
        assert!(counts.is_sorted_by(|a, b| a > b), "{counts:?}");
        let mean = (0..1_000).map(|_| one.gap(2.0)).sum::<f64>() / 1_000.0;
        assert!((1.7..2.3).contains(&mean), "{mean}");
    }
}

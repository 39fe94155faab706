//! Addressable random numbers.
//!
//! A training run draws initial weights, batch windows, dropout masks and sampled characters. If each came
//! from a generator with a state, the state would have to be saved with every checkpoint, and a draw more in
//! one place would change all later ones. Here every number has an address instead: (seed, purpose, step,
//! index) go through a counter-based generator and come out as bits. Resuming at step *n* needs *n* alone,
//! and two configurations with the same seed see the same windows.
//!
//! The generator is Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2,
//! 3", SC 2011), checked against the authors' known answers. Transcendental functions come from `libm`, whose
//! results do not depend on the processor or the operating system.

/// What a random number is for. Streams with different purposes are independent; the discriminants are part
/// of the file format: a changed number changes every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial parameters. The step is the tensor's index in the layout.
    Initialisation = 1,
    /// Starts of training windows; step = training step, index = window in the batch.
    TrainingWindows = 2,
    /// The fixed validation windows of a study.
    ValidationWindows = 3,
    /// The notebook's fresh validation batches; step = training step.
    FreshValidationWindows = 4,
    /// Sampled characters in text generation; step = position, index = stream.
    Sampling = 5,
    /// The built-in corpus.
    Grammar = 6,
    /// Dropout masks.
    Dropout = 7,
    /// Which configuration goes into which bracket of a study.
    Brackets = 8,
    /// Configurations that a search draws; step = trial, index = key and attempt.
    Search = 9,
    /// Anything that only a test draws.
    Test = 100,
}

/// The random numbers of one (seed, purpose, step); each draw names its index.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: [u32; 2],
    step: u32,
    purpose: u32,
}

impl Stream {
    /// The stream of `seed`, `purpose` and `step`. Steps are taken modulo 2^32.
    pub fn new(seed: u64, purpose: Purpose, step: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], step: step as u32, purpose: purpose as u32 }
    }

    /// 128 random bits at `index`.
    pub fn bits(&self, index: u64) -> [u32; 4] {
        philox4x32([index as u32, (index >> 32) as u32, self.step, self.purpose], self.key)
    }

    /// 64 random bits at `index`.
    pub fn u64(&self, index: u64) -> u64 {
        let b = self.bits(index);
        u64::from(b[0]) | u64::from(b[1]) << 32
    }

    /// A number in [0, 1) with 53 random bits.
    pub fn unit(&self, index: u64) -> f64 {
        (self.u64(index) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// An integer in 0..bound, by the high half of a 64 x 64 bit product (bias below bound / 2^64).
    /// Returns 0 for a bound of 0.
    pub fn below(&self, index: u64, bound: u64) -> u64 {
        ((u128::from(self.u64(index)) * u128::from(bound)) >> 64) as u64
    }

    /// A standard normal number (Box and Muller, 1958).
    pub fn normal(&self, index: u64) -> f64 {
        let b = self.bits(index);
        // (0, 1]: the logarithm stays finite.
        let u = (((u64::from(b[0]) | u64::from(b[1]) << 32) >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let v = ((u64::from(b[2]) | u64::from(b[3]) << 32) >> 11) as f64 / (1u64 << 53) as f64;
        libm::sqrt(-2.0 * libm::log(u)) * libm::cos(std::f64::consts::TAU * v)
    }

    /// A standard normal number truncated to [-2, 2], by rejection: attempt a at index i uses index
    /// i + a * 2^40, so neighbouring draws never share bits. (The variance of the truncated
    /// distribution is 0.87962566^2.)
    pub fn truncated_normal(&self, index: u64) -> f64 {
        let mut attempt = 0;
        loop {
            let x = self.normal(index + (attempt << 40));
            if x.abs() <= 2.0 {
                return x;
            }
            attempt += 1;
        }
    }
}

/// One block of Philox 4x32-10.
fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = u64::from(counter[0]) * 0xD251_1F53;
        let p1 = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (p1 >> 32) as u32 ^ counter[1] ^ key[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ counter[3] ^ key[1],
            p0 as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that come with the authors' Random123 library.
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn moments() {
        let s = Stream::new(7, Purpose::Test, 0);
        let n = 200_000u64;
        let mean_and_variance = |f: &dyn Fn(u64) -> f64| {
            let (mut m, mut q) = (0.0, 0.0);
            for i in 0..n {
                let x = f(i);
                m += x;
                q += x * x;
            }
            let m = m / n as f64;
            (m, q / n as f64 - m * m)
        };
        let (m, v) = mean_and_variance(&|i| s.unit(i));
        assert!((m - 0.5).abs() < 0.003 && (v - 1.0 / 12.0).abs() < 0.001, "{m} {v}");
        let (m, v) = mean_and_variance(&|i| s.normal(i));
        assert!(m.abs() < 0.01 && (v - 1.0).abs() < 0.02, "{m} {v}");
        let (m, v) = mean_and_variance(&|i| s.truncated_normal(i));
        assert!(m.abs() < 0.01 && (v - 0.87962566f64.powi(2)).abs() < 0.02, "{m} {v}");
        assert!((0..n).all(|i| s.truncated_normal(i).abs() <= 2.0));
        assert!((0..n).all(|i| s.below(i, 7) < 7));
    }

    #[test]
    fn addresses_differ() {
        let a = Stream::new(1, Purpose::Test, 0).u64(0);
        assert_ne!(a, Stream::new(2, Purpose::Test, 0).u64(0));
        assert_ne!(a, Stream::new(1, Purpose::Dropout, 0).u64(0));
        assert_ne!(a, Stream::new(1, Purpose::Test, 1).u64(0));
        assert_ne!(a, Stream::new(1, Purpose::Test, 0).u64(1));
        assert_ne!(a, Stream::new(1 << 32, Purpose::Test, 0).u64(0));
    }
}

//! Which instruction set the kernels use: chosen once at run time, carried as a plain value.

#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Portable, Simd};
use std::fmt;

/// An instruction set that this processor has. Only [`Isa::detect`] and [`Isa::named`] make one, so holding
/// one proves that its kernels can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(pub(crate) Kind);

/// The instruction sets with kernels of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) enum Kind {
    Avx512,
    Avx2,
    Portable,
}

impl Isa {
    /// The instruction sets of this processor, best first; never empty.
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                all.push(Self(Kind::Avx512));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Self(Kind::Avx2));
            }
        }
        all.push(Self(Kind::Portable));
        all
    }

    /// The best instruction set of this processor.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// The instruction set called `name` (`avx512`, `avx2`, `portable`), if this processor has it.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|isa| isa.name() == name)
    }

    /// Whether it has dot products of 16-bit pairs in one instruction (AVX512-VNNI). Without it they give the same bits, more slowly.
    pub fn has_pair_products(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => is_x86_feature_detected!("avx512vnni"),
            _ => false,
        }
    }

    /// Numbers in a vector.
    pub(crate) fn lanes(self) -> usize {
        match self.0 {
            Kind::Avx512 => 16,
            Kind::Avx2 => 8,
            Kind::Portable => 4,
        }
    }

    /// Vectors in a full panel of a packed matrix.
    pub(crate) fn panel(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => Avx512::<false>::TILE.1,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => Avx2::TILE.1,
            _ => Portable::TILE.1,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Avx512 => "avx512",
            Kind::Avx2 => "avx2",
            Kind::Portable => "portable",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Makes a public function out of a generic kernel: `fn name(isa, args)` runs `generic(simd, args)` compiled
/// for the instruction set. The generic function has to be `#[inline(always)]`, so that it is compiled
/// inside of the entry points that carry the features.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $generic:expr;) => {
        $(#[$doc])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: inside of a function that is only called with the features present.
                ($generic)(unsafe { $crate::simd::Avx512::<false>::new() }, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: inside of a function that is only called with the features present.
                ($generic)(unsafe { $crate::simd::Avx2::new() }, $($arg),*)
            }
            match isa.0 {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an Isa of this kind exists only where the features were detected.
                $crate::isa::Kind::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::isa::Kind::Avx2 => unsafe { avx2($($arg),*) },
                _ => ($generic)($crate::simd::Portable, $($arg),*),
            }
        }
    };
}
pub(crate) use dispatch;

/// As [`dispatch`], for kernels that multiply pairs: those have one more entry point for processors with VNNI.
macro_rules! dispatch_pairs {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $generic:expr;) => {
        $(#[$doc])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            if isa.has_pair_products() {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
                fn vnni($($arg: $ty),*) {
                    // SAFETY: inside of a function that is only called with the features present.
                    ($generic)(unsafe { $crate::simd::Avx512::<true>::new() }, $($arg),*)
                }
                // SAFETY: the Isa has AVX-512, and VNNI was asked for.
                return unsafe { vnni($($arg),*) };
            }
            $crate::isa::dispatch! {
                fn others($($arg: $ty),*) = $generic;
            }
            others(isa, $($arg),*)
        }
    };
}
pub(crate) use dispatch_pairs;

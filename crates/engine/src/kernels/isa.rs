//! Which instruction sets this processor has, and which one to use.

/// An instruction set that a kernel body is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust; defines what every other body means.
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// [`Isa::Avx512`] with dot products of bytes, for quantised weights.
    Avx512Vnni,
    /// [`Isa::Avx512Vnni`] with matrix units for bytes and bf16. With bf16 weights each activation enters
    /// as the sum of two bf16 numbers, so that nothing below about 2⁻¹⁷ of its size is lost.
    Amx,
}

impl Isa {
    /// Every instruction set, worst first.
    const ALL: [Self; 5] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Vnni, Self::Amx];

    /// The best one of this processor.
    pub fn detect() -> Self {
        let available = |isa: &&Self| isa.is_available();
        *Self::ALL.iter().rev().find(available).unwrap_or(&Self::Portable)
    }

    /// All that this processor can run, [`Isa::Portable`] first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether this processor can run it.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            Self::Avx512Vnni => {
                Self::Avx512.is_available() && is_x86_feature_detected!("avx512vnni")
            }
            Self::Amx => Self::Avx512Vnni.is_available() && super::amx::is_available(),
        }
    }

    /// Whether this processor can run it.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        self == Self::Portable
    }

    /// Whether it multiplies pairs of bf16 numbers, where it has no matrix units. Every processor that does has
    /// [`Isa::Avx512Vnni`] too.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn has_pairs(self) -> bool {
        self == Self::Avx512Vnni && is_x86_feature_detected!("avx512bf16")
    }

    /// Whether it multiplies pairs of bf16 numbers.
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) const fn has_pairs(self) -> bool {
        false
    }
}

/// Runs `body(arguments)` compiled for the given instruction set.
///
/// The body is one `#[inline(always)]` function in plain Rust. Wider registers change how many of
/// its operations run at once, never their order, and Rust does not fuse a multiplication with an
/// addition by itself: the result has the same bits for every instruction set.
macro_rules! compiled_for {
    ($isa:expr, $body:ident($($arguments:tt)*)) => {
        compiled_for!($isa, $body<>($($arguments)*))
    };
    ($isa:expr, $body:ident<$($generic:ident: $bound:ident)?>($($argument:ident: $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2")]
            #[allow(clippy::too_many_arguments)]
            fn avx2$(<$generic: $bound>)?($($argument: $type),*) {
                $body($($argument),*)
            }
            #[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl")]
            #[allow(clippy::too_many_arguments)]
            fn avx512$(<$generic: $bound>)?($($argument: $type),*) {
                $body($($argument),*)
            }
            match $isa {
                $crate::kernels::Isa::Portable => $body($($argument),*),
                // SAFETY: `Kernels::new` refuses an instruction set that the processor lacks.
                $crate::kernels::Isa::Avx2 => unsafe { avx2($($argument),*) },
                // SAFETY: as above.
                _ => unsafe { avx512($($argument),*) },
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = $isa;
            $body($($argument),*)
        }
    }};
}
pub(super) use compiled_for;

//! From what a machine does in a second to scores between nothing and one.
//!
//! A score is the place of what was measured between a lowest and a highest value on a scale of logarithms: twice as fast
//! is the same step everywhere. Each kind of device has its own two values. Those of discrete GPUs are chosen so that cards
//! with the rates of their data sheets come out in the classes that imece names them for; a data-centre card of 2023 is
//! one. imece's own scores fell with the time that an interpreter took, and none of them used the GPU.

use std::num::NonZeroU64;
use talka_base::{DeviceKind, Factor, Scores, log2_millionths};

const GIGA: u64 = 1_000_000_000;
const MICRO_NS: u64 = 1_000;

/// What a machine was measured to do; zero says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Floating-point operations a second in products with bf16 weights and many rows.
    pub matmul_flops: u64,
    /// Bytes of weights read in a second.
    pub memory_bytes: u64,
    /// Nanoseconds in which a batch of eight tokens goes through a layer of 16.8 million bf16 weights.
    pub batch_ns: u64,
}

/// What scores nothing and what scores one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// The slowest machine that scores.
    pub least: Rates,
    /// The fastest one that scores more than others.
    pub most: Rates,
}

const fn scale(flops_g: [u64; 2], bytes_g: [u64; 2], batch_us: [u64; 2]) -> Scale {
    const fn rates(flops_g: u64, bytes_g: u64, batch_us: u64) -> Rates {
        Rates {
            matmul_flops: flops_g * GIGA,
            memory_bytes: bytes_g * GIGA,
            batch_ns: batch_us * MICRO_NS,
        }
    }
    Scale {
        least: rates(flops_g[0], bytes_g[0], batch_us[0]),
        most: rates(flops_g[1], bytes_g[1], batch_us[1]),
    }
}

impl Scale {
    /// The scale of a kind of device.
    pub const fn of(kind: DeviceKind) -> Self {
        match kind {
            DeviceKind::Mobile => scale([5, 1_000], [5, 100], [20_000, 300]),
            DeviceKind::Cpu => scale([10, 4_000], [5, 300], [20_000, 100]),
            DeviceKind::IntegratedGpu => scale([500, 30_000], [30, 500], [1_200, 70]),
            DeviceKind::DiscreteGpu => scale([3_000, 800_000], [80, 3_350], [500, 10]),
        }
    }
}

/// The scores of a device of this kind.
pub fn scores(kind: DeviceKind, rates: &Rates) -> Scores {
    let Scale { least, most } = Scale::of(kind);
    Scores {
        matmul: place(rates.matmul_flops, least.matmul_flops, most.matmul_flops),
        memory: place(rates.memory_bytes, least.memory_bytes, most.memory_bytes),
        latency: place(rates.batch_ns, least.batch_ns, most.batch_ns),
    }
}

/// Where `found` lies from `least`, which is nothing, to `most`, which is one; `most` may be the smaller number.
fn place(found: u64, least: u64, most: u64) -> Option<Factor> {
    let [found, least, most] = [found, least, most].map(NonZeroU64::new);
    let (found, least, most) = (found?, least?, most?);
    let (way, whole) = (log2_millionths(found, least), log2_millionths(most, least));
    let scaled = way * i64::from(Factor::SCALE) / whole;
    Some(Factor(u32::try_from(scaled.clamp(0, Factor::SCALE.into())).expect("within the scale")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_places_on_a_scale_of_logarithms() {
        assert_eq!(place(10, 10, 1_000), Some(Factor::ZERO));
        assert_eq!(place(100, 10, 1_000), Some(Factor(5_000)));
        assert_eq!(place(1_000, 10, 1_000), Some(Factor::ONE));
        assert_eq!(place(1, 10, 1_000), Some(Factor::ZERO));
        assert_eq!(place(u64::MAX, 10, 1_000), Some(Factor::ONE));
        assert_eq!(place(100, 1_000, 10), Some(Factor(5_000)), "less time is better");
        assert_eq!(place(0, 10, 1_000), None, "not measured");
    }

    /// A discrete GPU with the rates of a data sheet: TFLOP/s in bf16 with sums in f32, GB/s; a batch waits for memory.
    fn index(tera: u64, giga: u64) -> u32 {
        let rates = Rates {
            matmul_flops: tera * 1_000 * GIGA,
            memory_bytes: giga * GIGA,
            batch_ns: 33_600_000 / giga,
        };
        let scores = scores(DeviceKind::DiscreteGpu, &rates);
        let [matmul, memory, latency] =
            [scores.matmul, scores.memory, scores.latency].map(|score| score.expect("measured").0);
        (5 * matmul + 3 * memory + 2 * latency) / 10
    }

    #[test]
    fn cards_of_known_rates_come_out_in_the_published_classes() {
        for (card, index, class) in [
            ("RTX 3060", index(25, 360), 3_500..5_500),
            ("RTX 4080", index(97, 717), 5_500..7_000),
            ("RTX 4090", index(165, 1_008), 7_000..8_200),
            ("H100 SXM", index(989, 3_350), 9_200..10_001),
        ] {
            assert!(class.contains(&index), "{card}: {index}");
        }
    }
}

//! From the scores of a benchmark to a multiplier: the index, its eight classes, and what each kind of device may
//! reach.
//!
//! Index, thresholds and multipliers are those of the imece co-operative. Its index let a computer without a GPU
//! reach the class of an entry GPU, against its own table. So here the kind of device decides first: a kind that has
//! one class moves within its band only.

use talka_base::{DeviceKind, Factor, Scores};

/// Weights of matmul, memory and latency in the index; they sum to ten.
const WEIGHTS: [u32; 3] = [5, 3, 2];

/// The eight classes of hardware, the slowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HardwareClass {
    /// Phones, tablets, small boards.
    MobileEdge,
    /// Computers without a GPU that works.
    CpuOnly,
    /// Integrated GPUs and the smallest cards.
    EntryConsumerGpu,
    /// The baseline: such as RTX 3060 or RX 6700 XT.
    MidConsumerGpu,
    /// Such as RTX 4080 or RX 7900 XTX.
    HighConsumerGpu,
    /// Such as RTX 4090 or RTX 6000 Ada.
    ProsumerGpu,
    /// Such as A40 or L40S.
    ProfessionalAccelerator,
    /// Such as A100, H100 or H200.
    DatacenterAccelerator,
}

/// Where a class begins on the index, and its multiplier there.
struct Band {
    class: HardwareClass,
    from: u32,
    multiplier: u32,
}

const fn band(class: HardwareClass, from: u32, multiplier: u32) -> Band {
    Band { class, from, multiplier }
}

/// Ten-thousandths, ascending. Between two beginnings the multiplier is interpolated; the last is constant.
const BANDS: [Band; 8] = [
    band(HardwareClass::MobileEdge, 0, 500),
    band(HardwareClass::CpuOnly, 500, 1_000),
    band(HardwareClass::EntryConsumerGpu, 1_500, 5_000),
    band(HardwareClass::MidConsumerGpu, 3_500, 10_000),
    band(HardwareClass::HighConsumerGpu, 5_500, 20_000),
    band(HardwareClass::ProsumerGpu, 7_000, 30_000),
    band(HardwareClass::ProfessionalAccelerator, 8_200, 50_000),
    band(HardwareClass::DatacenterAccelerator, 9_200, 80_000),
];

/// The lowest multiplier, and the highest.
pub const MULTIPLIER_MIN: Factor = Factor(BANDS[0].multiplier);
/// See [`MULTIPLIER_MIN`].
pub const MULTIPLIER_MAX: Factor = Factor(BANDS[BANDS.len() - 1].multiplier);

impl HardwareClass {
    /// The class at `index`.
    pub fn at(index: Factor) -> Self {
        BANDS[place(index)].class
    }

    /// The name that the system it comes from uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MobileEdge => "mobile_edge",
            Self::CpuOnly => "cpu_only",
            Self::EntryConsumerGpu => "entry_consumer_gpu",
            Self::MidConsumerGpu => "mid_consumer_gpu",
            Self::HighConsumerGpu => "high_consumer_gpu",
            Self::ProsumerGpu => "prosumer_gpu",
            Self::ProfessionalAccelerator => "professional_accel",
            Self::DatacenterAccelerator => "datacenter_accel",
        }
    }
}

/// The number of the band that `index` lies in.
fn place(index: Factor) -> usize {
    BANDS.iter().rposition(|band| band.from <= index.0).expect("the first band begins at zero")
}

/// 0.5·matmul + 0.3·memory + 0.2·latency, rounded half up; zero if a score is missing.
pub fn index(scores: &Scores) -> Factor {
    let Scores { matmul: Some(matmul), memory: Some(memory), latency: Some(latency) } = *scores
    else {
        return Factor::ZERO;
    };
    let parts = [matmul, memory, latency].map(|score| score.min(Factor::ONE).0);
    let sum: u32 = parts.iter().zip(WEIGHTS).map(|(part, weight)| part * weight).sum();
    Factor((sum + 5) / 10)
}

/// The multiplier at `index`: linear within a band, rounded half up.
pub fn multiplier(index: Factor) -> Factor {
    let number = place(index);
    let low = &BANDS[number];
    let Some(high) = BANDS.get(number + 1) else { return MULTIPLIER_MAX };
    let (width, rise) = (high.from - low.from, high.multiplier - low.multiplier);
    let part = u64::from(index.0 - low.from) * u64::from(rise);
    let part = (2 * part + u64::from(width)) / (2 * u64::from(width));
    Factor(low.multiplier + u32::try_from(part).expect("at most the rise"))
}

/// The index that counts for a device of this kind.
///
/// The kinds of one class are spread over the band of that class: the best of them stays below the next class. A
/// discrete GPU keeps its index, and is at least an entry GPU.
pub fn index_of_kind(kind: DeviceKind, index: Factor) -> Factor {
    let number = match kind {
        DeviceKind::Mobile => 0,
        DeviceKind::Cpu => 1,
        DeviceKind::IntegratedGpu => 2,
        DeviceKind::DiscreteGpu => return index.clamp(Factor(BANDS[2].from), Factor::ONE),
    };
    let (from, to) = (BANDS[number].from, BANDS[number + 1].from - 1);
    Factor(from + (to - from) * index.min(Factor::ONE).0 / Factor::SCALE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scores(matmul: u32, memory: u32, latency: u32) -> Scores {
        let [matmul, memory, latency] = [matmul, memory, latency].map(|s| Some(Factor(s)));
        Scores { matmul, memory, latency }
    }

    #[test]
    fn the_published_index_is_weighted_and_zero_where_a_score_is_missing() {
        let found = index(&scores(4_500, 4_000, 3_500));
        assert_eq!(found, Factor(4_150));
        assert_eq!(HardwareClass::at(found).name(), "mid_consumer_gpu");
        assert_eq!(multiplier(found), Factor(13_250));
        assert_eq!(index(&scores(10_000, 10_000, 10_000)), Factor::ONE);
        assert_eq!(multiplier(Factor::ONE), Factor(80_000));
        let missing = Scores { latency: None, ..scores(10_000, 10_000, 0) };
        assert_eq!(index(&missing), Factor::ZERO);
        assert_eq!(HardwareClass::at(Factor::ZERO).name(), "mobile_edge");
    }

    #[test]
    fn the_published_multipliers_are_interpolated() {
        for (index, expected) in [
            (0, 500),
            (100, 600),
            (250, 750),
            (500, 1_000),
            (1_000, 3_000),
            (1_500, 5_000),
            (2_500, 7_500),
            (3_500, 10_000),
            (3_600, 10_500),
            (4_000, 12_500),
            (4_500, 15_000),
            (5_400, 19_500),
            (5_500, 20_000),
            (6_200, 24_667),
            (7_000, 30_000),
            (7_600, 40_000),
            (8_200, 50_000),
            (8_700, 65_000),
            (9_200, 80_000),
            (9_500, 80_000),
            (10_000, 80_000),
        ] {
            assert_eq!(multiplier(Factor(index)), Factor(expected), "{index}");
        }
        let classes = [100, 1_000, 2_500, 4_500, 6_200, 7_600, 8_700, 9_500];
        let classes = classes.map(|index| HardwareClass::at(Factor(index)));
        assert_eq!(classes, BANDS.map(|band| band.class));
    }

    #[test]
    fn the_kind_of_device_decides_before_the_index() {
        for (kind, slowest, fastest) in [
            (DeviceKind::Mobile, HardwareClass::MobileEdge, HardwareClass::MobileEdge),
            (DeviceKind::Cpu, HardwareClass::CpuOnly, HardwareClass::CpuOnly),
            (
                DeviceKind::IntegratedGpu,
                HardwareClass::EntryConsumerGpu,
                HardwareClass::EntryConsumerGpu,
            ),
            (
                DeviceKind::DiscreteGpu,
                HardwareClass::EntryConsumerGpu,
                HardwareClass::DatacenterAccelerator,
            ),
        ] {
            let class = |index| HardwareClass::at(index_of_kind(kind, index));
            assert_eq!((class(Factor::ZERO), class(Factor::ONE)), (slowest, fastest), "{kind}");
        }
        assert_eq!(index_of_kind(DeviceKind::DiscreteGpu, Factor(4_150)), Factor(4_150));
        assert_eq!(index_of_kind(DeviceKind::Cpu, Factor(5_000)), Factor(999));
    }

    proptest! {
        #[test]
        fn a_better_score_is_never_worth_less(low in 0u32..=10_000, more in 0u32..=10_000) {
            let high = (low + more).min(10_000);
            prop_assert!(multiplier(Factor(low)) <= multiplier(Factor(high)));
            prop_assert!(HardwareClass::at(Factor(low)) <= HardwareClass::at(Factor(high)));
            for kind in [
                DeviceKind::Mobile, DeviceKind::Cpu, DeviceKind::IntegratedGpu, DeviceKind::DiscreteGpu,
            ] {
                let [low, high] = [low, high].map(|i| multiplier(index_of_kind(kind, Factor(i))));
                prop_assert!(low <= high);
                prop_assert!((MULTIPLIER_MIN..=MULTIPLIER_MAX).contains(&low));
            }
        }
    }
}

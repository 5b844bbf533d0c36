//! What the FEI network's table says of GPUs. Shown to people, and nothing follows from it.

/// How well a GPU does a kind of work, from 0 (not recommended) to 3 (excellent).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rating(u8);

impl Rating {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self.0 {
            3 => "excellent",
            2 => "good",
            1 => "limited",
            _ => "not recommended",
        }
    }
}

/// The kinds of work that are rated, in the order of [`Gpu::ratings`].
pub const WORK: [&str; 6] = [
    "models below 3 B",
    "3 to 7 B",
    "7 to 13 B",
    "above 13 B",
    "quantised training",
    "training at full precision",
];

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gpu {
    /// As people call it.
    pub name: &'static str,
    /// The words that its full name has.
    words: &'static [&'static str],
    /// Memory in GB, of the smallest and of the largest made.
    pub memory_gb: (u16, u16),
    ratings: [u8; 6],
}

impl Gpu {
    /// What it is rated for each kind of work, by name.
    pub fn ratings(&self) -> impl Iterator<Item = (&'static str, Rating)> {
        WORK.into_iter().zip(self.ratings.map(Rating))
    }
}

const fn row(
    name: &'static str,
    words: &'static [&'static str],
    memory_gb: (u16, u16),
    ratings: [u8; 6],
) -> Gpu {
    Gpu { name, words, memory_gb, ratings }
}

/// All of them.
pub const GPUS: [Gpu; 36] = [
    row("RTX 4090", &["4090"], (24, 24), [3, 3, 2, 1, 3, 2]),
    row("RTX 4080", &["4080"], (16, 16), [3, 2, 1, 0, 3, 1]),
    row("RTX 4070 Ti", &["4070", "ti"], (12, 12), [3, 2, 0, 0, 2, 1]),
    row("RTX 4070", &["4070"], (12, 12), [3, 1, 0, 0, 2, 1]),
    row("RTX 4060 Ti", &["4060", "ti"], (8, 8), [2, 0, 0, 0, 1, 0]),
    row("RTX 3090", &["3090"], (24, 24), [3, 2, 1, 0, 3, 2]),
    row("RTX 3080 Ti", &["3080", "ti"], (12, 12), [3, 1, 0, 0, 2, 1]),
    row("RTX 3080", &["3080"], (10, 10), [2, 1, 0, 0, 2, 0]),
    row("RTX 3070", &["3070"], (8, 8), [2, 0, 0, 0, 1, 0]),
    row("RTX 3060", &["3060"], (8, 12), [2, 0, 0, 0, 1, 0]),
    row("RTX 2080 Ti", &["2080", "ti"], (11, 11), [2, 1, 0, 0, 2, 0]),
    row("RTX 2080", &["2080"], (8, 8), [2, 0, 0, 0, 1, 0]),
    row("RTX 2070", &["2070"], (8, 8), [2, 0, 0, 0, 1, 0]),
    row("RTX 2060", &["2060"], (6, 6), [1, 0, 0, 0, 0, 0]),
    row("GTX 1660", &["1660"], (6, 6), [1, 0, 0, 0, 0, 0]),
    row("RX 7900 XTX", &["rx", "7900", "xtx"], (24, 24), [3, 2, 1, 0, 2, 1]),
    row("RX 7900 XT", &["rx", "7900", "xt"], (20, 20), [3, 2, 1, 0, 2, 1]),
    row("RX 7800 XT", &["rx", "7800", "xt"], (16, 16), [3, 2, 0, 0, 2, 1]),
    row("RX 7700 XT", &["rx", "7700", "xt"], (12, 12), [2, 1, 0, 0, 1, 0]),
    row("RX 7600", &["rx", "7600"], (8, 8), [2, 0, 0, 0, 1, 0]),
    row("RX 6950 XT", &["rx", "6950", "xt"], (16, 16), [3, 2, 0, 0, 2, 1]),
    row("RX 6900 XT", &["rx", "6900", "xt"], (16, 16), [3, 2, 0, 0, 2, 1]),
    row("RX 6800", &["rx", "6800"], (16, 16), [3, 2, 0, 0, 2, 1]),
    row("RX 6700 XT", &["rx", "6700", "xt"], (12, 12), [2, 1, 0, 0, 1, 0]),
    row("RX 6600", &["rx", "6600"], (8, 8), [2, 0, 0, 0, 1, 0]),
    row("H100", &["h100"], (80, 80), [3, 3, 3, 3, 3, 3]),
    row("A100", &["a100"], (40, 80), [3, 3, 3, 2, 3, 3]),
    row("A40", &["a40"], (48, 48), [3, 3, 3, 2, 3, 3]),
    row("A10", &["a10"], (24, 24), [3, 3, 2, 1, 3, 2]),
    row("RTX A6000", &["a6000"], (48, 48), [3, 3, 3, 2, 3, 3]),
    row("RTX A5000", &["a5000"], (24, 24), [3, 3, 2, 1, 3, 2]),
    row("RTX A4000", &["a4000"], (16, 16), [3, 2, 1, 0, 3, 1]),
    row("Instinct MI250X", &["mi250x"], (128, 128), [3, 3, 3, 3, 3, 3]),
    row("Instinct MI210", &["mi210"], (64, 64), [3, 3, 3, 2, 3, 3]),
    row("Radeon Pro W7900", &["w7900"], (48, 48), [3, 3, 3, 2, 3, 3]),
    row("Radeon Pro W7800", &["w7800"], (32, 32), [3, 3, 2, 1, 3, 2]),
];

/// The row of the GPU of this full name, such as `NVIDIA GeForce RTX 4070 Ti`.
pub fn gpu(full_name: &str) -> Option<&'static Gpu> {
    let found: Vec<String> = full_name
        .split(|c: char| !c.is_ascii_alphanumeric())
        .map(str::to_ascii_lowercase)
        .collect();
    let is_named = |gpu: &&Gpu| gpu.words.iter().all(|word| found.iter().any(|f| f == word));
    GPUS.iter().filter(is_named).max_by_key(|gpu| gpu.words.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(full_name: &str, expected: Option<&str>) {
        assert_eq!(gpu(full_name).map(|gpu| gpu.name), expected, "{full_name}");
    }

    #[test]
    fn a_row_is_found_by_the_full_name() {
        check("NVIDIA GeForce RTX 4070 Ti", Some("RTX 4070 Ti"));
        check("NVIDIA GeForce RTX 4070", Some("RTX 4070"));
        check("NVIDIA GeForce RTX 3060 Ti", Some("RTX 3060"));
        check("NVIDIA H100 80GB HBM3", Some("H100"));
        check("NVIDIA A100-SXM4-40GB", Some("A100"));
        check("AMD Radeon RX 7900 XTX", Some("RX 7900 XTX"));
        check("AMD Radeon Pro W7900", Some("Radeon Pro W7900"));
        check("NVIDIA RTX A6000", Some("RTX A6000"));
        check("Intel(R) UHD Graphics 620", None);
        check("", None);
    }

    #[test]
    fn ratings_and_memory_are_those_of_the_table() {
        let ratings = |name: &str| {
            let gpu = gpu(name).expect("of the table");
            (gpu.memory_gb, gpu.ratings().map(|(_, rating)| rating.0).collect::<Vec<_>>())
        };
        assert_eq!(ratings("RTX 4090"), ((24, 24), vec![3, 3, 2, 1, 3, 2]));
        assert_eq!(ratings("A100"), ((40, 80), vec![3, 3, 3, 2, 3, 3]));
        assert_eq!(ratings("GTX 1660 SUPER"), ((6, 6), vec![1, 0, 0, 0, 0, 0]));
        assert!(GPUS.iter().all(|gpu| gpu.ratings.iter().all(|rating| *rating <= 3)));
        let best = gpu("H100").expect("of the table").ratings().next().expect("rated");
        assert_eq!(best, ("models below 3 B", Rating(3)));
        assert_eq!([3, 2, 1, 0].map(|rating| Rating(rating).name())[0], "excellent");
    }
}

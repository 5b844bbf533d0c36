//! Words that a crate may not say, and how long a file may be.

use super::source::{Word, words};

/// The crates and modules in which every honest node must compute the same bits.
const MUST_AGREE: [&str; 5] = [
    "crates/base/",
    "crates/ledger/",
    "crates/train/src/assign",
    "crates/train/src/round.",
    "crates/train/src/round/",
];

/// What differs between two honest nodes, or between two runs of one.
const DIFFERS: [(&str, &str); 7] = [
    ("HashMap", "its order differs from run to run: use BTreeMap"),
    ("HashSet", "its order differs from run to run: use BTreeSet"),
    ("Instant", "no clock: the shell passes a Tick down"),
    ("SystemTime", "no clock: the shell passes a Tick down"),
    ("f32", "integers only"),
    ("f64", "integers only"),
    ("async", "nothing waits here: the shell does"),
];

/// Where `unsafe` may stand, each with its reason.
const UNSAFE_ROOMS: [(&str, &str); 1] = [("crates/engine/src/kernels", "SIMD intrinsics")];

/// Longer files are split, or listed in [`LONG_FILES`].
const LINES_MAX: usize = 800;

/// Files that may be longer than [`LINES_MAX`], each with its reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// Every departure of the file `path` (from the root, with `/`) that reads `source`.
pub fn faults(path: &str, source: &str) -> Vec<String> {
    let mut faults: Vec<String> = words(source)
        .iter()
        .filter_map(|word| Some(format!("{path}:{}: {}", word.line, fault(path, word)?)))
        .collect();
    let lines = source.lines().count();
    if lines > LINES_MAX && !LONG_FILES.iter().any(|(long, _)| *long == path) {
        faults.push(format!("{path}: {lines} lines, expected at most {LINES_MAX}"));
    }
    faults
}

fn fault(path: &str, word: &Word<'_>) -> Option<String> {
    if word.text == "unsafe" && !UNSAFE_ROOMS.iter().any(|(room, _)| path.starts_with(room)) {
        let rooms = UNSAFE_ROOMS.map(|(room, _)| room);
        return Some(format!("`unsafe` outside {}", rooms.join(", ")));
    }
    // Examples measure; nothing depends on them.
    let must_agree = MUST_AGREE.iter().find_map(|crate_| path.strip_prefix(crate_));
    if must_agree.is_none_or(|place| place.starts_with("examples/")) {
        return None;
    }
    if word.is_float() {
        return Some(format!("{}: integers only", word.text));
    }
    let (name, why) = DIFFERS.iter().find(|(name, _)| *name == word.text)?;
    Some(format!("`{name}`: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, source: &str, expected: &[&str]) {
        assert_eq!(faults(path, source), expected);
    }

    #[test]
    fn the_agreeing_crates_say_no_word_that_differs() {
        let source = "// f32\nlet x: f64 = y;\nlet z = 0.5;";
        check(
            "crates/ledger/src/price.rs",
            source,
            &[
                "crates/ledger/src/price.rs:2: `f64`: integers only",
                "crates/ledger/src/price.rs:3: 0.5: integers only",
            ],
        );
        check("crates/plan/src/route.rs", source, &[]);
        let float = "let z = 0.5;";
        let found = ["crates/train/src/round/vote.rs:1: 0.5: integers only"];
        check("crates/train/src/round/vote.rs", float, &found);
        check("crates/train/src/outer.rs", float, &[]);
        check("crates/ledger/examples/payment.rs", source, &[]);
    }

    #[test]
    fn unsafe_stands_only_in_its_rooms() {
        check("crates/engine/src/kernels/avx2.rs", "unsafe { f() }", &[]);
        check(
            "crates/net/src/lib.rs",
            "\nunsafe { f() }",
            &["crates/net/src/lib.rs:2: `unsafe` outside crates/engine/src/kernels"],
        );
    }

    #[test]
    fn long_files_are_named() {
        let source = "\n".repeat(LINES_MAX + 1);
        check("xtask/src/a.rs", &source, &["xtask/src/a.rs: 801 lines, expected at most 800"]);
    }
}

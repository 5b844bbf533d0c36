//! How parts of files that are elsewhere are read: which together, and where one ends within what comes.
//!
//! Asking takes as long as some bytes more do, so parts that are near each other are read in one go, and what
//! lies between them is dropped. Pure: reads nothing.

use std::{collections::VecDeque, ops::Range};

/// Bytes between two parts that are rather read than skipped: what a line of 10 Mbit/s carries in the tenth
/// of a second that one more request takes.
pub const GAP_BYTES_MAX: u64 = 128 << 10;

/// Bytes of one request. Larger loses nothing when it is cut, but keeps other connections without work.
pub const RUN_BYTES_MAX: u64 = 32 << 20;

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<T> {
    /// Tells it from others.
    pub tag: T,
    /// Which file, counted from 0.
    pub file: u32,
    /// Which bytes.
    pub range: Range<u64>,
}

/// Parts of one file that are read together, by their place; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run<T> {
    /// Which file.
    pub file: u32,
    /// From the first part's start to the last one's end.
    pub range: Range<u64>,
    parts: VecDeque<(T, Range<u64>)>,
}

/// What to read so that all of `parts` come, by file and place. Empty parts are left out.
pub fn runs<T>(parts: impl IntoIterator<Item = Part<T>>) -> Vec<Run<T>> {
    let mut parts: Vec<_> = parts.into_iter().filter(|part| !part.range.is_empty()).collect();
    parts.sort_by_key(|part| (part.file, part.range.start, part.range.end));
    let mut runs: Vec<Run<T>> = Vec::new();
    for Part { tag, file, range } in parts {
        let joins = |run: &&mut Run<T>| {
            let gap = range.start.checked_sub(run.range.end);
            run.file == file
                && gap.is_some_and(|gap| gap <= GAP_BYTES_MAX)
                && range.end - run.range.start <= RUN_BYTES_MAX
        };
        match runs.last_mut().filter(joins) {
            Some(run) => {
                run.range.end = range.end;
                run.parts.push_back((tag, range));
            }
            None => runs.push(Run { file, range: range.clone(), parts: [(tag, range)].into() }),
        }
    }
    runs
}

/// Cuts the bytes of a run into its parts.
#[derive(Debug)]
pub struct Cutter<T> {
    at: u64,
    left: VecDeque<(T, Range<u64>)>,
    begun: Vec<u8>,
}

impl<T> Cutter<T> {
    /// For the bytes of `run`, from its start.
    pub fn new(run: Run<T>) -> Self {
        Self { at: run.range.start, left: run.parts, begun: Vec::new() }
    }

    /// The next `bytes` came; gives the parts that are whole now.
    pub fn take(&mut self, mut bytes: &[u8]) -> Vec<(T, Vec<u8>)> {
        let mut whole = Vec::new();
        while let Some((_, range)) = self.left.front().filter(|_| !bytes.is_empty()) {
            let (until, is_wanted) = match self.at < range.start {
                true => (range.start, false),
                false => (range.end, true),
            };
            let count = bytes.len().min(usize::try_from(until - self.at).unwrap_or(usize::MAX));
            let (now, later) = bytes.split_at(count);
            (self.at, bytes) = (self.at + count as u64, later);
            if is_wanted {
                self.begun.extend_from_slice(now);
            }
            if is_wanted && self.at == until {
                let part = std::mem::take(&mut self.begun);
                whole.extend(self.left.pop_front().map(|(tag, _)| (tag, part)));
            }
        }
        whole
    }

    /// Whether every part was given.
    pub fn is_done(&self) -> bool {
        self.left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(tag: usize, file: u32, range: Range<u64>) -> Part<usize> {
        Part { tag, file, range }
    }

    fn ranges(parts: impl IntoIterator<Item = Part<usize>>) -> Vec<(u32, Range<u64>)> {
        runs(parts).into_iter().map(|run| (run.file, run.range)).collect()
    }

    #[test]
    fn near_parts_are_read_together_and_far_ones_apart() {
        let gap = GAP_BYTES_MAX;
        let near = [part(0, 0, 10..20), part(1, 0, 20..30), part(2, 0, 30 + gap..31 + gap)];
        assert_eq!(ranges(near), [(0, 10..31 + gap)]);
        let far = [part(0, 0, 31 + gap..32 + gap), part(1, 0, 10..30), part(2, 1, 30..31)];
        assert_eq!(ranges(far), [(0, 10..30), (0, 31 + gap..32 + gap), (1, 30..31)]);
        let long = RUN_BYTES_MAX;
        assert_eq!(ranges([part(0, 0, 0..long), part(1, 0, long..long + 1)]).len(), 2);
        assert_eq!(ranges([part(0, 0, 5..5)]), []);
        assert_eq!(ranges([part(0, 0, 0..9), part(1, 0, 5..12)]).len(), 2, "none overlaps");
    }

    proptest! {
        /// Goal: every part comes whole and once, whatever lies between and however the bytes are cut.
        #[test]
        fn every_part_comes_whole(
            steps in prop::collection::vec((0..300_000_u64, 0..70_000_u64), 1..12),
            chunk in 1..400_000_usize,
        ) {
            let (mut at, mut parts) = (0, Vec::new());
            for (tag, (gap, length)) in steps.into_iter().enumerate() {
                parts.push(part(tag, 0, at + gap..at + gap + length));
                at += gap + length;
            }
            let byte = |at: u64| (at % 251) as u8;
            let mut left: Vec<_> = parts.iter().filter(|part| !part.range.is_empty()).cloned().collect();
            for run in runs(parts) {
                prop_assert!(run.range.end - run.range.start <= RUN_BYTES_MAX);
                let bytes: Vec<u8> = run.range.clone().map(byte).collect();
                let mut cutter = Cutter::new(run);
                for (tag, part) in bytes.chunks(chunk).flat_map(|chunk| cutter.take(chunk)) {
                    let known = left.remove(0);
                    prop_assert_eq!(known.tag, tag);
                    prop_assert!(known.range.map(byte).eq(part));
                }
                prop_assert!(cutter.is_done());
            }
            prop_assert_eq!(left, []);
        }
    }
}

//! The layers to be covered, counted without what lies between them: *places*.

use talka_base::LayerSpan;

/// Runs of layers, in order, as one run of places from 0 on.
#[derive(Debug)]
pub(super) struct Open {
    gaps: Vec<LayerSpan>,
}

impl Open {
    /// `gaps` are in order and do not touch.
    pub(super) fn new(gaps: Vec<LayerSpan>) -> Self {
        Self { gaps }
    }

    /// Number of places.
    pub(super) fn len(&self) -> u32 {
        self.gaps.iter().map(|gap| gap.len()).sum()
    }

    /// Each gap and its first place.
    fn placed(&self) -> impl Iterator<Item = (u32, LayerSpan)> + '_ {
        self.gaps.iter().scan(0, |at, gap| {
            let first = *at;
            *at += gap.len();
            Some((first, *gap))
        })
    }

    /// The layers at places `start..end`: one span in each gap that is touched.
    pub(super) fn spans(&self, start: u32, end: u32) -> impl Iterator<Item = LayerSpan> + '_ {
        self.placed().filter_map(move |(first, gap)| {
            let begin = start.max(first).min(first + gap.len());
            let until = end.max(first).min(first + gap.len());
            LayerSpan::new(gap.start() + begin - first, gap.start() + until - first).ok()
        })
    }

    /// The places of each of `spans` that lies in a gap, and of runs of them that go on over the end of one.
    pub(super) fn places(&self, spans: &[LayerSpan]) -> Vec<(u32, u32)> {
        let place = |span: &LayerSpan| {
            let (first, gap) = self.placed().find(|(_, gap)| gap.contains(*span))?;
            let start = first + span.start() - gap.start();
            Some((start, start + span.len()))
        };
        let mut single: Vec<_> = spans.iter().filter_map(place).collect();
        single.sort_unstable();
        single.dedup();
        let ends: Vec<u32> = self.placed().map(|(first, gap)| first + gap.len()).collect();
        let mut runs = single.clone();
        let mut at = 0;
        while let Some(&(start, end)) = runs.get(at) {
            let next = single.iter().find(|(next, _)| *next == end && ends.contains(&end));
            runs.extend(next.map(|(_, end)| (start, *end)));
            at += 1;
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_open_layers_only() {
        let span = |a, b| LayerSpan::new(a, b).expect("test span");
        let open = Open::new(vec![span(0, 2), span(4, 6), span(7, 9)]);
        assert_eq!(open.len(), 6);
        let spans = |a, b| open.spans(a, b).map(|span| span.to_string()).collect::<Vec<_>>();
        assert_eq!(spans(0, 2), ["0..2"]);
        assert_eq!(spans(1, 5), ["1..2", "4..6", "7..8"]);
        assert_eq!(spans(3, 3), [""; 0]);
        let places = open.places(&[span(4, 6), span(1, 2), span(2, 4), span(7, 8), span(0, 9)]);
        assert_eq!(places, [(1, 2), (2, 4), (4, 5), (1, 4), (2, 5), (1, 5)]);
    }
}

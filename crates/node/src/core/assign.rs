//! From what a node should serve and what it serves to what it should load and give back.

use talka_base::LayerSpan;

/// What to do so that a node serves its target.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Spans to load.
    pub load: Vec<LayerSpan>,
    /// Spans to give back.
    pub unload: Vec<LayerSpan>,
}

/// `known` are the spans served, being loaded or given up; `serves` those served; `others` what
/// other live nodes serve and will go on to.
///
/// A span outside the target is given back only when every layer of it is served by others or by
/// a target span that is ready here: moving layers never opens a gap in coverage.
pub fn changes(
    known: &[LayerSpan],
    serves: &[LayerSpan],
    target: &[LayerSpan],
    others: &[LayerSpan],
) -> Changes {
    let load = target.iter().filter(|span| !known.contains(span)).copied().collect();
    let ready = serves.iter().filter(|span| target.contains(span));
    let covered: Vec<_> = ready.chain(others).copied().collect();
    let is_covered = |span: &LayerSpan| {
        span.layers().all(|layer| covered.iter().any(|other| other.contains_layer(layer)))
    };
    let unload =
        serves.iter().filter(|span| !target.contains(span) && is_covered(span)).copied().collect();
    Changes { load, unload }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(known: &str, serves: &str, target: &str, others: &str, load: &str, unload: &str) {
        let spans = |text: &str| -> Vec<LayerSpan> {
            text.split_whitespace().map(|s| s.parse().expect("test span")).collect()
        };
        let found = changes(&spans(known), &spans(serves), &spans(target), &spans(others));
        assert_eq!(found, Changes { load: spans(load), unload: spans(unload) });
    }

    #[test]
    fn loads_what_is_missing_and_keeps_what_nobody_else_serves() {
        check("", "", "0..6", "", "0..6", "");
        check("0..6", "", "0..6", "", "", "");
        check("0..6", "0..6", "0..3", "", "0..3", "");
        check("0..6 0..3", "0..6 0..3", "0..3", "", "", "");
        check("0..6 0..3", "0..6 0..3", "0..3", "3..5", "", "");
        check("0..6 0..3", "0..6 0..3", "0..3", "3..5 5..6", "", "0..6");
        check("0..6", "0..6", "", "0..6", "", "0..6");
    }
}

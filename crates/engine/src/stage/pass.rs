//! Rows of several sequences through the layers together.

use super::{BatchItem, LogitsWanted, ROWS_MAX, Stage, StageInput, StageOutput};
use crate::{block::Scratch, error::StageError, kv::Batch};
use std::ops::Range;
use talka_base::LayerSpan;

/// How far one item is.
struct Run {
    rows: usize,
    done: usize,
    output: StageOutput,
}

impl Run {
    /// What is wanted, where it has a meaning.
    fn wanted(&self, logits: LogitsWanted) -> LogitsWanted {
        match self.output {
            StageOutput::Logits(_) => logits,
            StageOutput::Hidden(_) => LogitsWanted::None,
        }
    }
}

/// What one item contributes to a pass.
struct Part<'a> {
    /// Its place among the items.
    item: usize,
    input: StageInput<'a>,
    /// Its rows of the pass.
    rows: Range<usize>,
    wanted: LogitsWanted,
    /// Whether these are the item's last rows.
    is_last: bool,
}

impl Part<'_> {
    /// Its rows that logits are computed for.
    fn logit_rows(&self) -> Range<usize> {
        match self.wanted {
            LogitsWanted::All => self.rows.clone(),
            LogitsWanted::Last if self.is_last => self.rows.end - 1..self.rows.end,
            LogitsWanted::Last | LogitsWanted::None => self.rows.end..self.rows.end,
        }
    }
}

impl Stage {
    /// Runs the layers of one span, that of the first item's cache, over the new positions of all items,
    /// and adds these to each item's cache. The results stand in the order of the items; none depends,
    /// to the bit, on the others.
    ///
    /// # Errors
    /// [`StageError`] for each item whose input does not belong here, holds an unknown token, or does
    /// not fit its cache. Its cache is as it was; the other items are run.
    pub fn run_batch(
        &mut self,
        items: &mut [BatchItem<'_>],
    ) -> Vec<Result<StageOutput, StageError>> {
        let Some(span) = items.first().map(|item| item.cache.span()) else { return Vec::new() };
        let mut runs: Vec<_> = items.iter().map(|item| self.begin(item, span)).collect();
        while self.pass(items, &mut runs, span) {}
        runs.into_iter().map(|run| run.map(|run| run.output)).collect()
    }

    fn begin(&self, item: &BatchItem<'_>, span: LayerSpan) -> Result<Run, StageError> {
        let found = item.cache.span();
        if found != span {
            return Err(StageError::OtherSpan { found, expected: span });
        }
        let rows = self.check(item.input, item.cache)?;
        Ok(Run { rows, done: 0, output: self.empty_output(span, item.logits, rows) })
    }

    /// Takes at most [`ROWS_MAX`] of the rows left through the layers; false if none was left.
    fn pass(
        &mut self,
        items: &mut [BatchItem<'_>],
        runs: &mut [Result<Run, StageError>],
        span: LayerSpan,
    ) -> bool {
        let width = self.architecture.shape.hidden as usize;
        let mut batch = Batch::new();
        let mut parts = Vec::new();
        for (index, (item, run)) in items.iter_mut().zip(&mut *runs).enumerate() {
            let Ok(run) = run else { continue };
            let rows =
                self.rows_of_pass(run.rows - run.done, ROWS_MAX.saturating_sub(batch.rows()));
            if rows == 0 {
                continue;
            }
            let input = item.input.rows(run.done..run.done + rows, width);
            run.done += rows;
            let tokens = if let StageInput::Tokens(tokens) = input { Some(tokens) } else { None };
            let rows = batch.rows()..batch.rows() + rows;
            batch.push(item.cache, rows.len(), tokens);
            let is_last = run.done == run.rows;
            parts.push(Part { item: index, input, rows, wanted: run.wanted(item.logits), is_last });
        }
        if parts.is_empty() {
            return false;
        }
        self.scratch.begin(&self.architecture, &batch);
        self.enter(&parts, &batch);
        self.run_blocks(span, &mut batch);
        batch.advance();
        self.leave(&parts, runs, span);
        true
    }

    /// How many of the `left` rows of an item join a pass with room for `room`. A row that sees later
    /// ones needs them in the same pass.
    fn rows_of_pass(&self, left: usize, room: usize) -> usize {
        if self.architecture.decoder || room == 0 { left.min(room) } else { left }
    }

    /// Writes the inputs into `scratch.hidden` `[T, D]`.
    fn enter(&mut self, parts: &[Part<'_>], batch: &Batch<'_>) {
        let tokens = parts.iter().filter_map(|part| match part.input {
            StageInput::Tokens(tokens) => Some(tokens),
            StageInput::Hidden(_) => None,
        });
        let mut tokens = tokens.flatten().copied().peekable();
        if tokens.peek().is_some() {
            // Tokens enter at layer 0 only, and there nothing else does.
            return self.embed(tokens, batch);
        }
        let width = self.architecture.shape.hidden as usize;
        for part in parts {
            if let StageInput::Hidden(hidden) = part.input {
                let rows = part.rows.start * width..part.rows.end * width;
                self.scratch.hidden[rows].copy_from_slice(hidden);
            }
        }
    }

    fn run_blocks(&mut self, span: LayerSpan, batch: &mut Batch<'_>) {
        let first = (span.start() - self.span.start()) as usize;
        let blocks = &self.blocks[first..][..span.len() as usize];
        for (index, (block, layer)) in blocks.iter().zip(span.layers()).enumerate() {
            let scratch = &mut self.scratch;
            block.run(&self.kernels, &self.architecture, scratch, batch, index, layer);
        }
    }

    /// Appends to each item's output what its rows in `scratch.hidden` `[T, D]` contribute.
    fn leave(&mut self, parts: &[Part<'_>], runs: &mut [Result<Run, StageError>], span: LayerSpan) {
        let width = self.architecture.shape.hidden as usize;
        let tail = self.tail.as_ref().filter(|_| span.end() == self.span.end());
        if let Some(norm) = tail.and_then(|tail| tail.norm.as_ref()) {
            let Scratch { hidden, normed, .. } = &mut self.scratch;
            norm.run(&self.kernels, &self.architecture, normed, hidden);
            std::mem::swap(normed, hidden);
        }
        let logits = self.logits(parts);
        let mut logits = logits.as_slice();
        for part in parts {
            let Ok(run) = &mut runs[part.item] else { continue };
            match &mut run.output {
                StageOutput::Hidden(out) => {
                    let rows = part.rows.start * width..part.rows.end * width;
                    out.extend_from_slice(&self.scratch.hidden[rows]);
                }
                StageOutput::Logits(out) => {
                    let vocab = self.architecture.shape.vocab as usize;
                    let (mine, others) = logits.split_at(part.logit_rows().len() * vocab);
                    out.extend_from_slice(mine);
                    logits = others;
                }
            }
        }
    }

    /// The logits of all rows of `scratch.hidden` that are wanted, one after the other: `[_, V]`. Uses
    /// up `scratch.normed`.
    fn logits(&mut self, parts: &[Part<'_>]) -> Vec<f32> {
        let Some(head) = self.tail.as_ref().and_then(|tail| tail.head.as_ref()) else {
            return Vec::new();
        };
        let shape = &self.architecture.shape;
        let (width, vocab) = (shape.hidden as usize, shape.vocab as usize);
        let rows = &mut self.scratch.normed;
        rows.clear();
        for wanted in parts.iter().map(Part::logit_rows) {
            rows.extend_from_slice(&self.scratch.hidden[wanted.start * width..wanted.end * width]);
        }
        let mut logits = vec![0.0; rows.len() / width * vocab];
        if !rows.is_empty() {
            self.kernels.matmul(&mut logits, rows, head.matrix());
        }
        if let Some(cap) = self.architecture.logits_softcap {
            self.kernels.softcap(&mut logits, cap);
        }
        logits
    }
}

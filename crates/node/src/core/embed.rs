//! One text as the head that wants its vector sees it: tokens out, pooled hidden states in.
//!
//! A machine without I/O, like [`super::head`]. An encoder's text goes in one step, for its rows see
//! each other; a decoder's in pieces, like a prompt. The last stage pools each step's rows, so that one
//! vector travels and not all hidden states.

use super::head::{HeadError, Step, chunk_rows};
use crate::wire::Wanted;
use std::collections::VecDeque;
use talka_engine::{LogitsWanted, Model, Pooling, embed::normalise};

/// The state of one text.
#[derive(Debug)]
pub struct Embedder {
    /// Steps that are to be answered, and the rows of each.
    open: VecDeque<(u64, usize)>,
    /// Sum of the answers `[D]`, each as often as it has rows.
    sum: Vec<f64>,
    rows: usize,
}

impl Embedder {
    /// The machine for `tokens`, at least one, and all its steps.
    pub fn new(model: &Model, tokens: &[u32]) -> (Self, Vec<Step>) {
        let pooling = model.embedding().pooling;
        let width = model.shape().hidden;
        let rows = if model.is_decoder() { chunk_rows(width) } else { tokens.len() };
        let last = tokens.len().div_ceil(rows) - 1;
        let steps = tokens.chunks(rows).enumerate().map(|(at, tokens)| {
            let counts = match pooling {
                Pooling::Mean => true,
                Pooling::Cls => at == 0,
                Pooling::Last => at == last,
            };
            Step {
                number: at as u64,
                position: (at * rows) as u32,
                tokens: tokens.to_vec(),
                wants: match counts {
                    true => Wanted::Vector(pooling),
                    false => Wanted::Logits(LogitsWanted::None),
                },
            }
        });
        let steps: Vec<Step> = steps.collect();
        let answered = steps.iter().filter(|step| step.wants == Wanted::Vector(pooling));
        let open = answered.map(|step| (step.number, step.tokens.len())).collect();
        (Self { open, sum: vec![0.0; width as usize], rows: 0 }, steps)
    }

    /// Takes in the answer `[D]` to the next step; the vector `[D]`, of length 1, after the last.
    ///
    /// # Errors
    /// [`HeadError`] if it is not that answer: the stage that sent it is to blame.
    pub fn vector(&mut self, step: u64, values: &[f32]) -> Result<Option<Vec<f32>>, HeadError> {
        let expected = self.open.front().copied();
        let (number, rows) = expected.ok_or(HeadError::Unasked { found: step })?;
        if step != number {
            return Err(HeadError::WrongStep { expected: number, found: step });
        }
        if values.len() != self.sum.len() {
            return Err(HeadError::WrongWidth { expected: self.sum.len(), found: values.len() });
        }
        if !values.iter().all(|x| x.is_finite()) {
            return Err(HeadError::NotANumber);
        }
        self.open.pop_front();
        self.rows += rows;
        self.sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += f64::from(*x) * rows as f64);
        if !self.open.is_empty() {
            return Ok(None);
        }
        let mut vector: Vec<f32> =
            self.sum.iter().map(|sum| (sum / self.rows as f64) as f32).collect();
        normalise(&mut vector);
        Ok(Some(vector))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_engine::ModelSource;

    fn bard() -> Model {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/models/bard");
        Model::open(ModelSource::Folder(folder.into())).expect("the bundled model opens")
    }

    fn unit(at: usize) -> Vec<f32> {
        let mut vector = vec![0.0; 192];
        vector[at] = 1.0;
        vector
    }

    #[test]
    fn a_decoders_last_row_counts_however_long_the_text_is() {
        let rows = chunk_rows(192);
        let (mut embedder, steps) = Embedder::new(&bard(), &vec![7; rows + 2]);
        let wants: Vec<_> = steps.iter().map(|step| (step.position as usize, step.wants)).collect();
        let none = Wanted::Logits(LogitsWanted::None);
        assert_eq!(wants, [(0, none), (rows, Wanted::Vector(Pooling::Last))]);
        let vector = embedder.vector(1, &vec![2.0; 192]).expect("the answer").expect("the last");
        assert!(vector.iter().all(|x| (x * 192_f32.sqrt() - 1.0).abs() < 1e-6));
        assert_eq!(embedder.vector(1, &unit(0)), Err(HeadError::Unasked { found: 1 }));
    }

    #[test]
    fn means_of_pieces_count_by_their_rows() {
        let open = VecDeque::from([(0, 3), (1, 1)]);
        let mut embedder = Embedder { open, sum: vec![0.0; 192], rows: 0 };
        assert_eq!(embedder.vector(0, &unit(0)), Ok(None));
        let vector = embedder.vector(1, &unit(1)).expect("the answer").expect("the last");
        assert!((vector[0] / vector[1] - 3.0).abs() < 1e-6);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let (mut embedder, _) = Embedder::new(&bard(), &[7]);
        let wrong = embedder.vector(3, &unit(0));
        assert_eq!(wrong, Err(HeadError::WrongStep { expected: 0, found: 3 }));
        let short = embedder.vector(0, &[1.0]);
        assert_eq!(short, Err(HeadError::WrongWidth { expected: 192, found: 1 }));
        assert_eq!(embedder.vector(0, &vec![f32::NAN; 192]), Err(HeadError::NotANumber));
    }
}

//! What compression left out, carried to the next round by the member itself.

use super::{Compressor, UpdateError};
use crate::Layout;

/// A member's error feedback: never sent, lost with the member, and nobody else's affair.
#[derive(Debug, Clone, PartialEq)]
pub struct Feedback {
    decay: f32,
    carried: Vec<f32>,
}

impl Feedback {
    /// SparseLoCo's: what waits loses a twentieth of itself each round, so that old gradients fade.
    pub const DECAY: f32 = 0.95;

    /// Nothing carried yet of `len` values. `decay` is 0 (nothing is ever carried) to 1.
    pub fn new(len: usize, decay: f32) -> Self {
        Self { decay, carried: vec![0.0; len] }
    }

    /// As it stood: `carried` of an earlier [`Feedback::carried`].
    pub const fn restore(carried: Vec<f32>, decay: f32) -> Self {
        Self { decay, carried }
    }

    /// What waits to be sent.
    pub fn carried(&self) -> &[f32] {
        &self.carried
    }

    /// The update to send for what was learned in this round (the anchor minus own weights); keeps what it leaves out.
    ///
    /// # Errors
    /// [`UpdateError::NotFinite`] if the round's values are not; then nothing is kept of them.
    ///
    /// # Panics
    /// If there are not as many values as before.
    pub fn send(
        &mut self,
        compressor: Compressor,
        layout: &Layout,
        learned: &[f32],
    ) -> Result<Vec<u8>, UpdateError> {
        assert_eq!(learned.len(), self.carried.len(), "a model keeps its size");
        let mut whole: Vec<f32> = Vec::with_capacity(learned.len());
        whole.extend(self.carried.iter().zip(learned).map(|(old, new)| self.decay * old + new));
        let bytes = compressor.write(layout, &whole)?;
        let sent = compressor.read(layout, &bytes)?;
        whole.iter_mut().zip(&sent).for_each(|(value, sent)| *value -= sent);
        self.carried = whole;
        Ok(bytes)
    }

    /// An update that [`Feedback::send`] made and that was not merged waits again.
    ///
    /// # Errors
    /// [`UpdateError`] if `bytes` are no update of this job.
    pub fn take_back(
        &mut self,
        compressor: Compressor,
        layout: &Layout,
        bytes: &[u8],
    ) -> Result<(), UpdateError> {
        let sent = compressor.read(layout, bytes)?;
        self.carried.iter_mut().zip(&sent).for_each(|(value, sent)| *value += sent);
        Ok(())
    }
}

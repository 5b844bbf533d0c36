//! Whether a step is one that its session agreed to, before anything is computed from it.

use super::Session;
use crate::{
    core::faults::Fault,
    wire::{LOGIT_BYTES_MAX, Payload, Step},
};

/// Why a session cannot go on, and what its neighbour has to do with it.
#[derive(Debug)]
pub(super) struct Wrong {
    /// What the node that sent the message did, unless it is not its fault.
    pub fault: Option<Fault>,
    pub reason: String,
}

impl Wrong {
    pub fn of(fault: Fault, reason: impl Into<String>) -> Self {
        Self { fault: Some(fault), reason: reason.into() }
    }
}

impl From<String> for Wrong {
    fn from(reason: String) -> Self {
        Self { fault: None, reason }
    }
}

impl From<&str> for Wrong {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

/// Checks kind, width, number and values of the rows of `step`. Whether it follows the one before is seen when its
/// turn comes.
pub(super) fn check(session: &Session, step: &Step) -> Result<(), Wrong> {
    let shape = |reason: String| Wrong::of(Fault::Shape, reason);
    let begins = session.cache.span().start() == 0;
    let rows = match &step.payload {
        Payload::Tokens(tokens) if begins => {
            if let Some(found) = tokens.iter().find(|token| **token >= session.vocab) {
                return Err(shape(format!("token {found}, expected less than {}", session.vocab)));
            }
            tokens.len()
        }
        Payload::Hidden { width, values, .. } if !begins => {
            if *width != session.width || values.len() % session.width as usize != 0 {
                return Err(shape(format!("rows of width {width}, expected {}", session.width)));
            }
            if !values.iter().all(|value| value.is_finite()) {
                return Err(Wrong::of(Fault::NotANumber, "hidden states that are no numbers"));
            }
            values.len() / session.width as usize
        }
        Payload::Tokens(_) => return Err(shape("tokens, expected hidden states".into())),
        Payload::Hidden { .. } => return Err(shape("hidden states, expected tokens".into())),
        Payload::Answer(_) => {
            return Err(shape("a stage was sent the answer of one".into()));
        }
    };
    let max = session.open.positions_max;
    if rows == 0 || rows > max as usize {
        return Err(shape(format!("{rows} rows, expected 1 to {max}")));
    }
    let end = u64::from(step.position) + rows as u64;
    if end > u64::from(max) {
        let reason = format!("a step up to position {end}, expected at most {max}");
        return Err(Wrong::of(Fault::Position, reason));
    }
    let bytes = rows * session.vocab as usize * size_of::<f32>();
    if session.ends && step.wants.is_whole() && rows > 1 && bytes > LOGIT_BYTES_MAX {
        let reason = format!("{bytes} bytes of logits wanted, expected at most {LOGIT_BYTES_MAX}");
        return Err(shape(reason));
    }
    Ok(())
}

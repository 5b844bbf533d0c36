//! How long a prompt is, without an answer to it.

use super::{Patience, Shared, answer::tokens, keys::KeyGuest};
use crate::api::{GenerateError, Prompt, Tool};

/// Tokens of `prompt`, where `tools` may be called, for the model called `name`. Counting takes a place like a request, so that long texts
/// never crowd out answers.
pub(crate) async fn tokens_of(
    shared: &Shared,
    name: &str,
    prompt: Prompt,
    tools: Vec<Tool>,
    key: Option<KeyGuest>,
) -> Result<u32, GenerateError> {
    let _admission = shared.places.admit(key, Patience::Waits).await?;
    let known = shared.choose(name)?.known;
    if !known.model.is_decoder() {
        return Err(GenerateError::Encoder { model: known.name.clone() });
    }
    let counted = tokio::task::spawn_blocking(move || tokens(&known, &prompt, &tools)).await;
    let tokens = counted.expect("counting does not panic")?;
    Ok(u32::try_from(tokens.len()).unwrap_or(u32::MAX))
}

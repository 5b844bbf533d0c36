//! One request for vectors, as its head: each text is a session of its own.
//!
//! Some texts run at once, so that stages take them through the layers together. A caller who leaves, or
//! whose texts cannot all be answered, pays for those that were.

use super::{
    Admission, Patience, Shared,
    answer::tokens,
    keys::KeyGuest,
    models::Chosen,
    session::{Bill, HeadSession, NoAnswer, SessionSize},
};
use crate::{
    api::{EmbedRequest, Embeddings, GenerateError, Prompt},
    core::embed::Embedder,
};
use std::sync::Arc;
use talka_base::{Credits, Flops};
use tokio::sync::mpsc;
use tracing::Instrument;

/// Texts of one request under way at once.
const TOGETHER: usize = 16;

/// One text, answered.
type Answer = Result<Answered, GenerateError>;

struct Answered {
    vector: Vec<f32>,
    session: HeadSession,
    bill: Bill,
}

/// Makes the vectors of all texts.
pub(crate) async fn run(
    shared: Arc<Shared>,
    request: EmbedRequest,
    key: Option<KeyGuest>,
) -> Result<Embeddings, GenerateError> {
    let admission = Arc::new(shared.places.admit(key, Patience::Waits).await?);
    let chosen = shared.choose(&request.model)?;
    let texts = request.texts.iter().map(|text| cut(&chosen, text, request.tokens_max));
    let texts: Vec<Vec<u32>> = texts.collect::<Result<_, _>>()?;
    let count = texts.len();
    let prompt_tokens = texts.iter().map(|tokens| tokens.len() as u64).sum();

    // Whoever drops this future drops the receiver, and so ends all sessions.
    let (sender, mut answers) = mpsc::channel(TOGETHER);
    let mut waiting = texts.into_iter().enumerate();
    let begin = |(at, text): (usize, Vec<u32>)| {
        let (shared, admission) = (Arc::clone(&shared), Arc::clone(&admission));
        let (chosen, sender) = (chosen.clone(), sender.clone());
        let answering = async move {
            if let Some(answer) = one(&shared, &admission, &chosen, &text, &sender).await {
                // A caller who leaves now has nothing more to be told.
                let _ = sender.send((at, answer)).await;
            }
        };
        tokio::spawn(answering.in_current_span());
    };
    waiting.by_ref().take(TOGETHER).for_each(&begin);
    let mut vectors = vec![Vec::new(); count];
    let (mut cost, mut flops, mut first) = (Credits::ZERO, Flops::default(), None);
    for _ in 0..count {
        let (at, answer): (usize, Answer) =
            answers.recv().await.expect("this function holds a sender");
        let Answered { vector, session, bill } = answer?;
        vectors[at] = vector;
        cost = Credits(cost.0.saturating_add(bill.cost.0));
        flops = Flops(flops.0.saturating_add(bill.flops.0));
        first.get_or_insert_with(|| (session.id(), session.route_report()));
        waiting.next().into_iter().for_each(&begin);
    }
    let (request, route) = first.ok_or(GenerateError::EmptyPrompt)?;
    let model = chosen.name();
    Ok(Embeddings { request, model, vectors, prompt_tokens, cost, flops, route })
}

/// The tokens of a text, cut if the caller wants it.
fn cut(chosen: &Chosen, text: &Prompt, tokens_max: Option<u32>) -> Result<Vec<u32>, GenerateError> {
    let model = &chosen.known.model;
    let most = model.embedding().tokens_max;
    let found = match (text, tokens_max) {
        (Prompt::Text(text), _) => {
            let max = tokens_max.map_or(u32::MAX, |max| max.min(most));
            let tokens = model.embedding_tokens(text, max);
            tokens.map_err(|error| GenerateError::Template { reason: error.to_string() })?
        }
        (other, None) => tokens(&chosen.known, other, &[])?,
        (other, Some(max)) => {
            let mut tokens = tokens(&chosen.known, other, &[])?;
            tokens.truncate(max.min(most) as usize);
            tokens
        }
    };
    match u32::try_from(found.len()).unwrap_or(u32::MAX) {
        0 => Err(GenerateError::EmptyPrompt),
        length if length > most => Err(GenerateError::TextTooLong { found: length, max: most }),
        _ => Ok(found),
    }
}

/// The vector of one text; `None` if the caller left, which closes `caller`.
async fn one(
    shared: &Arc<Shared>,
    admission: &Admission,
    chosen: &Chosen,
    text: &[u32],
    caller: &mpsc::Sender<(usize, Answer)>,
) -> Option<Answer> {
    let length = text.len() as u32;
    let size = SessionSize { prompt_tokens: length, new_tokens: 0, positions_max: length };
    let mut session = match HeadSession::open(shared, admission, chosen, size, None).await {
        Ok(session) => session,
        Err(error) => return Some(Err(error)),
    };
    let model = &chosen.known.model;
    let (mut embedder, steps) = Embedder::new(model, text);
    steps.iter().for_each(|step| session.send(step.clone()));
    let vector = loop {
        let wrong = match session.answer(caller.closed()).await {
            Ok((step, values)) => match embedder.vector(step, &values) {
                Ok(None) => continue,
                Ok(Some(vector)) => break Some(vector),
                Err(error) => session.wrong(&error),
            },
            Err(NoAnswer::Broken(error)) => {
                // The whole text again: it is short.
                embedder = Embedder::new(model, text).0;
                match session.mend(error, &[], &steps).await {
                    Ok(()) => continue,
                    Err(error) => error,
                }
            }
            Err(NoAnswer::Abandoned) => break None,
        };
        session.release().await;
        return Some(Err(wrong));
    };
    let bill = session.settle().await;
    vector.map(|vector| bill.map(|bill| Answered { vector, session, bill }))
}

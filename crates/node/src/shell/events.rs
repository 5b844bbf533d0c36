//! The way of an answer from this head to its caller, and what is counted on it.
//!
//! A channel that counts when its end is reached: how long the first word took, how fast tokens came, how long each event
//! waited for its caller. Numbers only: nothing of what was asked or said is kept.

use super::tally::Tally;
use crate::api::GenerateEvent;
use std::{sync::Arc, time::Instant};
use tokio::sync::mpsc;

/// A way for events on which at most `depth` of them wait.
pub fn event_channel(depth: usize) -> (EventSender, Events) {
    let (sender, receiver) = mpsc::channel(depth);
    (EventSender(sender), Events { receiver, taken: None, watch: None })
}

/// The caller does not listen any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the caller left")]
pub struct CallerLeft;

/// The answer's end of the way.
#[derive(Debug, Clone)]
pub struct EventSender(mpsc::Sender<(Instant, GenerateEvent)>);

impl EventSender {
    /// Sends `event`, as soon as there is room.
    ///
    /// # Errors
    /// [`CallerLeft`].
    pub async fn send(&self, event: GenerateEvent) -> Result<(), CallerLeft> {
        self.0.send((Instant::now(), event)).await.map_err(|_| CallerLeft)
    }

    /// Whether the caller left.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Ends when the caller leaves.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// The caller's end of the way.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<(Instant, GenerateEvent)>,
    /// When the last event that was received had been sent: whoever asks for the next has handed it on.
    taken: Option<Instant>,
    watch: Option<Watch>,
}

impl Events {
    /// The next event; nothing after the last one.
    pub async fn recv(&mut self) -> Option<GenerateEvent> {
        if let (Some(watch), Some(sent_at)) = (&self.watch, self.taken.take()) {
            watch.tally.handed_on(sent_at.elapsed());
        }
        let (sent_at, event) = self.receiver.recv().await?;
        if let Some(watch) = &mut self.watch {
            watch.note(&event);
        }
        if matches!(event, GenerateEvent::Piece(_)) {
            self.taken = Some(sent_at);
        }
        Some(event)
    }

    /// Has `tally` count what comes, of a request that was made at `asked_at`.
    pub(crate) fn watched(&mut self, tally: &Arc<Tally>, asked_at: Instant) {
        let tally = Arc::clone(tally);
        self.watch = Some(Watch { tally, asked_at, first_at: None, is_over: false });
    }
}

/// Who counts.
#[derive(Debug)]
struct Watch {
    tally: Arc<Tally>,
    asked_at: Instant,
    first_at: Option<Instant>,
    is_over: bool,
}

impl Watch {
    fn note(&mut self, event: &GenerateEvent) {
        match event {
            GenerateEvent::Piece(_) if self.first_at.is_some() => {}
            GenerateEvent::Piece(_) => {
                self.first_at = Some(Instant::now());
                self.tally.began(self.asked_at.elapsed());
            }
            GenerateEvent::Done(summary) => {
                self.is_over = true;
                self.tally.completed(summary, self.first_at.map(|at| at.elapsed()));
            }
            GenerateEvent::Failed(_) => {
                self.is_over = true;
                self.tally.failed();
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_over {
            self.tally.left();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{FinishReason, GenerateError, Piece, Summary};
    use talka_base::{Credits, Flops, RequestId};

    fn piece() -> GenerateEvent {
        GenerateEvent::Piece(Piece { text: "a".into(), ..Piece::default() })
    }

    fn done() -> GenerateEvent {
        GenerateEvent::Done(Summary {
            request: RequestId([0; 16]),
            finish: FinishReason::Stop,
            prompt_tokens: 3,
            completion_tokens: 2,
            cost: Credits(7),
            flops: Flops(9),
            route: Vec::new(),
            receipts: Vec::new(),
            upstream: None,
            stop: None,
        })
    }

    /// What is counted of an answer of these events, of which the caller takes `taken`.
    async fn counted(events: Vec<GenerateEvent>, taken: usize) -> crate::api::AnswerCounts {
        let tally = Arc::new(Tally::default());
        let (sender, mut receiver) = event_channel(8);
        receiver.watched(&tally, Instant::now());
        for event in events {
            sender.send(event).await.expect("room for a few");
        }
        for _ in 0..taken {
            receiver.recv().await;
        }
        drop(receiver);
        assert_eq!(sender.send(piece()).await, Err(CallerLeft));
        tally.counts()
    }

    #[tokio::test]
    async fn a_complete_answer_is_counted_once_with_its_tokens() {
        let counts = counted(vec![piece(), piece(), done()], 3).await;
        assert_eq!((counts.complete, counts.failed, counts.left), (1, 0, 0));
        assert_eq!((counts.prompt_tokens, counts.answer_tokens), (3, 2));
        assert_eq!((counts.first_word_us.count(), counts.tokens_per_1000_s.count()), (1, 1));
        assert_eq!(counts.handing_on_us.count(), 2);
    }

    #[tokio::test]
    async fn one_that_fails_and_one_that_nobody_waits_for_are_told_apart() {
        let failed = GenerateEvent::Failed(GenerateError::EmptyPrompt);
        let counts = counted(vec![piece(), failed], 2).await;
        assert_eq!((counts.complete, counts.failed, counts.left), (0, 1, 0));
        let counts = counted(vec![piece(), done()], 1).await;
        assert_eq!((counts.complete, counts.failed, counts.left), (0, 0, 1));
        assert_eq!(counts.handing_on_us.count(), 0);
    }
}

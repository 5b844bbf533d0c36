//! A rogue as the last stage: it answers the node, which is the head.

use crate::{
    common::{LAYERS, node, request, span, wait_for},
    rogue::{Linked, Rogue, blamed, count},
};
use talka_base::{Receipt, RequestId};
use talka_node::{
    Node,
    api::{Fault, GenerateError, GenerateEvent, Summary},
    wire::{Answer, Flow, Leg, Payload, Step},
};

/// What it does instead of answering a step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Deed {
    Nothing,
    /// Ten times the logits agreed on.
    Wide,
    /// A token each of so many rows that their logits would fill the memory.
    Tall,
    NotANumber,
    /// An answer to a step that is yet to come.
    Ahead,
    /// As it should, and once more.
    Twice,
    /// As it should, and for a session that never was.
    Foreign,
    /// Gives up, and answers when the head has begun anew.
    Late,
}

const VOCAB: u32 = 1_024;

async fn generate(node: &Node) -> Result<Summary, GenerateError> {
    let mut generation = node.api().generate(request("Good morrow", 3)).await?;
    loop {
        match generation.events.recv().await.expect("an end") {
            GenerateEvent::Piece(_) => {}
            GenerateEvent::Done(summary) => return Ok(summary),
            GenerateEvent::Failed(error) => return Err(error),
        }
    }
}

/// The logits that a step wants, all for one token.
fn answer(step: &Step, tenfold: usize) -> Flow {
    let Payload::Hidden { width, values, .. } = &step.payload else { panic!("no hidden states") };
    let rows = if step.wants.is_whole() { values.len() / *width as usize } else { 1 };
    let mut logits = vec![0.0; VOCAB as usize * rows * tenfold];
    logits.chunks_exact_mut(VOCAB as usize).for_each(|row| row[300] = 1.0);
    let payload = Payload::Answer(Answer::Logits { vocab: VOCAB, values: logits });
    Flow::Step(Step { leg: step.leg.next(), payload, ..step.clone() })
}

fn changed(flow: Flow, change: impl FnOnce(&mut Step)) -> Flow {
    let Flow::Step(mut step) = flow else { panic!("no step") };
    change(&mut step);
    Flow::Step(step)
}

/// Answers one request, with `deed` at its first step.
async fn serve(rogue: &Rogue, linked: &mut Linked, deed: Deed) {
    let mut is_done = deed == Deed::Nothing;
    let (mut positions, mut logits, mut late, mut current) = (0, 0, None, None);
    let mut lane = 0;
    loop {
        match linked.hear_flow().await {
            Flow::Step(step) if !step.wants.logits().eq(&talka_engine::LogitsWanted::None) => {
                let sound = answer(&step, 1);
                current = Some(step.session);
                if let Payload::Hidden { width, values, .. } = &step.payload {
                    let rows = (values.len() / *width as usize) as u32;
                    positions = step.position + rows;
                    // Only the last route is signed for.
                    let before = if step.position == 0 { 0 } else { logits };
                    logits = before + if step.wants.is_whole() { rows } else { 1 };
                }
                if std::mem::replace(&mut is_done, true) {
                    if let Some(late) = late.take() {
                        linked.flow(late).await;
                    }
                    linked.flow(sound).await;
                    continue;
                }
                misbehave(linked, deed, &step, sound, &mut late).await;
                if matches!(deed, Deed::Wide | Deed::NotANumber | Deed::Ahead) {
                    return;
                }
            }
            Flow::Open { leg, open } if open.route[usize::from(leg.hop)].fresh => lane = leg.lane(),
            // That of an earlier request may still be on its way.
            Flow::Close { session, .. } if current == Some(session) => {
                let receipt = Receipt {
                    network: rogue.network(),
                    request: session,
                    lane,
                    node: rogue.id(),
                    model: rogue.model,
                    span: span(2, LAYERS),
                    from: 0,
                    positions,
                    logits,
                };
                return linked.flow(Flow::Receipt(rogue.keys.sign(receipt))).await;
            }
            _ => {}
        }
    }
}

async fn misbehave(linked: &Linked, deed: Deed, step: &Step, sound: Flow, late: &mut Option<Flow>) {
    match deed {
        Deed::Nothing => linked.flow(sound).await,
        Deed::Wide => linked.flow(answer(step, 10)).await,
        Deed::Tall => {
            let picks = vec![(7, 0.5); 1 << 16];
            let payload = Payload::Answer(Answer::Best { count: 1, picks });
            linked.flow(changed(sound, |step| step.payload = payload)).await;
        }
        Deed::NotANumber => {
            let nan = changed(sound, |step| {
                let Payload::Answer(Answer::Logits { values, .. }) = &mut step.payload else {
                    panic!("no logits")
                };
                values[7] = f32::NAN;
            });
            linked.flow(nan).await;
        }
        Deed::Ahead => linked.flow(changed(sound, |step| step.number += 5)).await,
        Deed::Twice => {
            linked.flow(sound.clone()).await;
            linked.flow(sound).await;
        }
        Deed::Foreign => {
            linked.flow(changed(sound.clone(), |step| step.session = RequestId([7; 16]))).await;
            linked.flow(sound).await;
        }
        Deed::Late => {
            let Leg { attempt, hop } = step.leg;
            let reason = "layers 2..6 are not loaded here any more".into();
            let leg = Leg { attempt, hop };
            linked.flow(Flow::Failed { session: step.session, leg, reason }).await;
            *late = Some(sound);
        }
    }
}

/// Goal: whatever the last stage answers, the head ends the request or goes on, counts the fault and names the
/// node, and the next request is answered. Method: one deed after the other, each before a sound request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_stage_that_answers_wrongly_is_blamed() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = node(dir.path(), span(0, 2)).await;
    let rogue = Rogue::join(&node, 77).await;
    let mut linked = rogue.link(&[span(2, LAYERS)], 1).await;
    wait_for("a route", async || node.api().models().await[0].complete.then_some(())).await;
    for (deed, fault, is_answered) in [
        (Deed::Wide, Fault::Shape, false),
        (Deed::Tall, Fault::Shape, true),
        (Deed::NotANumber, Fault::NotANumber, false),
        (Deed::Ahead, Fault::Position, false),
        (Deed::Twice, Fault::Twice, true),
        (Deed::Foreign, Fault::Session, true),
        (Deed::Late, Fault::Late, true),
    ] {
        let before = count(&node, rogue.id(), fault).await;
        let (answered, ()) = tokio::join!(generate(&node), serve(&rogue, &mut linked, deed));
        assert_eq!(answered.is_ok(), is_answered, "{deed:?}: {answered:?}");
        if let Err(error) = answered {
            assert!(error.to_string().contains("on node rogue"), "{error}");
        }
        blamed(&node, rogue.id(), fault, before).await;
        let (sound, ()) = tokio::join!(generate(&node), serve(&rogue, &mut linked, Deed::Nothing));
        let sound = sound.unwrap_or_else(|error| panic!("after {deed:?}: {error}"));
        assert_eq!(sound.completion_tokens, 3, "after {deed:?}");
    }
    node.shutdown().await;
}

/// Goal: nobody is routed over layers that a model lacks. Method: a heartbeat that claims them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_claims_layers_which_the_model_lacks_is_blamed() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = node(dir.path(), span(0, 2)).await;
    let rogue = Rogue::join(&node, 78).await;
    let _linked = rogue.link(&[span(2, LAYERS + 94)], 1).await;
    blamed(&node, rogue.id(), Fault::Layers, 0).await;
    let report = node.api().models().await.remove(0);
    assert!(!report.complete && report.coverage.iter().all(|stage| stage.node == node.id()));
    node.shutdown().await;
}

//! Callers of a node that compete for one answer.

#![allow(missing_docs, reason = "a test binary")]

mod common;

use common::{LAYERS, node, request, span};
use talka_node::api::{GenerateError, GenerateEvent, GenerateRequest, Generation, Resume, Summary};

fn asked(resume: Option<Resume>) -> GenerateRequest {
    GenerateRequest { resume, ..request("ROMEO:", 150) }
}

/// Text, the tokens that it had, and the end.
async fn listen(mut generation: Generation) -> (String, u32, Result<Summary, GenerateError>) {
    let (mut text, mut tokens) = (String::new(), 0);
    loop {
        match generation.events.recv().await.expect("an end") {
            GenerateEvent::Piece(piece) => {
                text += &piece.text;
                tokens = piece.generated;
            }
            GenerateEvent::Done(summary) => return (text, tokens, Ok(summary)),
            GenerateEvent::Failed(error) => return (text, tokens, Err(error)),
        }
    }
}

/// Goal: a caller whose connection broke need not wait until the node notices, and whoever still listens does not
/// take a part for the whole. Method: nobody reads the first answer, which waits then; another caller goes on with it.
#[tokio::test]
async fn an_answer_is_taken_over_from_a_caller_who_does_not_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = node(dir.path(), span(0, LAYERS)).await;
    let api = node.api();
    let (whole, tokens, end) = listen(api.generate(asked(None)).await.expect("begun")).await;
    assert_eq!((tokens, end.is_ok()), (150, true));

    let unread = api.generate(asked(None)).await.expect("begun");
    let resume = Resume { request: unread.request, seen: 0 };
    let second = api.generate(asked(Some(resume))).await.expect("gone on with");
    assert_eq!(second.request, unread.request);
    let (text, tokens, end) = listen(second).await;
    assert_eq!((&text, tokens), (&whole, 150));
    end.expect("complete");

    let (part, tokens, end) = listen(unread).await;
    assert_eq!(end, Err(GenerateError::TakenOver));
    assert!(whole.starts_with(&part) && tokens < 150, "{tokens} tokens: {part}");
    node.shutdown().await;
}

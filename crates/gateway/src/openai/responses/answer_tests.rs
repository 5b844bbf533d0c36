//! Shapes of responses, and the order and numbers of events.

use super::*;
use crate::answering::{hear, told};
use crate::test_generation::{
    REQUEST, called, generation, generation_of, provenance, scored, summary, text,
};
use futures_util::StreamExt;
use proptest::prelude::*;
use talka_node::api::{GenerateError, GenerateEvent};

fn settings() -> Settings {
    json!({"temperature": 0.5, "store": false, "metadata": {"a": "b"}})
}

async fn whole(finish: FinishReason) -> Value {
    let done = GenerateEvent::Done(summary(finish));
    whole_of(vec![text("Hello "), text("you"), done]).await
}

async fn whole_of(events: Vec<GenerateEvent>) -> Value {
    let generation = generation_of(events).await;
    let voice = Voice::new(&generation, settings(), 7);
    let (pieces, summary) = hear(generation).await.expect("complete");
    voice.whole(pieces, &summary)
}

/// An answer that says something and calls two functions.
fn calling() -> Vec<GenerateEvent> {
    let parts =
        [called(0, Some("roll"), "{\"a\""), called(0, None, ":6}"), called(1, Some("now"), "{}")];
    let done = GenerateEvent::Done(summary(FinishReason::ToolCalls));
    [text("So:")].into_iter().chain(parts.map(GenerateEvent::Piece)).chain([done]).collect()
}

async fn said(events: Vec<GenerateEvent>) -> Vec<Said> {
    let generation = generation_of(events).await;
    let voice = Voice::new(&generation, settings(), 7);
    told(voice, generation).collect().await
}

#[tokio::test]
async fn a_whole_answer_is_a_response_with_one_message() {
    assert_eq!(
        whole(FinishReason::Stop).await,
        json!({
            "id": format!("resp_{REQUEST}"), "object": "response", "created_at": 7, "model": "bard",
            "status": "completed", "error": null, "incomplete_details": null,
            "output": [{
                "type": "message", "id": format!("msg_{REQUEST}_0"), "status": "completed", "role": "assistant",
                "content": [{
                    "type": "output_text", "text": "Hello you", "annotations": [], "logprobs": [],
                }],
            }],
            "usage": {
                "input_tokens": 3, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5,
            },
            "temperature": 0.5, "store": false, "metadata": {"a": "b"},
            "talka": provenance(),
        })
    );
}

#[tokio::test]
async fn an_answer_that_was_cut_says_why() {
    for (finish, reason) in
        [(FinishReason::Length, "max_output_tokens"), (FinishReason::Filtered, "content_filter")]
    {
        let response = whole(finish).await;
        assert_eq!(
            (&response["status"], &response["output"][0]["status"]),
            (&json!("incomplete"), &json!("incomplete"))
        );
        assert_eq!(response["incomplete_details"], json!({"reason": reason}));
    }
}

#[tokio::test]
async fn a_stream_opens_speaks_and_closes_what_it_opened() {
    let done = GenerateEvent::Done(summary(FinishReason::Stop));
    let events = said(vec![scored("Hi", -0.5), scored("!", -1.0), done]).await;
    let names: Vec<_> = events.iter().map(|said| said.name).collect();
    assert_eq!(
        names,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (number, Said { name, data }) in events.iter().enumerate() {
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(number)));
    }
    let place = |data: &Value| {
        let fields = ["item_id", "output_index", "content_index"];
        fields.map(|name| data[name].clone())
    };
    for said in
        events.iter().filter(|said| said.name.contains("_part") || said.name.contains("_text"))
    {
        let expected = [json!(format!("msg_{REQUEST}_0")), json!(0), json!(0)];
        assert_eq!(place(&said.data), expected, "{}", said.name);
    }
    let data = |at: usize| &events[at].data;
    assert_eq!(data(0)["response"]["status"], "in_progress");
    assert_eq!(data(0)["response"]["output"], json!([]));
    assert_eq!(data(3)["part"]["text"], "");
    assert_eq!(data(4)["delta"], "Hi");
    assert_eq!(data(4)["logprobs"][0]["logprob"], -0.5);
    assert_eq!((&data(6)["text"], &data(7)["part"]["text"]), (&json!("Hi!"), &json!("Hi!")));
    assert_eq!(data(6)["logprobs"].as_array().map(Vec::len), Some(2));
    let response = &data(9)["response"];
    assert_eq!(response["output"][0], data(8)["item"]);
    assert_eq!(response["talka"], provenance());
}

#[tokio::test]
async fn calls_are_items_of_their_own() {
    let call = |at: usize, name: &str, arguments: &str| {
        json!({
            "type": "function_call", "id": format!("fc_{REQUEST}_{}", at + 1), "status": "completed",
            "call_id": format!("call_{REQUEST}_{at}"), "name": name, "arguments": arguments,
        })
    };
    let calls = [call(0, "roll", "{\"a\":6}"), call(1, "now", "{}")];
    let response = whole_of(calling()).await;
    assert_eq!(response["status"], "completed");
    assert_eq!(response["output"][0]["content"][0]["text"], "So:");
    assert_eq!(response["output"].as_array().map(|items| &items[1..]), Some(&calls[..]));

    let events = said(calling()).await;
    let names: Vec<_> = events.iter().map(|said| said.name).collect();
    let of_call = |deltas: usize| {
        let delta = "response.function_call_arguments.delta";
        let end = ["response.function_call_arguments.done", "response.output_item.done"];
        ["response.output_item.added"].into_iter().chain(vec![delta; deltas]).chain(end)
    };
    let expected: Vec<_> = of_call(2).chain(of_call(1)).chain(["response.completed"]).collect();
    assert_eq!(names[8..], expected);
    let added = &events[8].data;
    assert_eq!((&added["output_index"], &added["item"]["arguments"]), (&json!(1), &json!("")));
    let place = |data: &Value| [&data["item_id"], &data["output_index"]].map(Clone::clone);
    let first = [json!(format!("fc_{REQUEST}_1")), json!(1)];
    for said in &events[9..12] {
        assert_eq!(place(&said.data), first, "{}", said.name);
    }
    let done = &events[11].data;
    assert_eq!((&done["name"], &done["arguments"]), (&json!("roll"), &json!("{\"a\":6}")));
    assert_eq!(events[12].data["item"], calls[0]);
    let end = events.last().map(|said| &said.data["response"]["output"]);
    assert_eq!(end, Some(&response["output"]));
}

#[tokio::test]
async fn the_last_event_says_how_it_ended() {
    let end = |events: Vec<GenerateEvent>| async { said(events).await.pop().expect("an event") };
    let cut = end(vec![text("a"), GenerateEvent::Done(summary(FinishReason::Length))]).await;
    assert_eq!(cut.name, "response.incomplete");

    let failed = end(vec![text("a"), GenerateEvent::Failed(GenerateError::EmptyPrompt)]).await;
    assert_eq!(failed.name, "response.failed");
    let response = &failed.data["response"];
    assert_eq!(
        (&response["status"], &response["error"]["code"]),
        (&json!("failed"), &json!("empty_prompt"))
    );
    assert_eq!(response["output"][0]["content"][0]["text"], "a");

    let dropped = end(vec![text("a")]).await;
    assert_eq!(dropped.data["response"]["error"]["code"], "interrupted");
}

#[tokio::test]
async fn a_stream_says_how_far_it_is() {
    let counted = Piece { text: "a".into(), generated: 2, ..Piece::default() };
    let done = GenerateEvent::Done(summary(FinishReason::Stop));
    let events = said(vec![text("b"), GenerateEvent::Piece(counted), done]).await;
    assert_eq!(events[4].data.get("talka"), None);
    assert_eq!(events[5].data["talka"], json!({"tokens": 2}));
}

proptest! {
    /// Whatever is said, the parts make the whole, and every event has the next number.
    #[test]
    fn the_parts_of_a_stream_make_the_whole(texts in prop::collection::vec("\\PC{0,6}", 0..6)) {
        let (_sender, generation) = generation();
        let mut voice = Voice::new(&generation, settings(), 7);
        let mut events = voice.opening();
        for text in &texts {
            events.extend(voice.piece(Piece { text: text.clone(), ..Piece::default() }));
        }
        events.extend(voice.end(&summary(FinishReason::Stop)));
        let deltas = events.iter().filter_map(|said| said.data["delta"].as_str());
        prop_assert_eq!(deltas.collect::<String>(), texts.concat());
        let last = &events[events.len() - 1].data["response"];
        prop_assert_eq!(&last["output"][0]["content"][0]["text"], &json!(texts.concat()));
        for (number, said) in events.iter().enumerate() {
            prop_assert_eq!(&said.data["sequence_number"], &json!(number));
        }
    }
}

//! Which spans are told, in which trace, below which other span.

use super::*;
use tracing::{error_span, field::Empty, info_span};
use tracing_subscriber::layer::SubscriberExt;

const SESSION_ID: &str = "000102030405060708090a0b0c0d0e0f";

/// The batches of spans that are told while `act` runs.
fn told(act: impl FnOnce()) -> Vec<Vec<Done>> {
    let (queue, mut waiting) = mpsc::channel(8);
    let subscriber = tracing_subscriber::registry().with(Traces { queue });
    tracing::subscriber::with_default(subscriber, act);
    std::iter::from_fn(|| waiting.try_recv().ok()).collect()
}

fn named<'a>(spans: &'a [Done], name: &str) -> &'a Done {
    spans.iter().find(|span| span.name == name).expect(name)
}

#[test]
fn a_request_its_route_and_its_answer_are_one_trace_named_by_the_answer() {
    let batches = told(|| {
        let request =
            error_span!(target: "talka_gateway::watch", "request", id = "http-1", answer = Empty);
        let answer = request.in_scope(|| {
            info_span!(target: "talka_node::shell", "route", hops = 2_u64).in_scope(|| {});
            error_span!(target: "talka_node::shell", "answer", session = SESSION_ID)
        });
        request.record("answer", SESSION_ID);
        drop(request);
        drop(answer);
    });
    assert_eq!(batches.len(), 1, "{batches:?}");
    let spans = &batches[0];
    assert!(spans.iter().all(|span| span.trace == SESSION_ID), "{spans:?}");
    let request = named(spans, "request");
    assert_eq!(request.parent, None);
    assert!(request.attributes.contains(&Attribute::text("answer", SESSION_ID.into())));
    let (route, answer) = (named(spans, "route"), named(spans, "answer"));
    assert_eq!(
        (&route.parent, &answer.parent),
        (&Some(request.id.clone()), &Some(request.id.clone()))
    );
    assert!(route.attributes.contains(&Attribute::number("hops", 2)));
    assert_eq!(answer.id, SESSION_ID[16..]);
    assert_eq!(spans.len(), 3, "{spans:?}");
}

#[test]
fn a_stage_finds_the_answer_by_the_session_alone() {
    let stage = || {
        info_span!(target: "talka_node::shell::stages", parent: None, "stage", session = SESSION_ID);
    };
    let batches = told(stage);
    let stage = named(&batches[0], "stage");
    assert_eq!(
        (stage.trace.as_str(), stage.parent.as_deref()),
        (SESSION_ID, Some(&SESSION_ID[16..]))
    );
}

#[test]
fn spans_of_others_are_not_told_and_requests_without_an_answer_are_traces_too() {
    let batches = told(|| {
        error_span!(target: "hyper", "request").in_scope(|| {});
        error_span!(target: "talka_gateway", "something").in_scope(|| {});
        error_span!(target: "talka_gateway::watch", "request", id = "http-2").in_scope(|| {});
    });
    assert_eq!((batches.len(), batches[0].len()), (1, 1), "{batches:?}");
    assert_eq!(batches[0][0].trace.len(), 32);
}

#[test]
fn the_document_is_that_of_the_protocol() {
    let mut done =
        Done::new("request", SystemTime::UNIX_EPOCH + Duration::from_nanos(5), Vec::new());
    done.attributes =
        vec![Attribute::text("route", "/v1/models".into()), Attribute::number("n", 7)];
    done.trace = SESSION_ID.into();
    let document = document(&[done.clone()]);
    let span = &document["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!((&span["traceId"], &span["spanId"]), (&SESSION_ID.into(), &done.id.into()));
    assert_eq!((&span["startTimeUnixNano"], &span["kind"]), (&"5".into(), &2.into()));
    assert_eq!(span["attributes"][0]["key"], "talka.route");
    assert_eq!(span["attributes"][0]["value"]["stringValue"], "/v1/models");
    assert_eq!(span["attributes"][1]["value"]["intValue"], "7");
    let service = &document["resourceSpans"][0]["resource"]["attributes"][0];
    assert_eq!(service["value"]["stringValue"], "talka");
}

#[test]
fn an_address_is_checked_before_anything_is_sent() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        assert!(start("collector").is_err() && start("").is_err());
        let (_traces, exporter) = start("http://127.0.0.1:9/").expect("an address");
        exporter.finish().await;
    });
}

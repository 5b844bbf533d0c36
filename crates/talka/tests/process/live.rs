//! What a page that is left open hears.

use crate::harness::{folder, join, up};
use serde_json::json;
use std::{sync::mpsc, thread};

/// Goal: a reader is told what the node does while it does it. Method: a request that is made once the first event came.
#[test]
fn a_reader_hears_of_answers_as_they_are_made() {
    let place = folder();
    let node = up(&place.path().join("data"), &[]);
    let body = json!({ "model": "bard", "prompt": "ROMEO:", "max_tokens": 7, "temperature": 0 });
    thread::scope(|scope| {
        let (begin, begun) = mpsc::channel();
        let (node, body) = (&node, &body);
        scope.spawn(move || {
            begun.recv().expect("the first event came");
            node.post("/v1/completions", body).done();
        });
        let mut names = Vec::new();
        let heard = node.follow("/api/live", |name, data| {
            names.push(name.to_owned());
            if name == "peers" && names.len() == 2 {
                assert_eq!(data[0]["alive"], true);
            }
            if names.len() == 3 {
                assert_eq!(names, ["status", "peers", "pulls"]);
                assert_eq!(data, json!([]));
                begin.send(()).expect("somebody asks");
            }
            name == "status" && data["tokens_chosen"] == 7
        });
        assert!(heard, "{names:?}");
    });
    assert_eq!(node.get("/api/status").done()["tokens_chosen"], 7);
}

/// Goal: a node that dies shows. Method: two nodes, one is killed once the other's reader saw it.
#[test]
fn a_reader_hears_that_a_node_died_and_that_its_own_stops() {
    let place = folder();
    let first = up(&place.path().join("first"), &[]);
    let mut second = join(&first.invite(&[]), &place.path().join("second"), &[]);
    let mut was_alive = false;
    let heard = first.follow("/api/live", |name, data| {
        if name != "peers" || data.as_array().map(Vec::len) != Some(2) {
            return false;
        }
        let alive = data[1]["alive"] == true;
        if alive && !was_alive {
            was_alive = true;
            second.kill();
        }
        was_alive && !alive
    });
    assert!(heard);

    #[cfg(unix)]
    {
        let mut stops = false;
        let heard = first.follow("/api/live", |_, _| {
            if !stops {
                first.signal("TERM");
                stops = true;
            }
            false
        });
        assert!(!heard, "the stream ended by itself");
    }
}

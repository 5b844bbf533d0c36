//! Nodes that serve some layers of a model of the hub, and fetch no more of it than those.

use crate::{
    fetch::{files, has_a_part, served, speaks},
    harness::{cannot_start, folder, join_with_hub, up, up_with_hub, wait_for},
    hub::{
        NOBODY, REF, WEIGHTS,
        server::{Behaviour, FakeHub},
    },
    models::bard,
};
use std::{fs, path::PathBuf};

/// Bytes of the weights that `hub` was asked for since the last look.
fn weights_asked(hub: &FakeHub) -> u64 {
    let mut asked = hub.asked();
    asked.retain(|asked| asked.elsewhere && asked.path.ends_with(WEIGHTS));
    let bytes = asked.iter().map(|asked| {
        let (start, end) = asked.range.expect("nobody asks for all of it");
        end - start
    });
    bytes.sum()
}

fn whole_bytes() -> u64 {
    fs::metadata(bard().join(WEIGHTS)).expect("bard's weights").len()
}

fn bytes_of(path: &PathBuf) -> u64 {
    fs::metadata(path).expect("a tensor").len()
}

/// Goal: each node fetches about its own layers, together they answer as the whole model does, and what was
/// fetched is not fetched again. Method: the hub's log.
#[test]
fn each_node_fetches_its_own_layers_from_the_hub() {
    let (place, hub) = (folder(), FakeHub::start(&crate::hub::files()));
    let [a, b] = ["a", "b"].map(|name| place.path().join(name));
    let flags = ["--model", REF, "--layers", "hf:acme/tiny=0..3"];
    let first = up_with_hub(&a, &flags, &hub.endpoint());
    has_a_part(&a);
    // To know the model it looks at both ends of each tensor, and at what lies between ends that are near.
    let (asked, whole) = (weights_asked(&hub), whole_bytes());
    assert!(files(&a, "survey").len() == 1 && asked < whole * 5 / 4, "{asked} of {whole}");

    let invite = first.invite(&["--reusable"]);
    let flags = ["--model", REF, "--layers", "tiny=3..6"];
    let mut second = join_with_hub(&invite, &b, &flags, &hub.endpoint());
    served(&second, &second, [3, 6]);
    served(&second, &first, [0, 3]);
    has_a_part(&b);
    speaks(&second);
    let model = second.get("/api/models").done()[0]["id"].clone();
    assert_eq!(model, up(&place.path().join("c"), &[]).get("/api/models").done()[0]["id"]);

    // Of the weights exactly its own are asked for.
    second.kill();
    let own = files(&b, ".tensor");
    let bytes: u64 = own.keys().map(bytes_of).sum();
    own.keys().for_each(|path| fs::remove_file(path).expect("removed"));
    hub.asked();
    let mut second = up_with_hub(&b, &flags, &hub.endpoint());
    served(&second, &second, [3, 6]);
    assert_eq!(weights_asked(&hub), bytes);

    // Nobody is asked for what is here; and for one layer more, it is that layer.
    second.kill();
    let mut second = up_with_hub(&b, &flags, NOBODY);
    served(&second, &second, [3, 6]);
    speaks(&second);
    second.kill();
    let flags = ["--model", REF, "--layers", "tiny=2..6"];
    let second = up_with_hub(&b, &flags, &hub.endpoint());
    served(&second, &second, [2, 6]);
    let layer = weights_asked(&hub);
    assert!(0 < layer && layer < whole / 5, "{layer} of {whole}");
    speaks(&second);
}

/// Goal: what came before a crash is not fetched again.
/// Method: kill a node while the hub is silent in the middle of its layers, and start it again.
#[test]
fn a_part_from_the_hub_goes_on_after_a_crash() {
    let (place, hub) = (folder(), FakeHub::start(&crate::hub::files()));
    let dir = place.path().join("b");
    // All layers are there without it, so that it is ready before its own are.
    let founder = up(&place.path().join("a"), &["--model", "bard", "--layers", "bard=0..6"]);
    hub.behave(Behaviour { hold: Some(1_000_000), ..Behaviour::default() });
    let flags = ["--model", REF, "--layers", "tiny=3..6"];
    let mut node = join_with_hub(&founder.invite(&[]), &dir, &flags, &hub.endpoint());
    wait_for("some tensors", || (files(&dir, ".tensor").len() >= 4).then_some(()));
    node.kill();
    let came = files(&dir, ".tensor");
    let here: u64 = came.keys().map(bytes_of).sum();
    hub.behave(Behaviour::default());
    hub.asked();
    let node = up_with_hub(&dir, &flags, &hub.endpoint());
    served(&node, &node, [3, 6]);
    has_a_part(&dir);
    let all = files(&dir, ".tensor");
    assert!(came.len() < all.len(), "it was killed in the middle");
    assert!(came.iter().all(|(path, written)| all.get(path) == Some(written)), "{came:?} {all:?}");
    let wanted: u64 = all.keys().map(bytes_of).sum();
    let asked = weights_asked(&hub);
    assert!(asked <= wanted - here, "{asked} of {wanted}, of which {here} were here");
    speaks(&node);
}

/// Goal: a model that is too large for a node is not fetched whole, and the layers that placement gives are.
#[test]
fn a_model_that_does_not_fit_is_fetched_as_far_as_it_is_served() {
    let (place, hub) = (folder(), FakeHub::start(&crate::hub::files()));
    let first = up(&place.path().join("a"), &["--model", "bard", "--layers", "bard=0..4"]);
    let dir = place.path().join("b");
    // 3 MiB are for weights, and all of them take 5.
    let flags = ["--model", REF, "--memory", "4M"];
    let invite = first.invite(&["--reusable"]);
    let second = join_with_hub(&invite, &dir, &flags, &hub.endpoint());
    wait_for("all layers", || second.is_complete().then_some(()));
    speaks(&second);
    let log = second.log();
    assert!(log.contains("fetched model=\"tiny\" span=4..6"), "{log}");
    let here: u64 = files(&dir, ".tensor").keys().map(bytes_of).sum();
    assert!(here < whole_bytes() && weights_asked(&hub) > 0, "{here} of {}", whole_bytes());
    // One that has all of it knows the hashes, this one does not: it has nothing to tell, but to give.
    let flags = ["--model", "peer:tiny"];
    cannot_start(&["join", &invite], &place.path().join("c"), &flags)
        .refused(1, &["tiny", "no hashes"]);
}

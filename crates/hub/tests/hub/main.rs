//! Pulls from a hub on this computer, with the faults that a network has.

mod parts;
mod server;

use server::{Asked, Behaviour, COMMIT, FakeHub};
use std::{fs, path::Path, sync::Mutex, time::Duration};
use talka_hub::{Event, Hub, HubConfig, HubError, HubRef, Needs, Pulled, Store, Token};
use tempfile::TempDir;

const SEGMENT: u64 = 100_000;
const WEIGHTS: &str = "model.safetensors";

/// Bytes without a pattern that a misplaced segment could repeat.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A hub with a small model in the Hugging Face layout whose weights take 3.5 segments.
fn tiny() -> FakeHub {
    FakeHub::start(&[
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{\"x\": 1}".to_vec()),
        ("1_Pooling/config.json", b"{ }".to_vec()),
        ("README.md", b"# tiny".to_vec()),
        ("../../escape", b"no".to_vec()),
        (WEIGHTS, noise(350_000)),
    ])
}

struct Place {
    folder: TempDir,
    hub: FakeHub,
    token: Option<Token>,
    events: Mutex<Vec<String>>,
}

impl Place {
    fn new(hub: FakeHub) -> Self {
        // The HTTP client wants cryptography even for plain HTTP; it may be there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("temporary folder");
        Self { folder, hub, token: None, events: Mutex::default() }
    }

    fn store(&self) -> Store {
        Store::new(self.folder.path())
    }

    fn pull(&self, reference: &str) -> Result<Pulled, HubError> {
        self.pull_from(&self.hub.endpoint(), reference)
    }

    fn pull_from(&self, endpoint: &str, reference: &str) -> Result<Pulled, HubError> {
        let mut config = HubConfig::new(endpoint, self.token.clone());
        (config.wait, config.segment_bytes) = (Duration::from_millis(1), SEGMENT);
        let reference: HubRef = reference.parse().expect("a reference");
        let report = |event: Event<'_>| {
            self.events.lock().expect("no panic").push(format!("{event:?}"));
        };
        let runtime = tokio::runtime::Runtime::new().expect("an async runtime");
        let hub = Hub::new(config).expect("an endpoint");
        runtime.block_on(hub.pull(&self.store(), &reference, &report))
    }

    fn heard(&self, word: &str) -> bool {
        self.events.lock().expect("no panic").iter().any(|event| event.contains(word))
    }

    /// What was asked of the weights since the last look, in order of place.
    fn weights_asked(&self) -> Vec<Asked> {
        let mut asked = self.hub.asked();
        asked.retain(|asked| asked.elsewhere && asked.path.ends_with(WEIGHTS));
        asked.sort_by_key(|asked| asked.range);
        asked
    }
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

#[test]
fn a_model_comes_in_parallel_ranges_and_a_second_pull_asks_for_no_content() {
    let place = Place::new(tiny());
    let pulled = place.pull("hf:acme/tiny").expect("pulled");
    assert_eq!((pulled.name.as_str(), pulled.commit.as_str()), ("tiny", COMMIT));
    assert_eq!((pulled.needs, pulled.bytes), (Needs::Folder, 350_013));
    assert_eq!(pulled.path, place.store().root().join("acme--tiny").join(COMMIT));
    let expected = [".talka.json", "1_Pooling", "config.json", WEIGHTS, "tokenizer.json"];
    assert_eq!(files(&pulled.path), expected);
    assert!(fs::read(pulled.path.join(WEIGHTS)).expect("weights") == noise(350_000));

    let ranges: Vec<_> = place.weights_asked().into_iter().map(|asked| asked.range).collect();
    let expected = [(0, 100_000), (100_000, 200_000), (200_000, 300_000), (300_000, 350_000)];
    assert_eq!(ranges, expected.map(Some));

    place.pull("hf:acme/tiny@main").expect("still here");
    let asked = place.hub.asked();
    assert!(asked.iter().all(|asked| asked.path.starts_with("/api/")), "{asked:?}");
}

#[test]
fn after_a_cut_only_the_missing_bytes_are_asked_for() {
    let place = Place::new(tiny());
    place.hub.behave(Behaviour { cut: Some((30_000, 2)), ..Behaviour::default() });
    let pulled = place.pull("hf:acme/tiny").expect("pulled in spite of cuts");
    assert!(fs::read(pulled.path.join(WEIGHTS)).expect("weights") == noise(350_000));
    let asked = place.weights_asked();
    // Two of the answers ended after 30,000 bytes: what was asked again begins just there.
    let again: Vec<_> = asked
        .iter()
        .filter_map(|asked| asked.range)
        .filter(|(start, _)| start % SEGMENT == 30_000)
        .collect();
    assert_eq!((asked.len(), again.len()), (6, 2), "{asked:?}");
    assert!(
        again.iter().all(|(start, end)| end - start == (end - start / SEGMENT * SEGMENT) - 30_000)
    );
    assert!(place.heard("Waiting"));
}

/// Goal: another process goes on where one gave up. Method: a hub that cuts until patience ends.
#[test]
fn a_pull_that_gave_up_is_continued_by_the_next() {
    let place = Place::new(tiny());
    place.hub.behave(Behaviour { cut: Some((0, usize::MAX)), ..Behaviour::default() });
    let error = place.pull("hf:acme/tiny").expect_err("nothing ever comes");
    assert!(
        error.is_unreachable() && error.to_string().contains("what has come is kept"),
        "{error}"
    );
    place.hub.behave(Behaviour {
        cut: Some((20_000, 1)),
        busy: usize::MAX,
        ..Behaviour::default()
    });
    place.pull("hf:acme/tiny").expect_err("always busy");
    place.hub.behave(Behaviour { busy: 3, ..Behaviour::default() });
    place.pull("hf:acme/tiny").expect("busy three times only");
    assert!(place.heard("503"));
    assert!(place.store().list().expect("a list")[0].models.len() == 1);
}

#[test]
fn a_server_without_ranges_sends_it_in_one_run() {
    let place = Place::new(tiny());
    place.hub.behave(Behaviour {
        no_ranges: true,
        cut: Some((200_000, 1)),
        ..Behaviour::default()
    });
    let pulled = place.pull("hf:acme/tiny").expect("pulled");
    assert!(fs::read(pulled.path.join(WEIGHTS)).expect("weights") == noise(350_000));
    assert_eq!(place.weights_asked().len(), 2, "once more after the cut");
    assert!(place.heard("Lost(200000)"));
}

#[test]
fn other_content_than_listed_is_thrown_away_and_named() {
    let place = Place::new(tiny());
    place.hub.behave(Behaviour { corrupt: true, ..Behaviour::default() });
    let error = place.pull("hf:acme/tiny:model.safetensors").expect_err("corrupt");
    let text = error.to_string();
    assert!(text.contains("model.safetensors has SHA-256") && text.contains("expected"), "{text}");
    let small = place.pull("hf:acme/tiny:config.json").expect_err("corrupt").to_string();
    assert!(small.contains("config.json has git blob"), "{small}");
    let folder = place.store().root().join("acme--tiny").join(COMMIT);
    assert_eq!(files(&folder), [".talka.json"], "nothing wrong is kept");
    place.hub.behave(Behaviour::default());
    place.pull("hf:acme/tiny").expect("sound again");
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let mut place = Place::new(tiny());
    place.hub.behave(Behaviour { gated: true, ..Behaviour::default() });
    let error = place.pull("hf:acme/tiny").expect_err("gated");
    let text = error.to_string();
    for word in ["HF_TOKEN", "licence", "/acme/tiny", "401", "restricted"] {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
    assert!(error.is_refused());
    place.hub.asked();
    place.token = Some(Token::new("hf_secret").expect("a token"));
    place.pull("hf:acme/tiny").expect("let in");
    let asked = place.hub.asked();
    let shown = |elsewhere| {
        let mut asked = asked.iter().filter(move |asked| asked.elsewhere == elsewhere);
        asked.any(|asked| asked.token)
    };
    assert!(asked.iter().any(|asked| asked.elsewhere), "large files lie elsewhere");
    assert!(shown(false) && !shown(true), "{asked:?}");
}

#[test]
fn what_does_not_exist_is_named_with_what_does() {
    let place = Place::new(tiny());
    let told = |reference: &str| place.pull(reference).expect_err("absent").to_string();
    assert!(told("hf:acme/none").contains("has no model acme/none"));
    assert!(told("hf:acme/tiny@v9").contains("no revision \"v9\""));
    let file = told("hf:acme/tiny:model.safetensor");
    assert!(
        file.contains("no file \"model.safetensor\"; nearest are: model.safetensors"),
        "{file}"
    );
    assert!(!place.folder.path().join("escape").exists());
}

#[test]
fn without_a_hub_what_is_here_serves_and_what_is_not_is_told() {
    let place = Place::new(tiny());
    let nobody = "http://127.0.0.1:9";
    let error = place.pull_from(nobody, "hf:acme/tiny").expect_err("nobody there");
    assert!(error.is_unreachable() && error.to_string().contains("HF_ENDPOINT"), "{error}");
    let first = place.pull("hf:acme/tiny").expect("pulled");
    let second = place.pull_from(nobody, "hf:acme/tiny").expect("here already");
    assert_eq!(first, second);
    assert!(place.heard("Offline"));
    assert_eq!(
        place.store().find(&"hf:acme/tiny".parse().expect("a reference")).expect("found"),
        Some(first)
    );
}

#[test]
fn a_mirror_that_lists_names_only_is_asked_file_by_file() {
    let place = Place::new(tiny());
    place.hub.behave(Behaviour { names_only: true, ..Behaviour::default() });
    place.pull("hf:acme/tiny").expect("pulled");
    place.hub.behave(Behaviour { names_only: true, corrupt: true, ..Behaviour::default() });
    let text = place.pull("hf:acme/tiny:README.md").expect_err("corrupt").to_string();
    assert!(text.contains("README.md has git blob"), "the tag is its digest: {text}");
}

#[test]
fn a_mirror_without_commits_is_read_page_by_page() {
    let place = Place::new(tiny());
    place.hub.behave(Behaviour { tree_pages: Some(2), ..Behaviour::default() });
    let pulled = place.pull("hf:acme/tiny").expect("pulled");
    assert_eq!((pulled.commit.as_str(), pulled.bytes), ("main", 350_013));
    assert_eq!(pulled.path, place.store().root().join("acme--tiny/main"));
    let pages = place.hub.asked().into_iter().filter(|asked| asked.path.contains("/tree/"));
    assert_eq!(pages.count(), 3);
    let nobody = place.pull_from("http://127.0.0.1:9", "hf:acme/tiny").expect("here already");
    assert_eq!(nobody, pulled);

    // Of the same length, so that only the digest tells.
    place.hub.commit(COMMIT, "config.json", b"[]");
    place.pull("hf:acme/tiny").expect("pulled again");
    assert_eq!(fs::read(pulled.path.join("config.json")).expect("new"), b"[]");
}

#[test]
fn a_model_larger_than_the_disk_is_refused_before_any_byte() {
    let place = Place::new(tiny());
    place.hub.behave(Behaviour { claimed_bytes: Some(1 << 43), ..Behaviour::default() });
    let text = place.pull("hf:acme/tiny").expect_err("too large").to_string();
    assert!(text.contains("acme/tiny needs 32.0 TiB more"), "{text}");
    assert!(place.weights_asked().is_empty());
    place.hub.behave(Behaviour { claimed_bytes: Some(1 << 60), ..Behaviour::default() });
    assert!(matches!(place.pull("hf:acme/tiny"), Err(HubError::Answer { .. })));
    place.hub.behave(Behaviour { claimed_bytes: Some(300_000), ..Behaviour::default() });
    assert!(matches!(place.pull("hf:acme/tiny"), Err(HubError::WrongSize { .. })));
}

#[test]
fn a_revision_that_moves_leaves_the_old_files_as_they_are_and_fetches_what_changed() {
    let place = Place::new(tiny());
    let old = place.pull("hf:acme/tiny").expect("pulled");
    let next = "f".repeat(40);
    place.hub.commit(&next, "config.json", b"{\"new\": 1}");
    place.hub.asked();
    let new = place.pull("hf:acme/tiny").expect("pulled again");
    assert_eq!(new.commit, next);
    assert!(place.weights_asked().is_empty(), "the weights are the same");
    assert_eq!(fs::read(old.path.join("config.json")).expect("old"), b"{}");
    assert_eq!(fs::read(new.path.join("config.json")).expect("new"), b"{\"new\": 1}");
    assert!(fs::read(new.path.join(WEIGHTS)).expect("weights") == noise(350_000));
    let kept = place.store().list().expect("a list");
    let names: Vec<_> = kept.iter().map(|kept| kept.reference.to_string()).collect();
    assert_eq!(names, [format!("hf:acme/tiny@{COMMIT}"), "hf:acme/tiny".into()]);
}

#[test]
fn gguf_models_come_with_their_parts_and_go_one_by_one() {
    let parts = ["x-Q8_0-00001-of-00002.gguf", "x-Q8_0-00002-of-00002.gguf"];
    let place = Place::new(FakeHub::start(&[
        (parts[0], noise(10)),
        (parts[1], noise(20)),
        ("x-Q4_K_M.gguf", noise(30)),
    ]));
    let small = place.pull("hf:acme/tiny").expect("the usual one");
    assert_eq!((small.name.as_str(), small.bytes), ("x-Q4_K_M", 30));
    let large = place.pull("hf:acme/tiny:q8_0").expect("by its encoding");
    assert_eq!((large.name.as_str(), large.bytes), ("x-Q8_0", 30));
    assert_eq!(large.path.file_name().and_then(|name| name.to_str()), Some(parts[0]));

    let store = place.store();
    let parse = |text: &str| text.parse::<HubRef>().expect("a reference");
    assert_eq!(store.list().expect("a list")[0].models.len(), 2);
    assert_eq!(store.remove(&parse("hf:acme/tiny:q8_0")).expect("removed"), 30);
    assert_eq!(store.find(&parse("hf:acme/tiny:q8_0")).expect("asked"), None);
    assert_eq!(store.find(&parse("hf:acme/tiny")).expect("asked"), Some(small));
    store.remove(&parse("hf:acme/tiny")).expect("removed");
    assert!(store.list().expect("a list").is_empty());
    assert!(matches!(store.remove(&parse("hf:acme/tiny")), Err(HubError::NotHere { .. })));
}

/// Goal: two processes at one repository fetch every byte once. Method: two pulls at a time.
#[test]
fn two_pulls_of_one_model_do_not_fight() {
    let place = Place::new(tiny());
    std::thread::scope(|scope| {
        let pulls = [(), ()].map(|()| scope.spawn(|| place.pull("hf:acme/tiny").expect("pulled")));
        let [first, second] = pulls.map(|pull| pull.join().expect("no panic"));
        assert_eq!(first, second);
    });
    assert_eq!(place.weights_asked().len(), 4, "each range once");
}

#[test]
fn damaged_records_are_named_and_never_lead_outside() {
    let place = Place::new(tiny());
    let pulled = place.pull("hf:acme/tiny").expect("pulled");
    let reference = "hf:acme/tiny".parse().expect("a reference");
    let refs = place.store().root().join("acme--tiny/refs.json");
    fs::write(&refs, "{\"main\": \"../../..\"}").expect("written");
    assert_eq!(place.store().find(&reference).expect("asked"), None);
    fs::write(&refs, "{").expect("written");
    let text = place.store().find(&reference).expect_err("damaged").to_string();
    assert!(text.contains("refs.json"), "{text}");
    fs::remove_file(&refs).expect("removed");
    place.pull("hf:acme/tiny").expect("mended");
    fs::write(pulled.path.join(".talka.json"), "[]").expect("written");
    let text = place.store().find(&reference).expect_err("damaged").to_string();
    assert!(text.contains(".talka.json"), "{text}");
    place.pull("hf:acme/tiny").expect("a pull writes it anew");
}

//! Models of which only the small files and ranges of the weights are wanted.

use super::{Place, WEIGHTS, noise, tiny};
use crate::server::{Behaviour, COMMIT, FakeHub};
use std::{fs, ops::Range, time::Duration};
use talka_hub::{Begun, Hub, HubConfig, HubError, HubRef};
use tokio::{runtime::Runtime, sync::mpsc};

const REF: &str = "hf:acme/tiny";

impl Place {
    fn open(&self) -> Hub {
        let mut config = HubConfig::new(self.hub.endpoint(), self.token.clone());
        config.wait = Duration::from_millis(1);
        Hub::new(config).expect("an endpoint")
    }

    fn begin(&self) -> Result<Begun, HubError> {
        let begun = async { self.open().begin(&self.store(), &reference(), &|_| ()).await };
        Runtime::new().expect("an async runtime").block_on(begun)
    }

    fn read(&self, begun: &Begun, range: Range<u64>) -> Result<Vec<u8>, HubError> {
        Runtime::new().expect("an async runtime").block_on(async {
            let (hub, reference) = (self.open(), reference());
            let (sink, mut pieces) = mpsc::channel(4);
            let reading = async {
                let read = hub.read(&reference, begun, WEIGHTS, range, &sink).await;
                drop(sink);
                read
            };
            let taking = async {
                let mut bytes = Vec::new();
                while let Some(piece) = pieces.recv().await {
                    bytes.extend(piece);
                }
                bytes
            };
            let (read, bytes) = tokio::join!(reading, taking);
            read.map(|()| bytes)
        })
    }
}

fn reference() -> HubRef {
    REF.parse().expect("a reference")
}

#[test]
fn the_small_files_come_alone_and_once() {
    let place = Place::new(tiny());
    assert_eq!(place.store().begun(&reference()).expect("readable"), None);
    let begun = place.begin().expect("begun");
    assert_eq!((begun.name.as_str(), begun.commit.as_str()), ("tiny", COMMIT));
    assert_eq!(begun.weights.iter().map(|file| file.bytes).collect::<Vec<_>>(), [Some(350_000)]);
    assert!(begun.folder.join("tokenizer.json").is_file() && !begun.folder.join(WEIGHTS).exists());
    assert_eq!(place.weights_asked(), []);
    assert_eq!(place.store().find(&reference()).expect("readable"), None, "it is not whole");
    assert_eq!(place.store().begun(&reference()).expect("readable"), Some(begun.clone()));
    // The revision stays at its commit, and the hub is not asked again.
    place.hub.commit(&"f".repeat(40), "config.json", b"{\"new\": 1}");
    assert_eq!(place.begin().expect("here"), begun);
    assert_eq!(place.hub.asked(), []);
    // All of it can still be had.
    assert_eq!(place.pull(REF).expect("pulled").bytes, 350_021);
}

#[test]
fn ranges_come_as_asked_for_whatever_the_server_does() {
    let place = Place::new(tiny());
    let begun = place.begin().expect("begun");
    let whole = noise(350_000);
    for behaviour in [
        Behaviour::default(),
        Behaviour { busy: 2, ..Behaviour::default() },
        Behaviour { cut: Some((1_000, 3)), ..Behaviour::default() },
    ] {
        place.hub.behave(behaviour.clone());
        let read = place.read(&begun, 100_000..120_000).expect("read");
        assert!(read == whole[100_000..120_000], "{behaviour:?}");
    }
    let asked: Vec<_> = place.weights_asked().into_iter().map(|asked| asked.range).collect();
    assert!(asked.contains(&Some((103_000, 120_000))), "goes on after a cut: {asked:?}");
    assert!(place.read(&begun, 0..350_000).expect("all of it") == whole);
    assert!(place.read(&begun, 7..7).expect("nothing").is_empty());
    let error = place.read(&begun, 349_999..350_001).expect_err("beyond its end");
    assert!(matches!(error, HubError::WrongSize { .. }), "{error}");
}

#[test]
fn a_server_without_ranges_or_with_another_file_is_refused() {
    let place = Place::new(tiny());
    let begun = place.begin().expect("begun");
    place.hub.behave(Behaviour { no_ranges: true, ..Behaviour::default() });
    let error = place.read(&begun, 5..10).expect_err("refused").to_string();
    assert!(error.contains("talka models pull"), "{error}");
    place.hub.behave(Behaviour::default());
    place.hub.commit(COMMIT, WEIGHTS, &noise(350_001));
    let error = place.read(&begun, 5..10).expect_err("refused");
    assert!(matches!(error, HubError::WrongSize { found: 350_001, .. }), "{error}");
}

#[test]
fn a_gguf_file_has_no_parts() {
    let place = Place::new(FakeHub::start(&[("x.gguf", noise(10))]));
    let error = place.begin().expect_err("refused");
    assert!(matches!(error, HubError::Parts { .. }), "{error}");
    assert!(fs::read_dir(place.store().root().join("acme--tiny")).is_err(), "nothing is kept");
}

//! Any bytes as what members of a training job send each other: updates in each compression, checkpoints, and the messages and records of
//! rounds, which are then heard by a member.
#![no_main]

use libfuzzer_sys::fuzz_target;
use talka_base::{Encoded, NodeId, Tick, WeightsHash, decode, encode};
use talka_train::{
    Compressor, Cut, Layout, Shared,
    round::{Decision, Input, Late, Message, Record, Rounds, Terms},
};

const COMPRESSORS: [Compressor; 6] = [
    Compressor::Plain32,
    Compressor::Plain16,
    Compressor::Dense4,
    Compressor::SPARSE,
    Compressor::Sparse { cut: Cut::Tensors, top: 512 },
    Compressor::Sparse { cut: Cut::Tiles, top: 64 },
];

fn check<T: Encoded>(bytes: &[u8]) -> Option<T> {
    let value = decode::<T>(bytes).ok()?;
    assert_eq!(encode(&value), bytes, "{}", T::NAME);
    Some(value)
}

fn hear(message: Message) {
    let (me, now) = (NodeId([1; 32]), Tick(1_000_000));
    let terms = Terms {
        founder: me,
        base: WeightsHash([0; 32]),
        rounds: 10,
        seats_min: 1,
        quota: 10,
        window_ms: 1000,
        grace_ms: 1000,
        late: Late::Carried,
        recipe: [0; 32],
    };
    for me in [me, NodeId([2; 32])] {
        let mut rounds = Rounds::recover(me, terms.clone(), now, []);
        let mut effects = Vec::new();
        for input in [
            Input::Synced(terms.base),
            Input::Again,
            Input::Message(NodeId([3; 32]), message.clone()),
            Input::Message(NodeId([1; 32]), message.clone()),
            Input::Again,
        ] {
            rounds.step(now, input, &mut effects);
        }
        for effect in effects {
            let _ = format!("{effect:?}");
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    // The layout of the golden files, so that mutations of them are near to right.
    let layout = Layout::new([(9, 10), (1, 5)]);
    for compressor in COMPRESSORS {
        if let Ok(values) = compressor.read(&layout, bytes) {
            assert_eq!(values.len(), layout.len());
            assert!(values.iter().all(|value| value.is_finite()));
        }
    }
    if let Ok(shared) = Shared::read(3, bytes) {
        assert_eq!(shared.write(), bytes);
    }
    check::<Terms>(bytes);
    check::<Decision>(bytes);
    check::<Record>(bytes);
    if let Some(message) = check::<Message>(bytes) {
        hear(message);
    }
});

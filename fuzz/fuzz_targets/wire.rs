//! Any bytes as what a peer sends: frames of each lane, the messages in them, an invite as text, and a backup.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use talka_net::{
    Invite, Lane, activation::read_best, decode_activation, frame::Decoder, read_tokens, read_values,
};
use talka_node::{
    store::backup,
    wire::{Control, Flow, fetch},
};

/// What the lane's frames hold, or nothing more after the first that is wrong.
fn frames(lane: Lane, mut bytes: &[u8]) -> Vec<Bytes> {
    let mut decoder = Decoder::new(lane);
    let mut payloads = Vec::new();
    while !bytes.is_empty() {
        let space = decoder.space();
        let count = space.len().min(bytes.len());
        space[..count].copy_from_slice(&bytes[..count]);
        bytes = &bytes[count..];
        match decoder.filled(count) {
            Ok(payload) => payloads.extend(payload),
            Err(_) => return payloads,
        }
    }
    payloads
}

fn messages(bytes: &Bytes) {
    if let Ok(control) = Control::from_bytes(bytes) {
        let _ = format!("{control:?}");
    }
    if let Ok(flow) = Flow::from_bytes(bytes.clone()) {
        let _ = format!("{flow:?}");
    }
    if let Ok(ask) = fetch::Ask::from_bytes(bytes) {
        assert_eq!(fetch::Ask::from_bytes(&ask.to_bytes()), Ok(ask));
    }
    let _ = fetch::Answer::from_bytes(bytes);
    if let Ok((header, payload)) = decode_activation(bytes.clone()) {
        let _ = (read_tokens(&payload), read_best(&payload), format!("{header:?}"));
        for kind in [talka_net::WireType::F32, talka_net::WireType::Bf16] {
            let _ = read_values(kind, &payload);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _ = backup::Check::all(bytes);
    for lane in Lane::ALL {
        frames(lane, bytes).iter().for_each(messages);
    }
    messages(&Bytes::copy_from_slice(bytes));
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = text.parse::<Invite>();
    }
});

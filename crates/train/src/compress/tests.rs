use super::*;
use proptest::prelude::*;
use std::{fs, path::PathBuf};
use talka_base::{hex, rng::Rng};

const ALL: [Compressor; 6] = [
    Compressor::Plain32,
    Compressor::Plain16,
    Compressor::Dense4,
    Compressor::SPARSE,
    Compressor::Sparse { cut: Cut::Tensors, top: 512 },
    Compressor::Sparse { cut: Cut::Tiles, top: 64 },
];

/// A tiled matrix with edges, a vector, and a tail.
fn layout() -> Layout {
    Layout::new([(100, 90), (1, 130), (7, 3)])
}

/// Values of very different sizes, some of them equal, some zero.
fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    let mut value = || {
        let size = (rng.below(1000) as f32 / 500.0 - 1.0) * 10f32.powi(rng.below(9) as i32 - 6);
        if rng.below(10) == 0 { 0.0 } else { size }
    };
    (0..len).map(|_| value()).collect()
}

fn check_refused(bytes: &[u8], compressor: Compressor, expected: &UpdateError) {
    assert_eq!(compressor.read(&layout(), bytes).as_ref(), Err(expected));
    assert_eq!(expected.blame(), Blame::Peer);
}

fn written(compressor: Compressor) -> Vec<u8> {
    compressor.write(&layout(), &values(1, layout().len())).expect("finite")
}

#[test]
fn encodings_stay_as_they_are() {
    let layout = Layout::new([(9, 10), (1, 5)]);
    for (name, compressor) in
        ["plain32", "plain16", "dense4", "sparse", "sparse512", "tiles"].into_iter().zip(ALL)
    {
        let found = compressor.write(&layout, &values(2, layout.len())).expect("finite");
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.hex"));
        if std::env::var_os("TALKA_BLESS").is_some() {
            fs::write(&path, hex::show(&found) + "\n").expect("golden file written");
        }
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(hex::show(&found), text.trim(), "encoding of {name} changed");
    }
}

#[test]
fn a_sparse_update_takes_less_than_a_quarter_of_a_bit_a_parameter() {
    // The smallest model of the preset sizes, by its matrices, and a model of 800,000 parameters.
    let block =
        [(768, 768), (256, 768), (256, 768), (768, 768), (2048, 768), (2048, 768), (768, 2048)];
    let preset = block.repeat(12).into_iter().chain([(32_000, 768), (1, 768 * 25)]);
    for layout in [Layout::new(preset), Layout::new([(65, 128), (6176, 128), (1, 1152)])] {
        let bytes = Compressor::SPARSE.bytes(&layout);
        let bits = 8.0 * bytes as f64 / layout.len() as f64;
        assert!((bits / 0.219 - 1.0).abs() < 0.02, "{bits} bits a parameter");
    }
    assert_eq!(Compressor::SPARSE.bytes(&Layout::new([(64, 64)])), HEADER_BYTES + 896 / 8);
}

#[test]
fn lossless_is_lossless_and_the_others_are_as_near_as_they_say() {
    let layout = layout();
    let values = values(3, layout.len());
    let back = |compressor: Compressor| {
        let bytes = compressor.write(&layout, &values).expect("finite");
        assert_eq!(bytes.len(), compressor.bytes(&layout));
        compressor.read(&layout, &bytes).expect("just written")
    };
    assert_eq!(back(Compressor::Plain32), values);
    for (found, value) in back(Compressor::Plain16).iter().zip(&values) {
        assert!((found - value).abs() <= value.abs() / 256.0, "{value} became {found}");
    }
    for (found, value) in back(Compressor::Dense4).chunks(256).zip(values.chunks(256)) {
        let step = value.iter().fold(0.0f32, |a, b| a.max(b.abs())) / 7.0;
        assert!(found.iter().zip(value).all(|(f, v)| (f - v).abs() <= 0.501 * step));
    }
}

/// What small_runs.py of the reference does to a block, written plainly.
fn reference(values: &[f32], top: usize) -> Vec<f32> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs()).then(a.cmp(&b)));
    let mut found = vec![0.0; values.len()];
    let (high, low) = order[..top].split_at(top / 2);
    for half in [high, low] {
        let sum: f64 = half.iter().map(|&index| f64::from(values[index].abs())).sum();
        let size = (sum / half.len() as f64) as f32;
        half.iter()
            .for_each(|&index| found[index] = if values[index] < 0.0 { -size } else { size });
    }
    found
}

#[test]
fn sparse_sends_the_largest_in_two_magnitudes() {
    let layout = Layout::new([(64, 64), (64, 64)]);
    let values = values(4, layout.len());
    let bytes = Compressor::SPARSE.write(&layout, &values).expect("finite");
    let expected = [reference(&values[..4096], 64), reference(&values[4096..], 64)].concat();
    assert_eq!(Compressor::SPARSE.read(&layout, &bytes), Ok(expected));
}

#[test]
fn of_equal_values_the_first_are_sent() {
    let layout = Layout::new([(1, 128)]);
    let sparse = Compressor::SPARSE;
    let read = sparse.read(&layout, &sparse.write(&layout, &[-2.0; 128]).expect("finite"));
    let expected = [[-2.0; 2].as_slice(), &[0.0; 126]].concat();
    assert_eq!(read, Ok(expected));
}

#[test]
fn what_is_left_out_is_sent_later() {
    let layout = Layout::new([(1, 640)]);
    let mut feedback = Feedback::new(640, 1.0);
    let learned: Vec<f32> = (0..640).map(|n| 1.0 + n as f32 / 640.0).collect();
    let mut sum = vec![0.0; 640];
    for round in 0..200 {
        let new = if round == 0 { learned.clone() } else { vec![0.0; 640] };
        let bytes = feedback.send(Compressor::SPARSE, &layout, &new).expect("finite");
        let sent = Compressor::SPARSE.read(&layout, &bytes).expect("just written");
        sum.iter_mut().zip(sent).for_each(|(sum, sent)| *sum += sent);
    }
    assert!(sum.iter().zip(&learned).all(|(sum, learned)| (sum - learned).abs() < 0.1));
    assert!(feedback.carried().iter().all(|rest| rest.abs() < 0.1));
}

#[test]
fn what_was_not_merged_is_carried_whole() {
    let layout = layout();
    let learned = values(5, layout.len());
    let mut feedback = Feedback::new(layout.len(), Feedback::DECAY);
    let bytes = feedback.send(Compressor::SPARSE, &layout, &learned).expect("finite");
    feedback.take_back(Compressor::SPARSE, &layout, &bytes).expect("ours");
    for (carried, learned) in feedback.carried().iter().zip(&learned) {
        assert!((carried - learned).abs() <= 1e-6 * learned.abs().max(1.0));
    }
}

#[test]
fn diverged_updates_are_not_written_and_change_nothing() {
    let layout = layout();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = values(6, layout.len());
        values[17] = bad;
        for compressor in ALL {
            let mut feedback = Feedback::new(layout.len(), Feedback::DECAY);
            let found = feedback.send(compressor, &layout, &values);
            assert_eq!(found, Err(UpdateError::NotFinite { position: 17 }));
            assert!(feedback.carried().iter().all(|&value| value == 0.0));
        }
    }
}

#[test]
fn wrong_sizes_headers_and_values_are_refused() {
    for compressor in ALL {
        let bytes = written(compressor);
        let (expected, found) = (bytes.len(), bytes.len() - 1);
        check_refused(&bytes[..found], compressor, &UpdateError::Size { expected, found });
        check_refused(&[], compressor, &UpdateError::Size { expected, found: 0 });
        let mut other = bytes.clone();
        other[0] += 1;
        let [expected, found] = [&bytes, &other].map(|b| *b.first_chunk().expect("a header"));
        check_refused(&other, compressor, &UpdateError::Header { expected, found });
    }
    let mut nan = written(Compressor::Plain32);
    nan[HEADER_BYTES + 12..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    check_refused(&nan, Compressor::Plain32, &UpdateError::NotFinite { position: 3 });
    let mut infinite = written(Compressor::Plain16);
    infinite[HEADER_BYTES + 4..][..2].copy_from_slice(&half::bf16::INFINITY.to_le_bytes());
    check_refused(&infinite, Compressor::Plain16, &UpdateError::NotFinite { position: 2 });
}

#[test]
fn malformed_blocks_are_refused() {
    let malformed = |reason| UpdateError::Malformed { block: 0, reason };
    let sparse = |at: usize, bytes: &[u8]| {
        let mut update = written(Compressor::SPARSE);
        update[HEADER_BYTES + at..][..bytes.len()].copy_from_slice(bytes);
        update
    };
    let magnitude = malformed("a magnitude is not a finite number of at least zero");
    for wrong in [f32::NAN, f32::INFINITY, -1.0, -0.0] {
        check_refused(&sparse(0, &wrong.to_le_bytes()), Compressor::SPARSE, &magnitude);
    }
    let order = malformed("the magnitudes are out of order");
    check_refused(&sparse(0, &f32::MAX.to_le_bytes()), Compressor::SPARSE, &order);
    let index = malformed("an index is out of order or out of the block");
    check_refused(&sparse(8, &[0; 8]), Compressor::SPARSE, &index);
    let mut number = written(Compressor::Dense4);
    number[HEADER_BYTES + 4] = 0;
    check_refused(&number, Compressor::Dense4, &malformed("a number below -7"));
    number[HEADER_BYTES..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let scale = malformed("a scale is not a finite number of at least zero");
    check_refused(&number, Compressor::Dense4, &scale);
}

proptest! {
    #[test]
    fn what_is_written_is_read(seed: u64, rows in 1usize..90, columns in 1usize..90, vector in 0usize..300) {
        let layout = Layout::new([(rows, columns), (1, vector)]);
        let values = values(seed, layout.len());
        for compressor in ALL {
            let bytes = compressor.write(&layout, &values).expect("finite");
            prop_assert_eq!(bytes.len(), compressor.bytes(&layout));
            let read = compressor.read(&layout, &bytes).expect("just written");
            prop_assert_eq!(read.len(), values.len());
            prop_assert!(read.iter().zip(&values).all(|(read, value)| read * value >= 0.0));
        }
    }

    #[test]
    fn damaged_updates_never_panic(seed: u64, at: prop::sample::Index, byte: u8) {
        for compressor in ALL {
            let mut bytes = compressor.write(&layout(), &values(seed, layout().len())).expect("finite");
            *at.get_mut(&mut bytes) = byte;
            if let Ok(read) = compressor.read(&layout(), &bytes) {
                prop_assert!(read.iter().all(|value| value.is_finite()));
            }
        }
    }
}

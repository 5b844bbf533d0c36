//! What training leaves behind: checkpoints from which it goes on to the bit, and models that the engine serves.

use proptest::prelude::*;
use talka_base::rng::Rng;
use talka_engine::kernels::{Kernels, ThreadPool};
use talka_engine::{LogitsWanted, Model, ModelSource, StageInput, StageOutput};
use talka_train::tokens::TextTokenizer;
use talka_train::{
    AdamW, Batch, Checkpoint, CheckpointError, ModelConfig, Muon, OptimiserConfig, Parameters,
    Precision, Schedule, TrainConfig, Trainer, WeightWidth, read_model, write_model,
};

fn model(tied: bool) -> ModelConfig {
    ModelConfig {
        hidden: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        ffn: 48,
        vocab: 61,
        context: 16,
        tied,
        norm_epsilon: 1e-5,
        rope_theta: 1e4,
    }
}

fn config(tied: bool, precision: Precision) -> TrainConfig {
    let adamw = AdamW { learning_rate: 1e-2, ..AdamW::default() };
    TrainConfig {
        optimiser: OptimiserConfig::AdamW(adamw),
        schedule: Schedule::Cosine { warmup: 3, steps: 20, last: 0.1 },
        precision,
        ..TrainConfig::new(model(tied))
    }
}

fn kernels(threads: usize) -> Kernels {
    Kernels::detect(ThreadPool::new(threads))
}

fn trainer(config: TrainConfig, threads: usize) -> Trainer {
    let weights = Parameters::new(&config.model).initial_weights(5);
    Trainer::new(config, weights, kernels(threads)).expect("the weights fit")
}

/// A text in which each token follows from the one before.
fn batch(seed: u64) -> Batch {
    let mut rng = Rng::new(seed);
    let row = |rng: &mut Rng| {
        let mut token = rng.below(61) as u32;
        std::iter::repeat_with(move || {
            token = (token * 7 + 3) % 61;
            token
        })
        .take(17)
    };
    Batch { tokens: (0..4).flat_map(|_| row(&mut rng).collect::<Vec<_>>()).collect(), rows: 4 }
}

#[test]
fn a_model_learns_in_every_way() {
    let muon = Muon { adamw: AdamW { learning_rate: 1e-2, ..AdamW::default() }, ..Muon::default() };
    let plain = config(true, Precision::F32);
    let ways = [
        plain.clone(),
        config(false, Precision::Bf16),
        TrainConfig { optimiser: OptimiserConfig::Muon(muon), ..plain.clone() },
        TrainConfig { dropout: 0.1, ..config(false, Precision::Bf16) },
        TrainConfig { rows_at_once: Some(3), recompute: true, ..plain },
    ];
    for config in ways {
        let mut trainer = trainer(config.clone(), 2);
        let first = trainer.evaluate([&batch(99)]).expect("fits");
        for seed in 0..20 {
            assert_eq!(trainer.step(&batch(seed)).expect("fits").tokens, 64);
        }
        let last = trainer.evaluate([&batch(99)]).expect("fits");
        assert!((4.0..4.3).contains(&first) && last < 0.8 * first, "{first} to {last}: {config:?}");
    }
}

/// Goal: dropout leaves out the same on both ways of computing a step, something else for another member, and nothing when a model is judged.
#[test]
fn dropout_follows_from_step_and_luck_and_stops_where_a_model_is_judged() {
    let plain = config(true, Precision::F32);
    let dropping = TrainConfig { dropout: 0.3, ..plain.clone() };
    let again = TrainConfig { recompute: true, ..dropping.clone() };
    let gradients = |config: &TrainConfig, luck: u64| {
        let mut trainer = trainer(config.clone(), 2);
        trainer.set_luck(luck);
        trainer.loss_and_gradients(&batch(1)).expect("fits").1
    };
    let apart = |a: &[f32], b: &[f32]| {
        let square = |x: f32| f64::from(x) * f64::from(x);
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(square).sum::<f64>().sqrt();
        norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut a.iter().copied())
    };
    let dropped = gradients(&dropping, 0);
    assert!(apart(&dropped, &gradients(&again, 0)) < 1e-5);
    assert!(apart(&dropped, &gradients(&dropping, 1)) > 0.1);
    assert!(apart(&dropped, &gradients(&plain, 0)) > 0.1);
    let judged = |config| trainer(config, 2).evaluate([&batch(1)]).expect("fits");
    assert_eq!(judged(dropping.clone()), judged(plain));
    let wrong = TrainConfig { dropout: 1.0, ..dropping };
    assert!(wrong.validate().expect_err("nothing is left").to_string().contains("dropout"));
}

#[test]
fn threads_change_no_bit() {
    for precision in [Precision::F32, Precision::Bf16] {
        let [mut one, mut three] = [1, 3].map(|threads| trainer(config(true, precision), threads));
        for seed in 0..3 {
            assert_eq!(one.step(&batch(seed)), three.step(&batch(seed)));
        }
        assert_eq!(one.weights(), three.weights());
    }
}

#[test]
fn training_goes_on_from_a_checkpoint_to_the_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("last.ckpt");
    for precision in [Precision::F32, Precision::Bf16] {
        let mut whole = trainer(config(false, precision), 2);
        for seed in 0..3 {
            whole.step(&batch(seed)).expect("fits");
        }
        Checkpoint::of(&whole, 7, 12).write(&path).expect("written");
        let read = Checkpoint::read(&path).expect("whole");
        assert_eq!(read, Checkpoint::of(&whole, 7, 12));
        let mut resumed = read.resume(kernels(2)).expect("fits");
        for seed in 3..6 {
            assert_eq!(whole.step(&batch(seed)), resumed.step(&batch(seed)));
        }
        assert_eq!(Checkpoint::of(&whole, 7, 24), Checkpoint::of(&resumed, 7, 24));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_damaged_checkpoint_is_refused(cut in 0_usize..2000, flip in 0_usize..2000, bit in 0_u32..8) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("last.ckpt");
        Checkpoint::of(&trainer(config(true, Precision::F32), 1), 0, 0).write(&path).expect("written");
        let whole = std::fs::read(&path).expect("there");
        std::fs::write(&path, &whole[..whole.len() - 1 - cut]).expect("written");
        prop_assert!(Checkpoint::read(&path).is_err());
        let mut flipped = whole.clone();
        flipped[whole.len() * flip / 2000] ^= 1 << bit;
        std::fs::write(&path, &flipped).expect("written");
        let refused = matches!(
            Checkpoint::read(&path),
            Err(CheckpointError::Hash { .. } | CheckpointError::Format { .. })
        );
        prop_assert!(refused);
    }
}

#[test]
fn bad_batches_and_weights_are_refused() {
    let mut trainer = trainer(config(true, Precision::F32), 1);
    let before = trainer.weights().to_vec();
    for (tokens, rows) in [
        (vec![], 1),
        (vec![1], 1),
        (vec![1, 2], 0),
        (vec![1; 18], 1),
        (vec![1; 5], 2),
        (vec![61; 4], 1),
    ] {
        assert!(trainer.step(&Batch { tokens, rows }).is_err());
    }
    assert!(trainer.set_weights(&before[1..]).is_err());
    assert_eq!(trainer.weights(), before);
    let nonsense = vec![f32::NAN; before.len()];
    trainer.set_weights(&nonsense).expect("as many");
    let error = trainer.step(&batch(0)).expect_err("no numbers").to_string();
    assert!(error.contains("diverged"), "{error}");
}

#[test]
fn weights_put_back_change_nothing_and_moments_stay() {
    let [mut one, mut other] = [(); 2].map(|()| trainer(config(true, Precision::F32), 1));
    for seed in 0..3 {
        one.step(&batch(seed)).expect("fits");
        other.step(&batch(seed)).expect("fits");
        let weights = other.weights().to_vec();
        other.set_weights(&weights).expect("as many");
    }
    assert_eq!(one.weights(), other.weights());
    other.reset_moments();
    assert_ne!(
        one.step(&batch(4)),
        other
            .step(&batch(4))
            .map(|report| talka_train::StepReport { loss: report.loss + 1.0, ..report })
    );
    assert_ne!(one.weights(), other.weights());
}

/// What training computes is what serving computes.
#[test]
fn the_engine_serves_what_was_trained() {
    let text: String = (0..61).map(|at| char::from(b'A' + at)).collect();
    let tokenizer = TextTokenizer::characters([text.as_str()]).to_json().expect("written");
    for tied in [false, true] {
        let mut trainer = trainer(config(tied, Precision::F32), 1);
        trainer.step(&batch(1)).expect("fits");
        let folder = tempfile::tempdir().expect("a folder");
        let model = trainer.config().model.clone();
        write_model(folder.path(), &model, trainer.weights(), WeightWidth::F32, None)
            .expect("written");
        let (read, weights) = read_model(folder.path()).expect("whole");
        assert_eq!((&read, &weights[..]), (&model, trainer.weights()));

        std::fs::write(folder.path().join("tokenizer.json"), &tokenizer).expect("written");
        let served = Model::open(ModelSource::Folder(folder.path().to_owned())).expect("a model");
        let mut stage = served.stage(served.shape().span(), &kernels(1)).expect("a stage");
        let mut cache = stage.new_cache(stage.span(), 16);
        let tokens = &batch(2).tokens[..16];
        let output = stage.run(StageInput::Tokens(tokens), &mut cache, LogitsWanted::All);
        let StageOutput::Logits(found) = output.expect("runs") else {
            panic!("the last stage gives logits");
        };
        let expected = trainer.logits(tokens, 1).expect("fits");
        let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4 * largest, "{found} for {expected}");
        }
    }
}

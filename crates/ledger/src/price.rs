//! What work costs: FLOPs by the model's shape, times the precision's factor; where a profile sells tokens, its price.
//! Integers only.
//!
//! Unlike the system it follows, one formula serves the estimate and the charge, so that the
//! estimate really is a bound.

use crate::policy::Policy;
use talka_base::{Credits, Flops, ModelShape, Precision};

/// FLOPs per µGFT at factor 1 (10^9 per GFT, 10^6 µGFT per GFT), times the thousand of "per mille".
const FLOPS_PER_MILLE_PER_MICRO: u128 = 1_000_000;

/// The price of `flops` in µGFT, rounded up; saturates at 2^64 - 1, which no account can hold.
///
/// More work never costs less.
pub fn price(flops: Flops, precision: Precision, policy: &Policy) -> Credits {
    let micro = scaled(flops, precision, policy).div_ceil(FLOPS_PER_MILLE_PER_MICRO);
    Credits(u64::try_from(micro).unwrap_or(u64::MAX))
}

/// The same rounded down: the prices of parts never come to more than that of the whole.
pub(crate) fn price_floor(flops: Flops, precision: Precision, policy: &Policy) -> Credits {
    let micro = scaled(flops, precision, policy) / FLOPS_PER_MILLE_PER_MICRO;
    Credits(u64::try_from(micro).unwrap_or(u64::MAX))
}

/// The work that `credits` pay for, at least some: for whoever knows an amount and not what was done for it.
pub(crate) fn work_for(credits: Credits, precision: Precision, policy: &Policy) -> Flops {
    let per_mille = policy.precision_per_mille.of(precision).max(1);
    let flops = u128::from(credits.0) * FLOPS_PER_MILLE_PER_MICRO / u128::from(per_mille);
    Flops(u64::try_from(flops).unwrap_or(u64::MAX).max(1))
}

fn scaled(flops: Flops, precision: Precision, policy: &Policy) -> u128 {
    u128::from(flops.0) * u128::from(policy.precision_per_mille.of(precision))
}

/// The most that a request can cost: every prompt token and every token it may generate run
/// through all layers, with logits for each generated one.
///
/// The token sampled last is never fed back, so a request that generates all it may still
/// computes one position fewer than quoted: settled work never exceeds the quote.
/// `shape` is a validated one.
pub fn quote(
    shape: &ModelShape,
    prompt_tokens: u32,
    max_new_tokens: u32,
    policy: &Policy,
) -> Credits {
    let positions = prompt_tokens.saturating_add(max_new_tokens);
    policy.profile.charge(shape, positions, max_new_tokens, policy)
}

/// The bundled model's, for tests.
#[cfg(test)]
pub(crate) fn bard() -> ModelShape {
    ModelShape {
        layers: 6,
        hidden: 192,
        heads: 6,
        kv_heads: 3,
        head_dim: 32,
        ffn: 512,
        vocab: 1024,
        context: 256,
        precision: Precision::Bf16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(flops: u64, precision: Precision, expected: u64) {
        assert_eq!(price(Flops(flops), precision, &Policy::default()), Credits(expected));
    }

    #[test]
    fn a_thousand_operations_cost_one_micro_gft_and_fractions_round_up() {
        check(0, Precision::F32, 0);
        check(1, Precision::F32, 1);
        check(1_000, Precision::F32, 1);
        check(1_001, Precision::F32, 2);
        check(1_000_000_000, Precision::F32, 1_000_000);
        check(1_000_000_000, Precision::F16, 500_000);
        check(1_000_000_000, Precision::Bf16, 500_000);
        check(1_000_000_000, Precision::Int8, 250_000);
        check(u64::MAX, Precision::F32, 18_446_744_073_709_552);
    }

    #[test]
    fn a_price_beyond_all_credits_saturates() {
        let mut policy = Policy::default();
        policy.precision_per_mille.full = u32::MAX;
        assert_eq!(price(Flops(u64::MAX), Precision::F32, &policy), Credits(u64::MAX));
    }

    proptest! {
        #[test]
        fn no_part_of_a_request_costs_more_than_its_quote(
            prompt in 1u32..5_000, new in 0u32..5_000, unused in 0u32..5_000,
        ) {
            let (shape, policy) = (bard(), Policy::default());
            let quoted = quote(&shape, prompt, new, &policy);
            let positions = (prompt + new).saturating_sub(unused);
            let logits = new.saturating_sub(unused);
            let used = shape.flops(shape.span(), 0..positions, logits);
            prop_assert!(price(used, shape.precision, &policy) <= quoted);
        }
    }
}

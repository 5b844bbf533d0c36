//! A line of an account in words: the rule and its numbers.

use crate::quantity::show_count;
use talka_node::{
    api::{Basis, EntryReport, SessionReport, WorkReport},
    base::{Credits, Factor, Flops, MemberId, Precision},
};

/// Why `entry` is there.
pub fn why(entry: &EntryReport) -> String {
    let Some(basis) = &entry.basis else { return plain(&entry.kind).into() };
    match basis {
        Basis::Quote {
            prompt_tokens,
            max_new_tokens,
            layers,
            flops,
            per_mille,
            per_million_tokens,
        } => {
            let tokens = format!("{prompt_tokens} + {max_new_tokens} tokens");
            let price = match per_million_tokens {
                Some(credits) => format!("{tokens} at {credits} a million"),
                None => format!(
                    "{tokens} through {layers} layers, {} × {}",
                    flop(*flops),
                    thousandths(*per_mille)
                ),
            };
            format!("the most it can cost: {price}")
        }
        Basis::Work { .. } => {
            let reasons = worked(basis, mints(entry)).into_iter().chain(beside(entry));
            reasons.collect::<Vec<_>>().join("; ")
        }
        Basis::Epoch { number, sessions, papers_here, .. } => {
            let asked = if *papers_here { "" } else { ", whose papers were just asked for" };
            let what =
                format!("{} sessions that ended together, epoch {number}{asked}", sessions.len());
            [what].into_iter().chain(beside(entry)).collect::<Vec<_>>().join("; ")
        }
        Basis::Tariff {
            prompt_tokens,
            max_new_tokens,
            multiple_per_mille,
            per_thousand_tokens,
        } => {
            let price = match (multiple_per_mille, per_thousand_tokens) {
                (Some(multiple), _) => format!("{} × the network's price", thousandths(*multiple)),
                (None, Some(credits)) => format!("{credits} for a thousand"),
                (None, None) => "no price".into(),
            };
            format!("from outside: {prompt_tokens} + {max_new_tokens} tokens at {price}")
        }
    }
}

/// The sessions of an epoch in which `member` paid or its nodes worked: what each cost, and why.
pub fn sessions(entry: &EntryReport, member: MemberId) -> Vec<String> {
    let Some(Basis::Epoch { sessions, .. }) = &entry.basis else { return Vec::new() };
    let concerns = |session: &&SessionReport| {
        let worked = match &session.basis {
            Some(Basis::Work { work, .. }) => work.iter().any(|part| part.member == Some(member)),
            _ => false,
        };
        worked || session.payer == Some(member)
    };
    let told = sessions.iter().filter(concerns).map(|session| {
        let reasons = session.basis.as_ref().map(|basis| worked(basis, mints(entry)));
        let what = reasons.map_or_else(|| "by vouchers".into(), |reasons| reasons.join("; "));
        format!("{}: {what}", session.cost)
    });
    told.collect()
}

/// What was paid for, and who did which part of it.
fn worked(basis: &Basis, mints: bool) -> Vec<String> {
    let Basis::Work { positions, work, flops, precision, per_mille, per_million_tokens, .. } =
        basis
    else {
        return Vec::new();
    };
    let cost = match per_million_tokens {
        Some(credits) => format!("{positions} tokens at {credits} a million"),
        None => cost(*positions, *flops, *precision, *per_mille),
    };
    let parts = work.iter().map(|part| part_of(part, work, mints));
    [cost].into_iter().chain(parts).collect()
}

fn mints(entry: &EntryReport) -> bool {
    entry.postings.iter().any(|posting| posting.account == "mint")
}

/// What neither a payer nor a worker has of it.
fn beside(entry: &EntryReport) -> impl Iterator<Item = String> {
    entry.postings.iter().filter_map(|posting| {
        let what = match posting.account.as_str() {
            "mint" => "created",
            "burn" => "burned",
            "treasury" => "for the common purse",
            _ => return None,
        };
        Some(format!("{} {what}", Credits(posting.change.unsigned_abs())))
    })
}

/// What needs no numbers.
fn plain(kind: &str) -> &'static str {
    match kind {
        "founded" | "joined" => "what a new member is granted",
        "settled" => "work was paid, and what was left came back",
        "released" => "no answer came of it: what was set aside came back",
        "delivered" => "an answer came from outside, and what was left came back",
        "expired" => "not used for as long as credits last here",
        "freed" => "common work was not found wrong in time: what it earned can be spent",
        "staked" => "locked as a stake, or back from it",
        "rewarded" => "work that no request pays for, within the day's budget; held for some days",
        "claimed" => "a head had not paid what it signed for",
        "decided" => "the members decided on a penalty",
        "epoch" => "work of many sessions was paid, and what was left came back",
        _ => "",
    }
}

/// `412 tokens × 2.48 GFLOP × bf16 0.5`
fn cost(
    positions: u32,
    flops: Option<Flops>,
    precision: Option<Precision>,
    per_mille: Option<u32>,
) -> String {
    let mut text = format!("{positions} tokens");
    if let Some(Flops(all)) = flops {
        text += &format!(" × {}", flop(Flops(all / u64::from(positions.max(1)))));
    }
    if let Some(per_mille) = per_mille {
        let precision = precision.map(|p| format!("{} ", name(p))).unwrap_or_default();
        text += &format!(" × {precision}{}", thousandths(per_mille));
    }
    text
}

/// `kitchen 4..10, 37.5 %, multiplier 1.325, reliability 0.98`; where work creates credits, its FLOPs in the place of
/// its part.
fn part_of(part: &WorkReport, all: &[WorkReport], mints: bool) -> String {
    let mut text = format!("{} {}", part.name, part.span);
    if let Some(own) = part.flops.filter(|_| mints) {
        text += &format!(", {}", flop(own));
    }
    let total: Option<u64> = all.iter().map(|part| part.flops.map(|flops| flops.0)).sum();
    if let (false, Some(Flops(own)), Some(total @ 1..)) = (mints, part.flops, total) {
        let tenths = (u128::from(own) * 1_000 + u128::from(total) / 2) / u128::from(total);
        text += &format!(", {}.{} %", tenths / 10, tenths % 10);
    }
    for (what, factor) in [("multiplier", part.multiplier), ("reliability", part.reliability)] {
        text += &factor.map(|f| format!(", {what} {}", decimal(f))).unwrap_or_default();
    }
    text
}

fn flop(flops: Flops) -> String {
    format!("{}FLOP", show_count(flops.0))
}

const fn name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::F16 => "f16",
        Precision::Bf16 => "bf16",
        Precision::Int8 => "int8",
    }
}

fn thousandths(per_mille: u32) -> String {
    decimal(Factor(per_mille * (Factor::SCALE / 1_000)))
}

/// Without zeros at the end: `1.325`, `1`.
fn decimal(factor: Factor) -> String {
    let text = factor.to_string();
    text.trim_end_matches('0').trim_end_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(kind: &str, basis: Option<Value>, expected: &str) {
        check_with(kind, json!([]), basis, expected);
    }

    fn check_with(kind: &str, postings: Value, basis: Option<Value>, expected: &str) {
        let mut entry = json!({
            "height": 7, "at": 0, "hash": "11".repeat(32), "kind": kind, "request": null,
            "postings": postings,
        });
        if let Some(basis) = basis {
            entry["basis"] = basis;
        }
        let entry: EntryReport = serde_json::from_value(entry).expect("an entry");
        assert_eq!(why(&entry), expected);
    }

    #[test]
    fn an_answer_is_explained_down_to_each_factor() {
        let part = |name: &str, span: [u32; 2], flops: u64, multiplier: u32, reliability: u32| {
            json!({
                "node": "22".repeat(32), "name": name, "span": span,
                "flops": flops, "multiplier": multiplier, "reliability": reliability,
            })
        };
        let work = json!({
            "of": "work", "positions": 412, "logits": 400, "flops": 412_u64 * 2_480_000_000,
            "precision": "bf16", "per_mille": 500,
            "work": [part("attic", [0, 10], 625, 10_000, 10_000), part("kitchen", [10, 16], 375, 13_250, 9_800)],
        });
        check(
            "settled",
            Some(work),
            "412 tokens × 2.48 GFLOP × bf16 0.5; attic 0..10, 62.5 %, multiplier 1, reliability 1; \
             kitchen 10..16, 37.5 %, multiplier 1.325, reliability 0.98",
        );
        let unknown = json!({
            "of": "work", "positions": 3, "logits": 1, "flops": null, "precision": null, "per_mille": null,
            "work": [{ "node": "22".repeat(32), "name": "attic", "span": [0, 4], "flops": null }],
        });
        check("settled", Some(unknown), "3 tokens; attic 0..4");
    }

    #[test]
    fn what_another_economy_creates_burns_or_keeps_is_explained() {
        let work = |basis: Value, part: Value| {
            let mut work = json!({
                "of": "work", "positions": 412, "logits": 400, "flops": 412_u64 * 2_480_000_000,
                "precision": "bf16", "per_mille": 500,
            });
            let mut only = json!({ "node": "22".repeat(32), "name": "attic", "span": [0, 16], "flops": 13_250_000_000_u64 });
            for (to, more) in [(&mut work, basis), (&mut only, part)] {
                let more = more.as_object().expect("an object").clone();
                to.as_object_mut().expect("an object").extend(more);
            }
            work["work"] = json!([only]);
            Some(work)
        };
        let moved = |account: &str, change: i64| json!({"account": account, "bucket": null, "change": change});
        check_with(
            "settled",
            json!([moved("mint", -17_556_250), moved("burn", 510_880_000)]),
            work(json!({}), json!({"multiplier": 13_250, "reliability": 10_000})),
            "412 tokens × 2.48 GFLOP × bf16 0.5; attic 0..16, 13.2 GFLOP, multiplier 1.325, \
             reliability 1; 17.556250 GFT created; 510.880000 GFT burned",
        );
        check_with(
            "settled",
            json!([moved("burn", 20), moved("treasury", 0)]),
            work(json!({"per_mille": null, "per_million_tokens": 1_000_000}), json!({})),
            "412 tokens at 1.000000 GFT a million; attic 0..16, 100.0 %; 0.000020 GFT burned; \
             0.000000 GFT for the common purse",
        );
    }

    #[test]
    fn an_epoch_is_explained_session_by_session_for_those_whom_it_concerns() {
        let (me, other) = ("22".repeat(32), "33".repeat(32));
        let session = |payer: &str, node: &str, cost: u64| {
            json!({
                "request": "44".repeat(16), "payer": payer, "cost": cost, "settled": true,
                "basis": {
                    "of": "work", "positions": 3, "logits": 1, "flops": 3_000, "precision": "bf16",
                    "per_mille": 500,
                    "work": [{
                        "node": node, "member": node, "name": "attic", "span": [0, 4], "flops": 3_000,
                    }],
                },
            })
        };
        let by_vouchers = json!({
            "request": "55".repeat(16), "payer": me, "cost": 7, "settled": false,
        });
        let sessions = json!([
            session(&me, &other, 1_500_000),
            session(&other, &me, 2),
            session(&other, &other, 3),
            by_vouchers
        ]);
        let basis = json!({
            "of": "epoch", "number": 9, "papers": 3, "papers_here": true, "sessions": sessions,
        });
        check("epoch", Some(basis.clone()), "4 sessions that ended together, epoch 9");
        let entry: EntryReport = serde_json::from_value(json!({
            "height": 7, "at": 0, "hash": "11".repeat(32), "kind": "epoch", "request": null,
            "postings": [], "basis": basis,
        }))
        .expect("an entry");
        let told = super::sessions(&entry, MemberId([0x22; 32]));
        let work = "3 tokens × 1.00 kFLOP × bf16 0.5; attic 0..4, 100.0 %";
        assert_eq!(
            told,
            [
                format!("1.500000 GFT: {work}"),
                format!("0.000002 GFT: {work}"),
                "0.000007 GFT: by vouchers".into(),
            ]
        );
    }

    #[test]
    fn what_is_set_aside_and_what_comes_back_is_explained() {
        let quote = json!({
            "of": "quote", "prompt_tokens": 12, "max_new_tokens": 400, "layers": 16,
            "flops": 1_021_000_000_000_u64, "per_mille": 250,
        });
        check(
            "reserved",
            Some(quote),
            "the most it can cost: 12 + 400 tokens through 16 layers, 1.02 TFLOP × 0.25",
        );
        let tariff = json!({
            "of": "tariff", "prompt_tokens": 1, "max_new_tokens": 2, "multiple_per_mille": 1_500,
            "per_thousand_tokens": null,
        });
        check("forwarded", Some(tariff), "from outside: 1 + 2 tokens at 1.5 × the network's price");
        check("joined", None, "what a new member is granted");
        check("released", None, "no answer came of it: what was set aside came back");
    }
}

import assert from "node:assert/strict";
import { test } from "node:test";
import { change, explain, formula, rows } from "../src/lib/ledger";
import type { Credits, Entry, Posting } from "../src/lib/types";

/** Accounts, with the bucket where it is not the usual one. */
const posting = ([name, change]: [string, number]): Posting => {
  const [account = "", bucket = account === "mint" ? null : "spendable"] = name.split(" ");
  return { account, bucket, change } as Posting;
};
const entry = (kind: string, postings: [string, number][]): Entry => ({ height: 3, at: 0, hash: "h", kind, request: "r", postings: postings.map(posting) });
const credits = { members: [{ member: "m1", name: "kitchen" }, { member: "m2", name: "attic" }] } as Credits;

test("what an entry did to an account is the sum of its postings there", () => {
  const settled = entry("settled", [["m1 reserved", -9], ["m1", 4], ["m2", 4], ["m1", 1]]);
  assert.deepEqual([change(settled, "m1"), change(settled, "m2"), change(settled, "m3")], [5, 4, 0]);
});

test("every kind of entry is explained, with names and amounts", () => {
  const check = (kind: string, postings: [string, number][], ...words: string[]) => {
    const text = explain(entry(kind, postings), credits);
    for (const word of words) assert.ok(text.includes(word), `${kind}: ${text}`);
  };
  check("reserved", [["m1", -2_000_000], ["m1 reserved", 2_000_000]], "2.000 GFT");
  check("settled", [["m1 reserved", -2_000_000], ["m2", 2_000_000]], "2.000 GFT", "attic");
  check("released", [["m1 reserved", -2_000_000], ["m1", 2_000_000]], "no answer", "2.000 GFT");
  check("joined", [["mint", -5_000_000], ["m2", 5_000_000]], "attic 5.000 GFT");
  check("joined", [], "Another node");
  check("rated", [], "hardware", "class");
  check("judged", [], "reliable");
  check("appointed", [], "witness");
  check("removed", [], "removed", "keeps the account");
  check("new kind", [["m1", 1_000_000]], "kitchen 1.000 GFT");
});

test("cells are quoted where a table needs it", () => {
  const odd = entry('a "b", c', [["m\n1", -1]]);
  assert.deepEqual(rows([odd]), ['3,1970-01-01T00:00:00.000Z,"a ""b"", c",r,"m\n1",spendable,-1,h']);
});

test("the rule of an entry is written out with its numbers", () => {
  assert.equal(formula(undefined), "");
  assert.equal(
    formula({ of: "quote", prompt_tokens: 12, max_new_tokens: 1200, layers: 6, flops: 1_200_000_001, per_mille: 500, per_million_tokens: null }),
    "(12 + 1,200) tokens through 6 layers: 1.2 GFLOP × 0.5 for the weights' precision = 0.600001 GFT",
  );
  const alike = { multiplier: null, reliability: null };
  const work = [{ node: "a", name: "kitchen", span: [0, 4] as [number, number], flops: 3e9, ...alike }, { node: "b", name: "attic", span: [4, 5] as [number, number], flops: 1e9, ...alike }];
  assert.equal(
    formula({ of: "work", positions: 20, logits: 8, work, per_mille: 1000, per_million_tokens: null }),
    "20 tokens through kitchen layers 0..4 3.0 GFLOP + attic layer 4 1.0 GFLOP: 4.0 GFLOP × 1 for the weights' precision = 4.000 GFT",
  );
  const weighted = work.map((stage) => ({ ...stage, flops: null, multiplier: 13_250, reliability: 9_800 }));
  assert.equal(
    formula({ of: "work", positions: 20, logits: 8, work: weighted.slice(1), per_mille: null, per_million_tokens: null }),
    "20 tokens through attic layer 4 × 1.325 for its hardware × 0.98 for its reliability",
  );
  const unknown = work.map((stage) => ({ ...stage, flops: null }));
  assert.equal(formula({ of: "work", positions: 20, logits: 8, work: unknown, per_mille: null, per_million_tokens: null }), "20 tokens through kitchen layers 0..4 + attic layer 4");
  assert.equal(
    formula({ of: "work", positions: 20, logits: 8, work: unknown, per_mille: null, per_million_tokens: 5e6 }),
    "20 tokens through kitchen layers 0..4 + attic layer 4 at 5.000 GFT a million",
  );
  const tokens = { of: "tariff", prompt_tokens: 1, max_new_tokens: 2 } as const;
  assert.equal(formula({ ...tokens, multiple_per_mille: 2000, per_thousand_tokens: null }), "(1 + 2) tokens at 2 × the network's price");
  assert.equal(formula({ ...tokens, multiple_per_mille: null, per_thousand_tokens: 16e6 }), "(1 + 2) tokens at 16.000 GFT for 1000");
});

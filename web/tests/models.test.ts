import assert from "node:assert/strict";
import { test } from "node:test";
import { answering, depth, gaps } from "../src/lib/models";
import type { Model, Span } from "../src/lib/types";

const stages = (...spans: Span[]) => spans.map((span, at) => ({ node: String(at), name: `n${at}`, span }));

test("gaps are the layers that nobody holds", () => {
  const check = (spans: Span[], expected: Span[]) => assert.deepEqual(gaps(stages(...spans), 6), expected);
  check([], [[0, 6]]);
  check([[0, 6]], []);
  check([[2, 4]], [[0, 2], [4, 6]]);
  check([[4, 6], [0, 2]], [[2, 4]]);
  check([[0, 5], [1, 3]], [[5, 6]]);
});

test("depth counts the holders of each layer", () => {
  assert.deepEqual(depth(stages([0, 2], [1, 4]), 5), [1, 2, 1, 1, 0]);
  assert.deepEqual(depth([], 2), [0, 0]);
});

test("a chat may ask what continues text, with each adapter", () => {
  const model = (name: string, more: Partial<Model>) => ({ name, complete: true, is_encoder: false, adapters: [], ...more }) as unknown as Model;
  const found = answering([model("a", { adapters: ["x"] }), model("vectors", { is_encoder: true }), model("b", { complete: false })]);
  assert.deepEqual(found, [
    { name: "a", complete: true },
    { name: "a:x", complete: true },
    { name: "b", complete: false },
  ]);
});

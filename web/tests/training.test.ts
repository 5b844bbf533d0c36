import { test } from "node:test";
import assert from "node:assert/strict";
import { compared, progressText } from "../src/lib/training";
import type { RunDetail } from "../src/lib/types";

function detail(name: string, job: RunDetail["job"]): RunDetail {
  const run = {
    name, state: "running", reason: null, submitted_at: 0, step: 3, steps: 1200, tokens: 96, loss: 2.5, validation_loss: null,
    tokens_per_second: 1850.4, left_ms: 60_000, bytes_sent: 0, bytes_received: 0, together: null, parameters: 0, vocab: 0, data: [],
    versions: [], serving: null, served_before: null,
  } as const;
  return { run: { ...run, data: [], versions: [] }, job: { task_id: name, ...job }, points: [], member_points: [] };
}

test("jobs are compared field by field", () => {
  const rows = compared([
    detail("one", { seed: 1, training_config: { steps: 1200, learning_rate: 0.001 }, data_requirements: { files: ["a", "b"] } }),
    detail("two", { training_config: { steps: 1200 } }),
  ]);
  const row = (name: string) => rows.find(([found]) => found === name)?.[1];
  assert.deepEqual(row("loss"), ["2.5000", "2.5000"]);
  assert.deepEqual(row("seed"), ["1", "–"]);
  assert.deepEqual(row("training_config.learning_rate"), ["0.001", "–"]);
  assert.deepEqual(row("data_requirements.files"), ["a, b", "–"]);
  assert.equal(row("task_id"), undefined);
});

test("a job's progress is one line", () => {
  assert.equal(progressText(detail("one", {}).run), "step 3 of 1,200, 1,850 tokens/s, 60 s left");
});

// Jobs for the tests: tiny models on one line of text.
import type { APIRequestContext } from "@playwright/test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const LINE = "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer\n";

/** How members train a job together: rounds of a few steps. */
const NETWORK = { members_min: 2, steps_per_round: 20, window_seconds: 30, grace_seconds: 5, compressor: "dense4" };

/** Begins a job; see `train`. */
export async function begin(request: APIRequestContext, home: string, name: string, steps: number, rate = 0.01, together = false): Promise<void> {
  const text = join(mkdtempSync(join(tmpdir(), "talka-train-")), "plays.txt");
  writeFileSync(text, LINE.repeat(40));
  const job = {
    task_id: name,
    model_specification: { hidden: 16, layers: 1, heads: 2, ffn: 32, context: 16, tied: true },
    tokenizer: { kind: "characters" },
    training_config: { steps, batch_size: 2, learning_rate: rate, checkpoint_every: 100, validate_every: 20 },
    data_requirements: { files: [text] },
    ...(together ? { network: NETWORK } : {}),
  };
  const begun = await request.post(new URL("/api/training", home).href, { data: { job } });
  if (!begun.ok()) throw new Error(await begun.text());
}

/** Begins a job and waits until it is done, unless it has more steps than anybody waits for. */
export async function train(request: APIRequestContext, home: string, name: string, steps: number, rate = 0.01): Promise<void> {
  await begin(request, home, name, steps, rate);
  if (steps > 10_000) return;
  for (;;) {
    const detail = await (await request.get(new URL(`/api/training/runs/${name}`, home).href)).json();
    if (detail.run.state === "done") return;
    if (detail.run.state === "failed") throw new Error(detail.run.reason);
    await new Promise((later) => setTimeout(later, 50));
  }
}

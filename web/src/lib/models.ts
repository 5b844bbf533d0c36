// What the models' reports imply.
import type { Model, Span, Stage } from "./types";

/** Runs of layers that no stage covers. */
export function gaps(coverage: Stage[], layers: number): Span[] {
  const found: Span[] = [];
  let next = 0;
  for (const [start, end] of coverage.map((stage) => stage.span).sort((a, b) => a[0] - b[0])) {
    if (start > next) found.push([next, start]);
    next = Math.max(next, end);
  }
  if (next < layers) found.push([next, layers]);
  return found;
}

/** How many stages hold each layer. */
export function depth(coverage: Stage[], layers: number): number[] {
  const holders = new Array<number>(layers).fill(0);
  for (const { span } of coverage) {
    for (let layer = span[0]; layer < span[1]; layer += 1) holders[layer] = (holders[layer] ?? 0) + 1;
  }
  return holders;
}

export interface Choice {
  name: string;
  complete: boolean;
}

/** What a chat may ask: models that continue text, alone and with each adapter. */
export function answering(models: Model[]): Choice[] {
  return models
    .filter((model) => !model.is_encoder)
    .flatMap(({ name, complete, adapters }) =>
      [name, ...adapters.map((adapter) => `${name}:${adapter}`)].map((name) => ({ name, complete })),
    );
}

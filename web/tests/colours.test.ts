// Readable in both schemes: the contrast of colours that meet, as WCAG 2.2 measures it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const [light, dark] = readFileSync("src/app.css", "utf8").split("@media (prefers-color-scheme: dark)");

function colours(css: string | undefined): Map<string, string> {
  return new Map([...(css ?? "").matchAll(/(--[\w-]+): (#[0-9a-f]{6});/g)].map(([, name, value]) => [name!, value!]));
}

function luminance(colour: string): number {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const part = parseInt(colour.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
}

function contrast(a: string, b: string): number {
  const [darker, lighter] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (lighter! + 0.05) / (darker! + 0.05);
}

const TEXT = [["ink", "ground"], ["ink", "panel"], ["ink", "own"], ["soft", "ground"], ["soft", "panel"], ["soft", "own"], ["accent", "panel"], ["accent", "ground"], ["on-accent", "accent"], ["bad", "panel"], ["bad", "bad-ground"], ["panel", "bad"]];
const EDGES = [["edge", "panel"], ["edge", "ground"], ["accent", "line"], ["bad", "line"], ["second", "panel"]];

for (const [scheme, css] of [["light", light], ["dark", dark]] as const) {
  test(`contrast in the ${scheme} scheme`, () => {
    const found = colours(css);
    for (const [pairs, least] of [[TEXT, 4.5], [EDGES, 3]] as const) {
      for (const [front, back] of pairs) {
        const ratio = contrast(found.get(`--${front}`)!, found.get(`--${back}`)!);
        assert.ok(ratio >= least, `${front} on ${back}: ${ratio.toFixed(2)}, expected ${least}`);
      }
    }
  });
}

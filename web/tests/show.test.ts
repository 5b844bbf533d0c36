import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, count, duration, faultsText, gft, layers, microseconds, scaled, short, signedGft } from "../src/lib/show";

test("credits have as many digits as say something", () => {
  const check = (micro: number, expected: string) => assert.equal(gft(micro), expected);
  check(0, "0 GFT");
  check(-0, "0 GFT");
  check(1, "0.000001 GFT");
  check(999_999, "0.999999 GFT");
  check(1_000_000, "1.000 GFT");
  check(-1_234_567, "-1.235 GFT");
  check(100_000_000, "100 GFT");
  check(1_234_567_890_123, "1,234,568 GFT");
});

test("a change has its sign, with a minus that is as wide as a plus", () => {
  assert.deepEqual([signedGft(2_000_000), signedGft(-2_000_000), signedGft(0)], ["+2.000 GFT", "−2.000 GFT", "0 GFT"]);
});

test("numbers get the prefix that keeps them short", () => {
  const check = (number: number, expected: string) => assert.equal(scaled(number, "B"), expected);
  check(0, "0 B");
  check(999, "999 B");
  check(1000, "1.0 kB");
  check(99_949, "99.9 kB");
  check(123_456, "123 kB");
  check(5_300_000_000, "5.3 GB");
  check(7e18, "7000 PB");
  assert.equal(bytes(1_500_000), "1.5 MB");
  assert.equal(count(1_234_567), "1,234,567");
});

test("times are told as people tell them", () => {
  const expected = { 0: "0 ms", 999: "999 ms", 1000: "1.0 s", 9_999: "10.0 s", 10_000: "10 s", 89_000: "89 s", 90_000: "2 min", 5_399_000: "90 min", 7_200_000: "2 h", 172_800_000: "2 days" };
  for (const [ms, text] of Object.entries(expected)) assert.equal(duration(Number(ms)), text);
  assert.deepEqual([microseconds(7), microseconds(1_234), microseconds(45_678), microseconds(2_500_000)], ["7 µs", "1.2 ms", "46 ms", "2.5 s"]);
});

test("layers, ids and faults are short", () => {
  assert.deepEqual([layers([3, 4]), layers([0, 4])], ["layer 3", "layers 0..4"]);
  assert.equal(short("0123456789abcdef"), "01234567");
  assert.equal(faultsText({}), "");
  assert.equal(faultsText({ wrong_rows: 2, silent: 1 }), "wrong rows ×2, silent ×1");
});

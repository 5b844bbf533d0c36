// Numbers, times and names for people.
import type { Faults, Span } from "./types";

/** Credits, with as many digits as say something. */
export function gft(micro: number): string {
  const size = Math.abs(micro) / 1e6;
  const digits = size === 0 || size >= 100 ? 0 : size >= 1 ? 3 : 6;
  // No minus before nought.
  const text = (micro / 1e6 || 0).toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
  return `${text} GFT`;
}

export const signedGft = (micro: number) => (micro > 0 ? `+${gft(micro)}` : gft(micro).replace("-", "−"));

export const layers = ([start, end]: Span) => (end - start === 1 ? `layer ${start}` : `layers ${start}..${end}`);

export const count = (number: number) => number.toLocaleString("en");

/** A number of something with the prefix that keeps it short, such as `1.2 GFLOP`. */
export function scaled(number: number, unit: string): string {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let at = 0;
  while (number >= 1000 && at < prefixes.length - 1) {
    number /= 1000;
    at += 1;
  }
  const text = number >= 100 || at === 0 ? Math.round(number) : number.toFixed(1);
  return `${text} ${prefixes[at]}${unit}`;
}

export const bytes = (number: number) => scaled(number, "B");

export function microseconds(us: number): string {
  if (us < 1000) return `${us} µs`;
  if (us < 1e6) return `${(us / 1000).toFixed(us < 10_000 ? 1 : 0)} ms`;
  return `${(us / 1e6).toFixed(1)} s`;
}

export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

const moments = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
export const moment = (ms: number) => moments.format(ms);

/** Faults as a list of words, or nothing. */
export const faultsText = (faults: Faults) =>
  Object.entries(faults).map(([fault, times]) => `${fault.replaceAll("_", " ")} ×${times}`).join(", ");

export const short = (id: string) => id.slice(0, 8);

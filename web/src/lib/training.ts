// What is said of training jobs.
import type { Estimate, Job, Run, RunDetail } from "./types";
import { bytes, count, duration, gft } from "./show";

export const lossText = (loss: number | null) => loss?.toFixed(4) ?? "–";

export const STATE_WORDS: Record<Run["state"], string> = {
  preparing: "prepares",
  running: "trains",
  stopped: "stopped",
  done: "done",
  failed: "failed",
};

export const isUnderWay = (run: Run) => run.state === "preparing" || run.state === "running";

/** What differs between jobs, by name: one text for each job. Fields of the job file that nobody set are left out. */
export function compared(details: RunDetail[]): [string, string[]][] {
  const fields = details.map(({ job }) => new Map(flat(job, "")));
  const names = [...new Set(fields.flatMap((of) => [...of.keys()]))].filter((name) => name !== "task_id");
  const of = (name: string, value: (run: Run) => string): [string, string[]] => [name, details.map(({ run }) => value(run))];
  return [
    of("loss", (run) => lossText(run.loss)),
    of("loss on what was kept back", (run) => lossText(run.validation_loss)),
    of("steps", (run) => `${count(run.step)} of ${count(run.steps)}`),
    of("tokens trained on", (run) => count(run.tokens)),
    of("parameters", (run) => (run.parameters ? count(run.parameters) : "–")),
    of("vocabulary", (run) => (run.vocab ? count(run.vocab) : "–")),
    of("sent, received", (run) => `${bytes(run.bytes_sent)}, ${bytes(run.bytes_received)}`),
    ...names.sort().map((name): [string, string[]] => [name, fields.map((all) => all.get(name) ?? "–")]),
  ];
}

/** The fields of a job file, by their paths. */
function flat(value: Job[string], path: string): [string, string][] {
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    const text = Array.isArray(value) ? value.join(", ") : String(value);
    return path ? [[path, text]] : [];
  }
  return Object.entries(value).flatMap(([name, inner]) => flat(inner, path ? `${path}.${name}` : name));
}

/** What a job would take of a node, and bring. */
export const estimateText = (estimate: Estimate): string =>
  `about ${duration(estimate.total_ms)} at ${count(Math.round(estimate.tokens_per_second))} tokens/s, ${bytes(estimate.memory_bytes)} of memory, ` +
  `${bytes(estimate.bytes_per_day)} a day over the network; worth ${gft(estimate.credits)}`;

/** What a job took of the network. */
export function trafficText(run: Run, node: string): string {
  if (!run.together) return `${node} trains alone: nothing leaves it`;
  const seated = run.together.members.filter((member) => member.is_seated).length;
  const who = `${seated} ${seated === 1 ? "member" : "members"}`;
  return `${who}, ${bytes(run.bytes_sent)} sent, ${bytes(run.bytes_received)} received`;
}

/** How far a job is, in a line. */
export function progressText(run: Run): string {
  const parts = [`step ${count(run.step)}${run.steps ? ` of ${count(run.steps)}` : ""}`];
  if (run.together) parts.push(`round ${count(run.together.round)} of ${count(run.together.rounds)}`);
  if (run.tokens_per_second) parts.push(`${count(Math.round(run.tokens_per_second))} tokens/s`);
  if (run.left_ms !== null) parts.push(`${duration(run.left_ms)} left`);
  return parts.join(", ");
}

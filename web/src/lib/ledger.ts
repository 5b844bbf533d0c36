// Entries of the ledger in words, and as a table for other programs.
import { report } from "./call";
import { count, gft, layers, scaled } from "./show";
import type { Basis, Credits, Entry, Posting } from "./types";

const PAGE = 1000;
const TIMEOUT_MS = 60_000;

/** Up to `limit` entries that end before height `end`, the latest first. */
export async function page(end: number, limit: number): Promise<Entry[]> {
  const from = Math.max(0, end - limit);
  const entries = await report<Entry[]>(`/api/ledger?from=${from}&limit=${Math.max(1, end - from)}`);
  return entries.filter(({ height }) => height < end).reverse();
}

const sum = (postings: Posting[]) => postings.reduce((sum, { change }) => sum + change, 0);

/** What an entry did to the credits that a member can spend. */
export const change = (entry: Entry, member: string) =>
  sum(entry.postings.filter(({ account, bucket }) => account === member && bucket === "spendable"));

/** Why an entry is there, with the rule behind its numbers. */
export function explain(entry: Entry, credits: Credits): string {
  const name = (account: string) => credits.members.find(({ member }) => member === account)?.name ?? account;
  const reserved = sum(entry.postings.filter(({ bucket }) => bucket === "reserved"));
  const others = entry.postings.filter(({ bucket, change }) => bucket !== "reserved" && change > 0);
  const paid = others.map(({ account, change }) => `${account === "burn" ? "burned" : name(account)} ${gft(change)}`).join(", ");
  switch (entry.kind) {
    case "founded":
      return "The network began; its founder got the grant.";
    case "joined":
      return others.length ? `A node was invited; its member got the grant: ${paid}.` : "Another node of a member was invited.";
    case "reserved":
      return `The most that the request can cost was set aside: all its tokens through all layers, ${gft(reserved)}.`;
    case "settled":
      return `${gft(-reserved)} set aside came back to who did the work, by layers and tokens computed, and the rest to the payer: ${paid}.`;
    case "released":
      return `The request gave no answer: ${gft(-reserved)} went back to its payer.`;
    case "forwarded":
      return `The most that an answer from outside the network can cost was set aside: ${gft(reserved)}.`;
    case "rated":
      return "A node measured its hardware and said what came of it: that sets its class, and what its work counts for.";
    case "judged":
      return "The founder judged a node's work on a request: that sets how reliable it counts as.";
    case "appointed":
      return "The founder named the nodes that witness the ledger.";
    case "rewarded":
      return `Work that no request pays for, such as training and being there, was paid from the day's budget: ${paid}. It can be spent once audits had some days to find it wrong.`;
    case "freed":
      return `What common work earned was held for long enough and can be spent: ${paid}.`;
    case "removed":
      return "A node was removed for good; its member keeps the account.";
    case "delivered":
      return `An answer from outside came; who pays for it there was paid, and the rest went back: ${paid}.`;
    case "claimed":
      return paid
        ? `A stage showed that its payer had held back what it had signed for: ${paid}.`
        : "A stage brought what the payer had signed for; it is paid when the request ends.";
    case "epoch":
      return `Many requests ended together; what was set aside paid who did the work, and the rest went back: ${paid}.`;
    default:
      return entry.postings.map(({ account, change }) => `${name(account)} ${gft(change)}`).join(", ");
  }
}

/** FLOPs by the factor for the weights' precision, as the ledger prices them. */
const priced = (flops: number, perMille: number) =>
  `${scaled(flops, "FLOP")} × ${perMille / 1000} for the weights' precision = ${gft(Math.ceil((flops * perMille) / 1e6))}`;

/** What a stage's work counted for where it was shared out; nothing where all counts alike. */
function counted(multiplier: number | null, reliability: number | null): string {
  if (multiplier === null || reliability === null) return "";
  return ` × ${multiplier / 10_000} for its hardware × ${reliability / 10_000} for its reliability`;
}

/** The rule of an entry with its numbers, or nothing where the amounts need none. */
export function formula(basis: Basis | undefined): string {
  if (!basis) return "";
  switch (basis.of) {
    case "quote": {
      const tokens = `(${count(basis.prompt_tokens)} + ${count(basis.max_new_tokens)}) tokens`;
      if (basis.per_million_tokens !== null) return `${tokens} at ${gft(basis.per_million_tokens)} a million`;
      return `${tokens} through ${count(basis.layers)} layers: ${priced(basis.flops, basis.per_mille)}`;
    }
    case "work": {
      const parts = basis.work.map(({ name, span, flops, multiplier, reliability }) => `${name} ${layers(span)}${flops === null ? "" : ` ${scaled(flops, "FLOP")}`}${counted(multiplier, reliability)}`);
      const flops = basis.work.reduce<number | null>((sum, stage) => (sum === null || stage.flops === null ? null : sum + stage.flops), 0);
      const byFlops = flops === null || basis.per_mille === null ? "" : `: ${priced(flops, basis.per_mille)}`;
      const price = basis.per_million_tokens === null ? byFlops : ` at ${gft(basis.per_million_tokens)} a million`;
      return `${count(basis.positions)} tokens through ${parts.join(" + ")}${price}`;
    }
    case "epoch": {
      const told = basis.sessions.map(({ cost, basis: work }) => `${gft(cost)}${work ? ` for ${formula(work)}` : " by what its head had signed"}`);
      return told.join("; ");
    }
    case "tariff": {
      const tokens = `(${count(basis.prompt_tokens)} + ${count(basis.max_new_tokens)}) tokens`;
      if (basis.multiple_per_mille !== null) return `${tokens} at ${basis.multiple_per_mille / 1000} × the network's price`;
      return `${tokens} at ${gft(basis.per_thousand_tokens ?? 0)} for 1000`;
    }
  }
}

/** A cell as RFC 4180 wants it. */
const cell = (value: string | number) => {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

const COLUMNS = ["height", "time", "kind", "request", "account", "bucket", "change_micro_gft", "hash"];

/** Lines of a table, one for each posting. */
export const rows = (entries: Entry[]): string[] =>
  entries.flatMap(({ height, at, kind, request, postings, hash }) =>
    postings.map(({ account, bucket, change }) =>
      [height, new Date(at).toISOString(), kind, request ?? "", account, bucket ?? "", change, hash].map(cell).join(","),
    ),
  );

/** The whole ledger, a line for each posting. */
export async function csv(): Promise<Blob> {
  const lines = [COLUMNS.join(",")];
  for (let from = 0; ; ) {
    const entries = await report<Entry[]>(`/api/ledger?from=${from}&limit=${PAGE}`, TIMEOUT_MS);
    const last = entries.at(-1);
    if (!last) break;
    from = last.height + 1;
    lines.push(...rows(entries));
  }
  return new Blob([lines.join("\r\n"), "\r\n"], { type: "text/csv" });
}

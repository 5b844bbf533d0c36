// What the node says of itself, kept fresh by `/api/live`: one connection, opened again whenever it ends.
// A page that nobody looks at holds none, because browsers allow six to a host.
import { CallError, call, events, forgetKey, hasKey, isAbort, report, said } from "./call";
import type { Credits, Peer, Pull, Status } from "./types";

/** The server says something at least every 10 s; more silence means that the line is dead. */
const SILENCE_MS_MAX = 25_000;
const PAUSE_MS_MIN = 500;
const PAUSE_MS_MAX = 8000;

/** Seconds of the plot. */
export const SAMPLES_MAX = 180;
/** Rates are taken over so many seconds: events come once a second, give or take. */
const RATE_SECONDS = 3;

export interface Sample {
  /** Seconds since 1970. */
  at: number;
  tokensPerSecond: number;
  busyPercent: number;
}

type Line = "opening" | "live" | "gone" | "key";

interface Counters {
  at: number;
  tokens: number;
  busy: number;
}

class Live {
  line = $state<Line>("opening");
  /** Why the line is not live, for people. */
  trouble = $state("");
  status = $state.raw<Status | null>(null);
  peers = $state.raw<Peer[]>([]);
  pulls = $state.raw<Pull[]>([]);
  credits = $state.raw<Credits | null>(null);
  samples = $state.raw<Sample[]>([]);

  #counters: Counters[] = [];
  #stop = new AbortController();
  #started = false;
  #wake = () => {};

  start() {
    if (this.#started) return;
    this.#started = true;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.#stop.abort();
      else this.#wake();
    });
    setInterval(() => this.#sample(), 1000);
    void this.#keep();
  }

  /** Tries again at once, such as with a new key. */
  retry() {
    this.line = "opening";
    this.#wake();
  }

  /** The node refused the key, or wants one. */
  refuse() {
    this.trouble = hasKey() ? "The key was refused." : "";
    forgetKey();
    this.line = "key";
    this.#stop.abort();
  }

  async #keep() {
    let pause = PAUSE_MS_MIN;
    for (;;) {
      if (document.hidden || this.line === "key") {
        await new Promise<void>((go) => (this.#wake = go));
        continue;
      }
      try {
        await this.#listen(() => (pause = PAUSE_MS_MIN));
        this.#lost("The node closed the connection.");
      } catch (error) {
        if (error instanceof CallError && error.status === 401) this.refuse();
        else if (!isAbort(error)) this.#lost(said(error));
        else if (!document.hidden) this.#lost("The node fell silent.");
      }
      await new Promise<void>((go) => {
        this.#wake = go;
        setTimeout(go, pause);
      });
      pause = Math.min(pause * 2, PAUSE_MS_MAX);
    }
  }

  #lost(why: string) {
    if (this.line === "key") return;
    this.line = "gone";
    this.trouble = why;
  }

  async #listen(heard: () => void) {
    this.#stop = new AbortController();
    const stop = this.#stop;
    let silence = setTimeout(() => stop.abort(), SILENCE_MS_MAX);
    try {
      const response = await call("/api/live", { signal: stop.signal });
      const spoke = () => {
        clearTimeout(silence);
        silence = setTimeout(() => stop.abort(), SILENCE_MS_MAX);
        heard();
      };
      for await (const event of events(response, spoke)) this.#take(event.name, event.data);
    } finally {
      clearTimeout(silence);
    }
  }

  #take(name: string, data: string) {
    this.line = "live";
    this.trouble = "";
    if (name === "peers") this.peers = JSON.parse(data);
    if (name === "pulls") this.pulls = JSON.parse(data);
    if (name !== "status") return;
    const before = this.status;
    const status: Status = JSON.parse(data);
    // Counters of a node that was started anew begin at nought again.
    if (before && before.started_at !== status.started_at) this.#counters = [];
    this.status = status;
    if (before?.ledger_height !== status.ledger_height || before.member !== status.member) void this.#account();
  }

  async #account() {
    try {
      this.credits = await report<Credits>("/api/credits");
    } catch {
      // The next entry of the ledger asks again, and the line itself tells when the node is gone.
    }
  }

  #sample() {
    const status = this.status;
    if (!status || this.line !== "live" || document.hidden) {
      this.#counters = [];
      return;
    }
    const now = { at: Date.now() / 1000, tokens: status.tokens_chosen, busy: status.busy_ms };
    this.#counters = [...this.#counters, now].slice(-RATE_SECONDS - 1);
    const first = this.#counters[0] ?? now;
    const seconds = Math.max(now.at - first.at, 1);
    const sample = {
      at: now.at,
      tokensPerSecond: (now.tokens - first.tokens) / seconds,
      busyPercent: Math.min(100, (now.busy - first.busy) / seconds / 10),
    };
    this.samples = [...this.samples, sample].slice(-SAMPLES_MAX);
  }
}

export const live = new Live();

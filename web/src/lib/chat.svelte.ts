// Conversations: asked through `/v1/chat/completions`, kept in this browser only. An answer whose stream breaks is
// gone on with by its id (`talka.resume`), as long as the node comes back in time.
import { CallError, events, isAbort, post, said } from "./call";
import { live } from "./live.svelte";
import type { Provenance } from "./types";

const STORE_ITEM = "talka-chats";
const CHATS_MAX = 50;
/** A node that is started again answers within this time: as long as `talka chat` waits. */
const RETURN_MS_MAX = 30_000;
const RETURN_PAUSE_MS = 500;

/** What an answer was like. */
export interface Receipt extends Partial<Provenance> {
  model: string;
  prompt_tokens?: number;
  completion_tokens?: number;
  finish?: string;
  /** Until the first text came. */
  first_ms?: number;
  took_ms: number;
  /** How often it broke off and went on. */
  resumed: number;
}

export interface Turn {
  role: "user" | "assistant";
  text: string;
  receipt?: Receipt;
  /** Why the answer is not whole. */
  cut?: string;
}

export interface Chat {
  id: string;
  at: number;
  turns: Turn[];
}

export interface Sampling {
  model: string;
  max_tokens?: number;
  temperature?: number;
  top_p?: number;
  seed?: number;
  system: string;
}

interface Chunk {
  id: string;
  error?: { message: string; code: string };
  choices: { delta: { content?: string }; finish_reason: string | null }[];
  usage?: { prompt_tokens: number; completion_tokens: number } | null;
  talka?: { tokens: number } | Provenance;
}

/** Where an answer that breaks off goes on. */
interface Place {
  answer: string;
  tokens: number;
}

function stored(): Chat[] {
  try {
    const chats: unknown = JSON.parse(localStorage.getItem(STORE_ITEM) ?? "[]");
    return Array.isArray(chats) ? chats.filter((chat) => Array.isArray(chat?.turns)) : [];
  } catch {
    return [];
  }
}

const fresh = (): Chat => ({ id: crypto.getRandomValues(new Uint32Array(2)).join("-"), at: Date.now(), turns: [] });

/** Whether waiting may help: the node is not there, is starting, or misses a stage or the founder. */
const mayReturn = (error: unknown) =>
  error instanceof CallError && (error.code === "node_gone" || error.code === "closed_early" || error.status === 503);

class Chats {
  all = $state<Chat[]>(stored());
  open = $state<Chat>(fresh());
  busy = $state(false);
  /** What the wait is for, while an answer is waited for. */
  waiting = $state("");
  trouble = $state("");
  #stopper: AbortController | null = null;

  begin() {
    this.stop();
    this.trouble = "";
    this.open = fresh();
  }

  choose(id: string) {
    const chat = this.all.find((chat) => chat.id === id);
    if (!chat || chat.id === this.open.id) return;
    this.stop();
    this.trouble = "";
    this.open = chat;
  }

  remove(id: string) {
    if (id === this.open.id) this.begin();
    this.all = this.all.filter((chat) => chat.id !== id);
    this.#keep();
  }

  stop() {
    this.#stopper?.abort();
  }

  /** Asks and streams the answer. Gives back what was asked if nothing came of it. */
  async ask(text: string, sampling: Sampling): Promise<string | null> {
    const chat = this.open;
    const stopper = new AbortController();
    this.#stopper = stopper;
    this.trouble = "";
    this.busy = true;
    chat.turns.push({ role: "user", text }, { role: "assistant", text: "" });
    const turn = chat.turns[chat.turns.length - 1]!;
    try {
      await this.#hear(turn, this.#question(chat, sampling), stopper.signal);
    } catch (error) {
      turn.cut = isAbort(error) ? "Stopped." : `Broken off: ${said(error)}`;
      if (!isAbort(error) && chat === this.open) this.#tell(error);
    }
    const back = turn.text ? null : text;
    if (back !== null) chat.turns.splice(-2);
    this.#file(chat);
    if (this.#stopper === stopper) {
      this.busy = false;
      this.waiting = "";
      this.#stopper = null;
    }
    return chat === this.open ? back : null;
  }

  #tell(error: unknown) {
    const long = error instanceof CallError && error.code === "context_length_exceeded";
    this.trouble = said(error) + (long ? " Begin a new conversation, or ask for fewer tokens." : "");
    if (error instanceof CallError && error.status === 401) live.refuse();
  }

  #question(chat: Chat, { system, ...sampling }: Sampling) {
    const turns = chat.turns.slice(0, -1).map(({ role, text }) => ({ role: role as string, content: text }));
    const messages = system.trim() ? [{ role: "system", content: system.trim() }, ...turns] : turns;
    return { ...sampling, messages, stream: true, stream_options: { include_usage: true } };
  }

  async #hear(turn: Turn, question: object, signal: AbortSignal) {
    const started = performance.now();
    const receipt: Receipt = { model: (question as Sampling).model, took_ms: 0, resumed: 0 };
    const place: Place = { answer: "", tokens: 0 };
    let response = await post("/v1/chat/completions", question, signal);
    for (;;) {
      try {
        await this.#take(turn, receipt, place, response, started, signal);
        break;
      } catch (error) {
        if (isAbort(error) || !place.tokens) throw error;
        response = await this.#goOn(question, place, error, signal);
        receipt.resumed += 1;
        this.waiting = "";
      }
    }
    receipt.took_ms = performance.now() - started;
    turn.receipt = receipt;
  }

  /** Reads a stream to its `[DONE]`. What had already come when `signal` stopped it is dropped: whoever stops an answer sees it stop. */
  async #take(turn: Turn, receipt: Receipt, place: Place, response: Response, started: number, signal: AbortSignal) {
    try {
      for await (const { data } of events(response)) {
        signal.throwIfAborted();
        if (data === "[DONE]") return;
        const chunk: Chunk = JSON.parse(data);
        if (chunk.error) throw new CallError(chunk.error.message, chunk.error.code, 0);
        const choice = chunk.choices[0];
        if (choice?.delta.content) {
          receipt.first_ms ??= performance.now() - started;
          turn.text += choice.delta.content;
        }
        receipt.finish = choice?.finish_reason ?? receipt.finish;
        if (chunk.usage) Object.assign(receipt, chunk.usage);
        if (chunk.talka && "tokens" in chunk.talka) Object.assign(place, { answer: chunk.id, tokens: chunk.talka.tokens });
        else if (chunk.talka) Object.assign(receipt, chunk.talka);
      }
    } catch (error) {
      if (isAbort(error) || error instanceof CallError) throw error;
      throw new CallError("The connection to the node broke.", "closed_early", 0);
    }
    throw new CallError("The connection to the node ended early.", "closed_early", 0);
  }

  /** Asks for the rest of an answer that broke off; `why` if nobody gives it in time. */
  async #goOn(question: object, place: Place, why: unknown, signal: AbortSignal): Promise<Response> {
    this.waiting = "The answer broke off. Waiting for the node, to go on where it was…";
    const deadline = performance.now() + RETURN_MS_MAX;
    while (performance.now() < deadline) {
      try {
        return await post("/v1/chat/completions", { ...question, talka: { resume: place } }, signal);
      } catch (error) {
        if (isAbort(error)) throw error;
        if (!mayReturn(error)) break;
        await new Promise((go) => setTimeout(go, RETURN_PAUSE_MS));
      }
    }
    throw why;
  }

  #file(chat: Chat) {
    if (!chat.turns.length) return;
    chat.at = Date.now();
    this.all = [chat, ...this.all.filter(({ id }) => id !== chat.id)].slice(0, CHATS_MAX);
    this.#keep();
  }

  #keep() {
    try {
      localStorage.setItem(STORE_ITEM, JSON.stringify(this.all));
    } catch {
      this.trouble = "This browser has no room for more conversations. Remove some of the old ones.";
    }
  }
}

export const chats = new Chats();

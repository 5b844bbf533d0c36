// Talking to the node: one place that knows the key, the shape of errors and how events arrive.

const TIMEOUT_MS = 8000;
const KEY_ITEM = "talka-key";

/** A failed call: `message` is for people, `code` as in the gateway's table. */
export class CallError extends Error {
  constructor(
    message: string,
    readonly code: string,
    readonly status: number,
  ) {
    super(message);
  }
}

export const hasKey = () => sessionStorage.getItem(KEY_ITEM) !== null;
export const setKey = (key: string) => sessionStorage.setItem(KEY_ITEM, key);
export const forgetKey = () => sessionStorage.removeItem(KEY_ITEM);

export const isAbort = (error: unknown) => error instanceof DOMException && error.name === "AbortError";

export async function call(path: string, options: RequestInit = {}): Promise<Response> {
  const headers = new Headers(options.headers);
  const key = sessionStorage.getItem(KEY_ITEM);
  if (key !== null) headers.set("Authorization", `Bearer ${key}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new CallError("The node does not answer. Is it still running?", "node_gone", 0);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response: Response): Promise<CallError> {
  const document = await response.json().catch(() => null);
  const { message, code } = document?.error ?? {};
  const text = message ?? `The node answered ${response.status}.`;
  return new CallError(text, code ?? "unknown", response.status);
}

/** A report of the node. A ledger that is verified or exported may take its time. */
export async function report<T>(path: string, timeoutMs = TIMEOUT_MS): Promise<T> {
  const response = await call(path, { signal: AbortSignal.timeout(timeoutMs) });
  return response.json();
}

export function post(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const headers = { "Content-Type": "application/json" };
  return call(path, { method: "POST", headers, body: JSON.stringify(body), signal: signal ?? null });
}

/** An order to the node, and what it reports then. */
export async function order<T>(path: string, body: unknown, timeoutMs = TIMEOUT_MS): Promise<T> {
  const response = await post(path, body, AbortSignal.timeout(timeoutMs));
  return response.json();
}

/** An event of a stream: its name, if it has one, and its data. */
export interface ServerEvent {
  name: string;
  data: string;
}

/** The events of a response until it ends. Comments only keep the line open: `heard` is told of them, as of all that comes. */
export async function* events(response: Response, heard = () => {}): AsyncGenerator<ServerEvent> {
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  let event: ServerEvent = { name: "", data: "" };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    const lines = (pending + value).split("\n");
    pending = lines.pop() ?? "";
    for (const line of lines) {
      if (line.startsWith("event: ")) event.name = line.slice("event: ".length);
      else if (line.startsWith("data: ")) event.data += line.slice("data: ".length);
      else if (line === "" && event.data) {
        yield event;
        event = { name: "", data: "" };
      }
    }
  }
}

/** The words of an error for people, as a sentence. */
export function said(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof DOMException && error.name === "TimeoutError") return "The node takes too long to answer.";
  const sentence = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.?!]$/.test(sentence) ? sentence : `${sentence}.`;
}

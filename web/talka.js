// The page at `/`: shows what the node reports and chats through the OpenAI surface, as any program
// would. Text from the node, models and people only ever becomes text nodes, never markup.

const REFRESH_MS = 3000;
const TIMEOUT_MS = 8000;
const KEY_ITEM = "talka-key";

const $ = (id) => document.getElementById(id);

/** A new element with a class, attributes and children (text or elements). */
function el(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

// ---- Talking to the node ----------------------------------------------------------------------

/** A failed call: `message` is for people, `code` as in the gateway's table. */
class CallError extends Error {
  constructor(message, code, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

function headers(extra = {}) {
  const key = sessionStorage.getItem(KEY_ITEM);
  return key ? { ...extra, Authorization: `Bearer ${key}` } : extra;
}

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new CallError("The node does not answer. Is it still running?", "node_gone", 0);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const document = await response.json().catch(() => null);
  const { message, code } = document?.error ?? {};
  return new CallError(message ?? `The node answered ${response.status}.`, code, response.status);
}

async function report(path) {
  const response = await call(path, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  return response.json();
}

// ---- Showing numbers and names ----------------------------------------------------------------

const gft = (micro) => `${(micro / 1e6).toFixed(6)} GFT`;
const span = ([start, end]) => `${start}..${end}`;

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${count >= 100 || unit === 0 ? Math.round(count) : count.toFixed(1)} ${units[unit]}`;
}

function duration(ms) {
  const seconds = Math.round(ms / 1000);
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// ---- Facts: status, models, nodes, credits ----------------------------------------------------

/** What each place shows now, as JSON: a place is built anew only when its data changed, so that
 * selections, focus and screen readers are left in peace. */
const shown = new Map();

function show(place, data, build) {
  const text = JSON.stringify(data);
  if (shown.get(place) === text) return;
  shown.set(place, text);
  $(place).replaceChildren(...build(data));
}

function glance({ status, credits }) {
  const rows = [
    ["Nodes answering", `${status.nodes_alive} of ${status.nodes_known}`],
    ["Requests running", status.requests_running],
    ["Sessions held", status.sessions_held],
    ["Ledger entries", status.ledger_height],
    ["Balance", gft(credits.balance)],
    ["Reserved", gft(credits.reserved)],
    ["Version", status.version],
  ];
  return rows.flatMap(([name, value]) => [el("dt", "", name), el("dd", "", String(value))]);
}

/** Runs of layers that no stage covers. */
function gaps(coverage, layers) {
  const found = [];
  let next = 0;
  for (const [start, end] of coverage.map((stage) => stage.span).sort((a, b) => a[0] - b[0])) {
    if (start > next) found.push([next, start]);
    next = Math.max(next, end);
  }
  if (next < layers) found.push([next, layers]);
  return found;
}

function stageRow(kind, name, [start, end], layers) {
  const bar = el("span");
  bar.style.gridColumn = `${start + 1} / ${end + 1}`;
  const track = el("div", "track", bar);
  track.style.gridTemplateColumns = `repeat(${layers}, 1fr)`;
  track.ariaHidden = "true";
  const layersText = el("span", "meta", `layers ${span([start, end])}`);
  return el("li", `stage ${kind}`, el("span", "", name), layersText, track);
}

function models(list) {
  if (!list.length) return [el("p", "hint", "No model is known here. Start one with ", el("code", "", "talka up --model REF"), ".")];
  return list.map((model) => {
    const { layers, context, precision } = model.shape;
    const makes = model.is_encoder ? " · makes vectors, not text" : "";
    const beside = model.adapters.length ? ` · with adapters ${model.adapters.join(", ")}` : "";
    const facts = `${layers} layers, ${bytes(model.weight_bytes)} ${precision}, context ${context}`;
    const missing = gaps(model.coverage, layers);
    const stages = el("ul", "",
      ...model.coverage.map((stage) => stageRow("", stage.name, stage.span, layers)),
      ...missing.map((gap) => stageRow("missing", "served by nobody", gap, layers)));
    const state = model.complete ? "ready" : "incomplete: cannot answer yet";
    return el("article", "model", el("h3", "", model.name), el("p", "meta", `${state} · ${facts}${makes}${beside}`), stages);
  });
}

function table(columns, rows) {
  const cell = (tag, text, number) => el(tag, number ? "number" : "", String(text));
  const head = el("tr", "", ...columns.map(({ title, number }) => {
    const th = cell("th", title, number);
    th.scope = "col";
    return th;
  }));
  const body = rows.map((row) =>
    el("tr", "", ...row.map((text, at) => cell("td", text, columns[at].number))));
  return el("div", "scroll", el("table", "", el("thead", "", head), el("tbody", "", ...body)));
}

function nodes(list) {
  const state = (peer) => {
    if (peer.this) return "this node";
    if (peer.alive) return "answers";
    return peer.silent_ms === null ? "never heard" : `silent for ${duration(peer.silent_ms)}`;
  };
  const serves = (peer) => peer.serves.map(([model, layers]) => `${model} ${span(layers)}`).join(", ") || "nothing";
  const rows = list.map((peer) => [peer.name, state(peer), serves(peer)]);
  const parts = [table([{ title: "Node" }, { title: "State" }, { title: "Serves" }], rows)];
  if (list.length < 2) {
    parts.push(el("p", "hint", "Only this one so far. Invite another with ", el("code", "", "talka invite"), "."));
  }
  return parts;
}

function members(report) {
  const amount = (micro) => (micro / 1e6).toFixed(3);
  const own = (member) => (member.member === report.member ? `${member.name} (you)` : member.name);
  const rows = report.members.map((m) => [own(m), amount(m.earned), amount(m.spent), amount(m.balance)]);
  const columns = ["Earned", "Spent", "Balance"].map((title) => ({ title, number: true }));
  return [
    table([{ title: "Member" }, ...columns], rows),
    el("p", "hint", "In GFT: one pays for a thousand million operations in full precision."),
  ];
}

/** What a chat may ask: models that continue text, alone and with each adapter. */
function answering(models) {
  const named = ({ name, complete, adapters }) =>
    [name, ...adapters.map((adapter) => `${name}:${adapter}`)].map((name) => ({ name, complete }));
  return models.filter((model) => !model.is_encoder).flatMap(named);
}

function modelChoice(list) {
  const chosen = $("model").value;
  const options = list.map((model) => {
    const option = el("option", "", model.complete ? model.name : `${model.name} (incomplete)`);
    option.value = model.name;
    return option;
  });
  const keep = list.find((model) => model.name === chosen) ?? list.find((model) => model.complete);
  if (keep) options[list.indexOf(keep)].selected = true;
  return options;
}

/** Silence changes with every report; whole tens of seconds are news enough. */
function calmed(peers) {
  const calm = (peer) => (peer.alive ? 0 : Math.round(peer.silent_ms / 10_000) * 10_000);
  return peers.map((peer) => ({ ...peer, silent_ms: peer.silent_ms === null ? null : calm(peer) }));
}

function pulse(kind, text) {
  if ($("pulse").textContent !== text) $("pulse").textContent = text;
  $("pulse").className = `pulse ${kind}`;
  $("facts").classList.toggle("stale", kind !== "alive");
}

async function refresh() {
  const [status, peers, credits] =
    await Promise.all(["/api/status", "/api/peers", "/api/credits"].map(report));
  $("where").textContent = `${status.name} in ${status.network_name}`;
  document.title = `${status.name} · Talka`;
  show("glance", { status: { ...status, models: null }, credits }, glance);
  show("models", status.models, models);
  show("nodes", calmed(peers), nodes);
  show("credits", credits, members);
  show("model", answering(status.models), modelChoice);
  $("key-form").hidden = true;
  $("facts").hidden = false;
  pulse("alive", "running");
}

async function keepFresh() {
  try {
    if (!document.hidden && $("key-form").hidden) await refresh();
  } catch (error) {
    if (error.status === 401) askForKey();
    else pulse("gone", error.code === "node_gone" ? "no answer from the node" : error.message);
  }
  setTimeout(keepFresh, REFRESH_MS);
}

function askForKey() {
  const refused = sessionStorage.getItem(KEY_ITEM) !== null;
  sessionStorage.removeItem(KEY_ITEM);
  pulse("gone", refused ? "the key was refused" : "waiting for the key");
  if (!$("key-form").hidden) return;
  $("key-form").hidden = false;
  $("key").focus();
}

// ---- Chat -------------------------------------------------------------------------------------

/** What was said so far, in the words of the API. */
let conversation = [];
/** Stops the answer under way, if one is. */
let stopper = null;

/** The JSON of each `data:` line of a response, until `[DONE]`. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new CallError("The connection to the node ended early.", "interrupted", 0);
    const lines = (pending + value).split("\n");
    pending = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      const data = line.slice("data: ".length);
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

function turn(role, speaker, text) {
  const said = el("p", "said", text);
  const item = el("li", `turn ${role}`, el("p", "meta", speaker), said);
  $("log").append(item);
  $("log-empty").hidden = true;
  item.scrollIntoView({ block: "nearest" });
  return { item, said };
}

function follow() {
  const log = $("log");
  if (log.scrollHeight - log.scrollTop - log.clientHeight < 120) log.scrollTop = log.scrollHeight;
}

function footnote(item, { finish, usage, talka }) {
  const parts = [];
  if (usage) parts.push(`${usage.prompt_tokens} + ${usage.completion_tokens} tokens`);
  if (finish === "length") parts.push("cut at max tokens or the end of the context");
  if (talka) {
    parts.push(gft(talka.cost_micro_gft));
    parts.push(talka.route.map((stage) => `${stage.name} ${span(stage.span)}`).join(" → "));
  }
  item.append(el("p", "meta", parts.join(" · ")));
  follow();
}

/** The number typed, or undefined if there is none. */
function typed(id) {
  const number = $(id).valueAsNumber;
  return Number.isNaN(number) ? undefined : number;
}

function question() {
  return {
    model: $("model").value,
    messages: conversation,
    max_tokens: typed("max-tokens"),
    temperature: typed("temperature"),
    stream: true,
    stream_options: { include_usage: true },
  };
}

/** Streams one answer into `said`; returns what the footnote needs. */
async function listen(said, signal) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, signal };
  const response = await call("/v1/chat/completions", { ...options, body: JSON.stringify(question()) });
  const end = {};
  for await (const chunk of events(response)) {
    if (chunk.error) throw new CallError(chunk.error.message, chunk.error.code, 0);
    const choice = chunk.choices[0];
    if (choice?.delta.content) {
      said.append(choice.delta.content);
      follow();
    }
    end.finish = choice?.finish_reason ?? end.finish;
    end.usage = chunk.usage ?? end.usage;
    end.talka = chunk.talka ?? end.talka;
  }
  return end;
}

/** A button that is disabled loses the focus: whoever works by keyboard is led on. */
function busy(now) {
  const [off, on] = now ? [$("send"), $("stop")] : [$("stop"), $("send")];
  on.disabled = false;
  if (document.activeElement === off) (now ? on : $("prompt")).focus();
  off.disabled = true;
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

async function ask(text) {
  trouble("");
  conversation.push({ role: "user", content: text });
  turn("user", "You", text);
  const { item, said } = turn("assistant", $("model").value, "");
  item.ariaBusy = "true";
  stopper = new AbortController();
  const mine = conversation;
  busy(true);
  try {
    footnote(item, await listen(said, stopper.signal));
    mine.push({ role: "assistant", content: said.textContent });
  } catch (error) {
    // A new conversation was begun meanwhile: nothing of the old one is shown any more.
    if (mine === conversation) unanswered(error, item, said, text);
  }
  item.ariaBusy = "false";
  stopper = null;
  busy(false);
}

/** What was stopped counts as said; what failed does not, and the question may be sent again. */
function unanswered(error, item, said, text) {
  if (error.name === "AbortError" && said.textContent) {
    conversation.push({ role: "assistant", content: said.textContent });
    item.append(el("p", "meta", "Stopped."));
    return;
  }
  conversation.pop();
  const advice = error.code === "context_length_exceeded" ? ". Begin a new conversation." : "";
  if (error.name !== "AbortError") trouble(sentence(error.message) + advice);
  if (error.status === 401) askForKey();
  if (said.textContent) {
    item.append(el("p", "meta", "Broken off: not part of the conversation."));
  } else {
    item.previousElementSibling?.remove();
    item.remove();
    $("log-empty").hidden = $("log").childElementCount > 0;
  }
  if (!$("prompt").value) $("prompt").value = text;
}

function startOver() {
  stopper?.abort();
  conversation = [];
  $("log").replaceChildren();
  $("log-empty").hidden = false;
  trouble("");
  $("prompt").focus();
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("prompt").value.trim();
  if (!text || stopper) return;
  if (!$("model").value) {
    trouble("There is no model to ask yet.");
    return;
  }
  $("prompt").value = "";
  ask(text);
});

$("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stopper?.abort();
});

$("stop").addEventListener("click", () => stopper?.abort());
$("fresh").addEventListener("click", startOver);

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY_ITEM, $("key").value.trim());
  $("key").value = "";
  $("key-form").hidden = true;
  refresh().catch((error) => {
    if (error.status === 401) askForKey();
  });
});

keepFresh();

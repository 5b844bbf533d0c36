// OpenAI's own client for Node, against a real node.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const { TALKA_URL, TALKA_STAGES, TALKA_ENCODER_URL, TALKA_LOCKED_URL, TALKA_LOCKED_KEY } = process.env;
const client = (url = TALKA_URL, apiKey = "none") => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });

const ask = { model: "bard", messages: [{ role: "user", content: "Speak, ghost." }], max_tokens: 16, temperature: 0 };
const roll = {
  type: "function",
  function: {
    name: "roll",
    parameters: { properties: { dice: { enum: [6, 20] } }, required: ["dice"], additionalProperties: false },
  },
};
const call = {
  model: "bard",
  messages: [{ role: "user", content: "Roll." }],
  tools: [roll],
  tool_choice: "required",
  parallel_tool_calls: false,
  max_tokens: 64,
  temperature: 0,
};

test("models are listed", async () => {
  const names = [];
  for await (const model of client().models.list()) names.push(model.id);
  assert.ok(names.includes("bard"), names.join());
});

test("a whole answer and a stream say the same", async () => {
  const whole = await client().chat.completions.create(ask);
  assert.equal(whole.choices[0].finish_reason, "length");
  assert.equal(whole.talka.route.length, Number(TALKA_STAGES));
  let text = "";
  let usage;
  const stream = await client().chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual(usage, whole.usage);
});

test("a caller who leaves a stream is let go", async () => {
  const stream = await client().chat.completions.create({ ...ask, max_tokens: 200, stream: true });
  for await (const _ of stream) break;
  assert.ok(stream.controller.signal.aborted);
  assert.equal((await client().chat.completions.create(ask)).usage.completion_tokens, 16);
});

test("functions are called, whole and streamed", async () => {
  const whole = await client().chat.completions.create(call);
  const [made] = whole.choices[0].message.tool_calls;
  assert.equal(made.function.name, "roll");
  assert.ok([6, 20].includes(JSON.parse(made.function.arguments).dice));
  const runner = client().chat.completions.stream(call);
  const [streamed] = (await runner.finalChatCompletion()).choices[0].message.tool_calls;
  assert.deepEqual(streamed.function.arguments, made.function.arguments);
});

test("a form is kept to", async () => {
  const schema = {
    type: "object",
    properties: { guilty: { type: "boolean" } },
    required: ["guilty"],
    additionalProperties: false,
  };
  const response_format = { type: "json_schema", json_schema: { name: "verdict", strict: true, schema } };
  const answer = await client().chat.completions.parse({ ...ask, max_tokens: 64, response_format });
  assert.equal(typeof answer.choices[0].message.parsed.guilty, "boolean");
});

test("responses are streamed", async () => {
  const body = { model: "bard", input: "Speak, ghost.", max_output_tokens: 16, temperature: 0 };
  const whole = await client().responses.create(body);
  let text = "";
  for await (const event of await client().responses.create({ ...body, stream: true })) {
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  assert.equal(text, whole.output_text);
});

test("texts become vectors", async () => {
  const plain = await client(TALKA_ENCODER_URL).embeddings.create({ model: "bert", input: [[5, 6, 7]], encoding_format: "float" });
  const coded = await client(TALKA_ENCODER_URL).embeddings.create({ model: "bert", input: [[5, 6, 7]] });
  const [one, other] = [plain.data[0].embedding, coded.data[0].embedding];
  assert.equal(one.length, other.length);
  one.forEach((value, at) => assert.ok(Math.abs(value - other[at]) < 1e-6));
});

test("errors are typed and say what is wrong", async () => {
  const refused = async (body, kind, code, param) => {
    const error = await client().chat.completions.create(body).then(() => assert.fail("answered"), (error) => error);
    assert.ok(error instanceof kind, String(error));
    assert.deepEqual([error.code, error.param], [code, param]);
    assert.ok(error.requestID);
  };
  await refused({ ...ask, model: "gpt-9" }, OpenAI.NotFoundError, "model_not_found", "model");
  await refused({ ...ask, audio: {} }, OpenAI.BadRequestError, "unsupported_parameter", "audio");
  const locked = client(TALKA_LOCKED_URL, "wrong").chat.completions.create(ask);
  await assert.rejects(locked, OpenAI.AuthenticationError);
  const served = await client(TALKA_LOCKED_URL, TALKA_LOCKED_KEY).chat.completions.create(ask);
  assert.equal(served.usage.completion_tokens, 16);
});

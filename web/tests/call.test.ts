import assert from "node:assert/strict";
import { test } from "node:test";
import { CallError, events, said, type ServerEvent } from "../src/lib/call";

/** The events of a body that arrives in these pieces. */
async function read(pieces: string[], heard?: () => void): Promise<ServerEvent[]> {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    start(stream) {
      for (const piece of pieces) stream.enqueue(encoder.encode(piece));
      stream.close();
    },
  });
  const found: ServerEvent[] = [];
  for await (const event of events(new Response(body), heard)) found.push(event);
  return found;
}

test("events are read however they are cut, and comments are left out", async () => {
  const text = 'event: status\ndata: {"é": 1}\n\n: nothing new\n\ndata: [DONE]\n\n';
  const expected = [
    { name: "status", data: '{"é": 1}' },
    { name: "", data: "[DONE]" },
  ];
  assert.deepEqual(await read([text]), expected);
  assert.deepEqual(await read([...text]), expected);
});

test("what came of an event before its end is no event", async () => {
  assert.deepEqual(await read(["data: 1\n\n", "data: 2\n"]), [{ name: "", data: "1" }]);
});

test("whatever comes shows that the line is open", async () => {
  let times = 0;
  const found = await read([": nothing new\n\n", ": nothing new\n\n", "data: 1\n\n"], () => (times += 1));
  assert.deepEqual([times, found.length], [3, 1]);
});

test("errors are sentences", () => {
  assert.equal(said(new CallError("no route", "no_route", 503)), "No route.");
  assert.equal(said("what?"), "What?");
  assert.equal(said(new DOMException("x", "TimeoutError")), "The node takes too long to answer.");
});

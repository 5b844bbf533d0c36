// What people change: limits, models that rest, nodes that leave. Each in a network of its own, which it spoils.
import { expect, test, visit } from "./page";
import { Nodes, type Node } from "./nodes";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

let nodes: Nodes;
let founder: Node;

test.beforeEach(async () => {
  nodes = new Nodes();
  founder = await nodes.add("founder");
});
test.afterEach(() => nodes.end());

test("limits are changed while the node runs, and wrong ones are refused in words", async ({ page }) => {
  await visit(page, founder, "settings");
  const hours = page.getByLabel("Hours in which others may use this node");
  await hours.fill("sat 10:00-12:00\nmon-fri 22:00-07:00");
  await page.getByLabel("Memory, in GB").fill("7.5");
  await page.getByLabel("Threads").fill("2");
  await page.getByLabel("Bandwidth for models, in Mbit/s").fill("20");
  await page.getByRole("button", { name: "Apply" }).click();
  await expect.poll(async () => (await founder.ask<{ hours: string[] }>("/api/settings")).hours).toEqual(["sat 10:00-12:00", "mon-fri 22:00-07:00"]);
  const set = await founder.ask<{ memory_bytes: number; threads: number; bandwidth_bytes: number }>("/api/settings");
  expect(set).toMatchObject({ memory_bytes: 7_500_000_000, threads: 2, bandwidth_bytes: 2_500_000 });

  await hours.fill("never");
  await page.getByRole("button", { name: "Apply" }).click();
  await expect(page.getByRole("alert")).toContainText("expected such as 22:00-07:00");
  await hours.fill("");
  await page.getByRole("button", { name: "Apply" }).click();
  await expect(page.getByText("Now open to others.")).toBeVisible();
  await expect(page.getByRole("alert")).toHaveCount(0);
});

test("a model is unloaded and loaded again", async ({ page }) => {
  await visit(page, founder, "models");
  await page.getByRole("button", { name: "Unload here" }).click();
  await expect(page.getByText("nothing: you unloaded it")).toBeVisible();
  await expect(page.getByText("incomplete")).toBeVisible();
  await page.getByRole("button", { name: "Load here again" }).click();
  await expect(page.getByText("ready", { exact: true })).toBeVisible();
});

test("the founder removes a node after a second word", async ({ page }) => {
  await nodes.add("guest", [], founder.say("invite"));
  await visit(page, founder, "network");
  const guest = page.getByRole("listitem").filter({ has: page.getByRole("heading", { name: /^guest/ }) });
  await expect(guest).toContainText("answers");
  await guest.getByRole("button", { name: "Remove guest" }).click();
  await guest.getByRole("button", { name: "Keep" }).click();
  await guest.getByRole("button", { name: "Remove guest" }).click();
  await guest.getByRole("button", { name: "Remove for good" }).click();
  await expect(guest).toHaveCount(0);
  await expect(page.getByRole("heading", { name: /^founder/ })).toBeVisible();
  // Its account stays.
  await expect(page.getByRole("cell", { name: "guest", exact: true })).toBeVisible();
});

test("a fetch is begun, stopped and refused in words", async ({ page }) => {
  // A hub that knows one repository of which it never says anything, and no other.
  const hub = createServer((asked, answer) => {
    if (!asked.url?.includes("acme/slow")) answer.writeHead(404).end();
  });
  await new Promise<void>((open) => hub.listen(0, "127.0.0.1", open));
  try {
    const { port } = hub.address() as AddressInfo;
    const node = await nodes.add("reader", ["--model", "bard"], undefined, `http://127.0.0.1:${port}`);
    await visit(page, node, "models");
    const shelf = page.getByRole("region", { name: "On this node's disk" });
    await expect(shelf.getByText("No model was fetched yet.")).toBeVisible();
    await shelf.getByLabel("Fetch a model from the hub").fill("https://huggingface.co/acme/slow");
    await shelf.getByRole("button", { name: "Fetch" }).click();
    await expect(shelf.getByRole("progressbar", { name: "Fetching hf:acme/slow" })).toBeVisible();
    await shelf.getByRole("button", { name: "Stop" }).click();
    await expect(shelf.getByText("stopped")).toBeVisible();

    await shelf.getByLabel("Fetch a model from the hub").fill("acme/none");
    await shelf.getByRole("button", { name: "Fetch" }).click();
    await expect(shelf.getByText("broke off")).toBeVisible();
    await shelf.getByLabel("Fetch a model from the hub").fill("no such name");
    await shelf.getByRole("button", { name: "Fetch" }).click();
    await expect(shelf.getByRole("alert")).toContainText("OWNER/REPO");
  } finally {
    hub.closeAllConnections();
    hub.close();
  }
});

// Every page with a live network behind it.
import { expect, overflow, test, visit } from "./page";

const PAGES = [
  ["", "Overview"],
  ["chat", "Chat"],
  ["models", "Models"],
  ["training", "Training"],
  ["network", "Network"],
  ["credits", "Credits"],
  ["settings", "Settings"],
] as const;

test("the overview draws every node, its layers and its link", async ({ page, trio }) => {
  await visit(page, trio.kitchen);
  const picture = page.getByRole("img", { name: "3 of 3 nodes answer" });
  await expect(picture).toBeVisible();
  for (const [name, layers] of [["kitchen", "layers 0..2"], ["attic", "layers 2..4"], ["library", "layers 4..6"]]) {
    await expect(picture.getByText(name!, { exact: true })).toBeVisible();
    await expect(picture.getByText(layers!, { exact: true })).toBeVisible();
  }
  await expect(picture.getByText(/^[\d.]+ (µs|ms)$/)).toHaveCount(2);
  const nodes = page.locator(".tiles > div").filter({ hasText: "Nodes" });
  await expect(nodes).toContainText("3 of 3");
});

test("tokens are seen flowing", async ({ page, trio }) => {
  await visit(page, trio.kitchen);
  const made = page.locator(".tiles > div").filter({ hasText: "Tokens a second" });
  const body = { model: "bard", prompt: "ROMEO:", max_tokens: 240 };
  const answered = page.request.post(`${trio.kitchen.http}/v1/completions`, { data: body });
  await expect(page.locator("line.flows")).toHaveCount(2);
  expect((await answered).ok()).toBe(true);
  await expect(made).not.toContainText(/^Tokens a second0 /);
  await expect(page.locator("line.flows")).toHaveCount(0);
  await expect(page.getByText(/kitchen → attic → library/)).toBeVisible();
});

test("models show who serves which layers and which way a request would go", async ({ page, trio }) => {
  await visit(page, trio.kitchen, "models");
  const bard = page.getByRole("article").filter({ has: page.getByRole("heading", { name: /bard/ }) });
  await expect(bard.getByText("ready")).toBeVisible();
  await expect(bard.getByText("each layer on 1 node")).toBeVisible();
  await expect(bard.getByRole("listitem")).toHaveText([/kitchen\s*layers 0\.\.2/, /attic\s*layers 2\.\.4/, /library\s*layers 4\.\.6/]);
  await bard.getByRole("button", { name: "Which way would a request go?" }).click();
  await expect(bard.getByText(/kitchen \(layers 0\.\.2\) → attic \(layers 2\.\.4\) → library \(layers 4\.\.6\)/)).toBeVisible();
});

test("an invitation made on the network page lets a node in", async ({ page, trio }) => {
  await visit(page, trio.kitchen, "network");
  await expect(page.getByRole("heading", { name: /^(kitchen|attic|library)/ })).toHaveCount(3);
  await page.getByLabel("Valid for").selectOption("1 hour");
  await page.getByRole("button", { name: "Make an invitation" }).click();
  const command = await page.getByLabel("Command to join").inputValue();
  expect(command).toMatch(/^talka join talka1[a-z0-9]+$/);
  await expect(page.getByRole("img", { name: "The invitation as a QR code" })).toBeVisible();
  // Whoever has it may look what joining would come to; that uses nothing up.
  const forecast = JSON.parse(trio.library.say("join", command.split(" ")[2]!, "--dry-run", "--json"));
  expect(JSON.stringify(forecast)).toContain("kitchen");
});

test("credits are explained, verified and exported", async ({ page, trio }) => {
  const body = { model: "bard", prompt: "JULIET:", max_tokens: 8 };
  expect((await page.request.post(`${trio.kitchen.http}/v1/completions`, { data: body })).ok()).toBe(true);
  await visit(page, trio.kitchen, "credits");
  await expect(page.getByText("settled", { exact: true }).first()).toBeVisible();
  await expect(page.getByText(/set aside came back to who did the work/).first()).toBeVisible();
  await page.getByRole("button", { name: "Verify" }).click();
  await expect(page.getByText(/✓ All \d+ entries hold/)).toBeVisible();

  const coming = page.waitForEvent("download");
  await page.getByRole("button", { name: "Export CSV" }).click();
  const file = await (await coming).path();
  const { readFileSync } = await import("node:fs");
  const lines = readFileSync(file, "utf8").trimEnd().split("\r\n");
  expect(lines[0]).toBe("height,time,kind,request,account,bucket,change_micro_gft,hash");
  // Double entry: what a request moves comes to nothing.
  const changes = new Map<string, number>();
  for (const line of lines.slice(1)) {
    const [, , , request, , , change] = line.split(",");
    if (request) changes.set(request, (changes.get(request) ?? 0) + Number(change));
  }
  expect(changes.size).toBeGreaterThan(0);
  expect([...changes.values()].filter((sum) => sum !== 0)).toEqual([]);
});

test("nodes show the class of their hardware and how reliable they are", async ({ page, trio }) => {
  await visit(page, trio.attic, "network");
  const attic = page.getByRole("listitem").filter({ has: page.getByRole("heading", { name: /^attic/ }) });
  // Each node rates itself once it runs; tests have no GPU.
  await expect(attic.getByText(/CPU only, counts as 0\.\d+/)).toBeVisible();
  await expect(attic.getByText(/^1, (no tasks yet|\d+ of its last \d+ tasks done)$/)).toBeVisible();
});

test("settings tell what the node was started with", async ({ page, trio }) => {
  await visit(page, trio.attic, "settings");
  await expect(page.getByText("attic", { exact: true })).toBeVisible();
  await expect(page.getByText("Nobody else is asked: prompts never leave the network.")).toBeVisible();
});

test.describe("on a phone", () => {
  test.use({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });

  test("every page fits, and so does what opens on it", async ({ page, trio }) => {
    for (const [path, title] of PAGES) {
      await visit(page, trio.kitchen, path);
      await expect(page.getByRole("heading", { level: 1, name: title })).toBeVisible();
      expect(await overflow(page), title).toBe(0);
    }
    await visit(page, trio.kitchen, "network");
    await page.getByRole("button", { name: "Make an invitation" }).click();
    await expect(page.getByRole("img", { name: "The invitation as a QR code" })).toBeVisible();
    expect(await overflow(page)).toBe(0);
  });
});

test("every page is reached and worked by keyboard", async ({ page, trio }) => {
  await visit(page, trio.kitchen);
  await page.keyboard.press("Tab");
  await expect(page.getByRole("link", { name: "To the page" })).toBeFocused();
  for (const [, title] of PAGES) {
    await page.keyboard.press("Tab");
    await expect(page.getByRole("link", { name: title, exact: true })).toBeFocused();
  }
  await page.keyboard.press("Enter");
  await expect(page.getByRole("heading", { level: 1, name: "Settings" })).toBeVisible();
  await expect(page.getByRole("main")).toBeFocused();
});

test("nothing moves while a page waits for its node", async ({ page, trio }) => {
  await page.addInitScript(() => {
    const shifts: number[] = [];
    Object.assign(window, { shifts });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) shifts.push((entry as unknown as { value: number }).value);
    }).observe({ type: "layout-shift", buffered: true });
  });
  for (const [path, title] of PAGES) {
    await visit(page, trio.kitchen, path);
    await page.reload();
    await expect(page.getByRole("heading", { level: 1, name: title })).toBeVisible();
    await expect(page.getByText("Asking the node…")).toHaveCount(0);
    const moved = await page.evaluate(() => (window as unknown as { shifts: number[] }).shifts.reduce((sum, shift) => sum + shift, 0));
    // What browsers call good for a whole visit.
    expect(moved, title).toBeLessThan(0.1);
  }
});

test("the first view is small, and nothing comes from elsewhere", async ({ page, trio }) => {
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  let received = 0;
  const asked = new Set<string>();
  session.on("Network.responseReceived", ({ response }) => asked.add(new URL(response.url).pathname));
  session.on("Network.loadingFinished", ({ encodedDataLength }) => (received += encodedDataLength));
  await page.addInitScript(() => {
    const look = () => {
      if (document.querySelector("figure svg")) Object.assign(window, { drawn: performance.now() });
      else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  });
  await visit(page, trio.kitchen);
  await expect(page.getByRole("img", { name: "3 of 3 nodes answer" })).toBeVisible();
  // Told and not judged: it depends on what else the machine does.
  const drawn = await page.evaluate(() => (window as unknown as { drawn: number }).drawn);
  console.log(`the network was drawn after ${Math.round(drawn)} ms, from ${received} bytes`);
  expect([...asked].sort()).toEqual(["/", "/api/credits", "/api/live", "/icon.svg", "/talka.css", "/talka.js"]);
  // Everything but the events themselves, which never finish loading.
  expect(received).toBeGreaterThan(10_000);
  expect(received).toBeLessThan(150_000);
});

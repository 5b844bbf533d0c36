// Pictures of every page for people, in docs/dashboard: light, dark and on a phone. `npm run shots` draws them anew.
import type { Page } from "@playwright/test";
import { expect, overflow, test, visit } from "./page";
import { train } from "./train";

const KINDS = [
  { kind: "", width: 1200, height: 800, colorScheme: "light", isMobile: false },
  { kind: "-dark", width: 1200, height: 800, colorScheme: "dark", isMobile: false },
  { kind: "-phone", width: 360, height: 740, colorScheme: "light", isMobile: true },
] as const;

/** What is done on a page so that it shows what it is for. */
const SCENES: Record<string, (page: Page) => Promise<void>> = {
  overview: async (page) => {
    const ask = { model: "bard", prompt: "ROMEO:", max_tokens: 200 };
    const url = new URL("/v1/completions", page.url()).href;
    for (let turn = 0; turn < 12; turn += 1) await page.request.post(url, { data: ask });
    void page.request.post(url, { data: ask }).catch(() => {});
    await expect(page.locator("line.flows")).toHaveCount(2);
  },
  chat: async (page) => {
    await page.getByLabel("Message").fill("Speak of the moon.");
    await page.getByLabel("Message").press("Enter");
    await page.locator("li.assistant summary").click({ timeout: 60_000 });
    await expect(page.getByText("First word")).toBeInViewport();
  },
  models: async (page) => {
    await page.getByRole("button", { name: "Which way would a request go?" }).click();
    await expect(page.getByText(/a token\.$/)).toBeVisible();
  },
  training: async (page) => {
    const home = new URL("/", page.url()).href;
    const known: unknown[] = await (await page.request.get(new URL("/api/training", home).href)).json();
    // The picture before may have trained them.
    if (!known.length) {
      await train(page.request, home, "plays", 400);
      await train(page.request, home, "plays-slow", 400, 0.002);
    }
    await page.getByLabel("plays-slow", { exact: true }).check();
    await page.getByLabel("plays", { exact: true }).check();
    await expect(page.getByText("done")).toHaveCount(2, { timeout: 60_000 });
    await expect(page.getByRole("heading", { name: "Side by side" })).toBeVisible();
  },
  network: async (page) => {
    await page.getByRole("button", { name: "Make an invitation" }).click();
    await expect(page.getByRole("img", { name: "The invitation as a QR code" })).toBeVisible();
  },
  credits: async (page) => {
    await page.getByRole("button", { name: "Verify" }).click();
    await expect(page.getByText(/entries hold/)).toBeVisible();
  },
  settings: async () => {},
};

for (const { kind, width, height, ...look } of KINDS) {
  for (const [name, scene] of Object.entries(SCENES)) {
    test(`${name}${kind}`, async ({ browser, trio, wrongs }) => {
      void wrongs;
      const context = await browser.newContext({ viewport: { width, height }, reducedMotion: "reduce", ...look });
      const page = await context.newPage();
      await visit(page, trio.kitchen, name === "overview" ? "" : name);
      await scene(page);
      expect(await overflow(page)).toBe(0);
      // As tall as the page: what is fixed to the window's end stays at the end.
      const tall = await page.evaluate(() => document.documentElement.scrollHeight);
      if (name !== "chat") await page.setViewportSize({ width, height: Math.min(Math.max(height, tall), 1700) });
      await page.evaluate(() => scrollTo(0, 0));
      await page.screenshot({ path: `../docs/dashboard/${name}${kind}.png` });
      await context.close();
    });
  }
}

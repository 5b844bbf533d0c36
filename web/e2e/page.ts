// What every test of the dashboard begins with: a live network, and a page that may do no wrong.
import { expect, test as base, type Page } from "@playwright/test";
import { Nodes, type Node } from "./nodes";

export interface Trio {
  kitchen: Node;
  attic: Node;
  library: Node;
}

interface OfWorker {
  trio: Trio;
}

interface OfTest {
  /** What the page did that it must not: errors, warnings, and calls to other hosts. */
  wrongs: string[];
}

export const test = base.extend<OfTest, OfWorker>({
  trio: [
    async ({}, use) => {
      const nodes = new Nodes();
      try {
        const [kitchen, attic, library] = await nodes.trio();
        await use({ kitchen, attic, library });
      } finally {
        await nodes.end();
      }
    },
    { scope: "worker", timeout: 180_000 },
  ],
  wrongs: [
    async ({ page }, use) => {
      const wrongs = watch(page);
      await use(wrongs);
      expect(wrongs).toEqual([]);
    },
    { auto: true },
  ],
});

function watch(page: Page): string[] {
  const wrongs: string[] = [];
  page.on("pageerror", (error) => wrongs.push(String(error)));
  page.on("console", (message) => {
    // A node that is gone or wants a key shows as a failed call, which the page tells people in its own words.
    const isCall = /^Failed to load resource/.test(message.text());
    if (["error", "warning"].includes(message.type()) && !isCall) wrongs.push(message.text());
  });
  page.on("request", (request) => {
    const { protocol, host } = new URL(request.url());
    const home = page.url() === "about:blank" ? host : new URL(page.url()).host;
    if (protocol === "http:" ? host !== home || !/^127\.0\.0\.1:/.test(host) : protocol !== "blob:") wrongs.push(`asked ${request.url()}`);
  });
  return wrongs;
}

/** Opens a page of the dashboard of `node` and waits until it is live. */
export async function visit(page: Page, node: Node, path = ""): Promise<void> {
  await page.goto(`${node.http}/#/${path}`);
  await live(page);
}

export async function live(page: Page): Promise<void> {
  await expect(page.getByRole("banner").getByRole("status")).toHaveText("Live");
}

/** How many pixels the page is wider than the window. */
export const overflow = (page: Page): Promise<number> =>
  page.evaluate(() => Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth));

export { expect };

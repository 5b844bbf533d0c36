// Answers in the chat: streamed, stopped, kept, and gone on with.
import type { Page } from "@playwright/test";
import { expect, test, visit } from "./page";

async function ask(page: Page, text: string, tokens: number) {
  await page.getByText("how it writes").click();
  await page.getByLabel("Most tokens").fill(String(tokens));
  await page.getByLabel("Message").fill(text);
  await page.getByLabel("Message").press("Enter");
}

/** Notes in the page itself how long the text of an answer is whenever it grows. */
const watchGrowth = (page: Page) =>
  page.evaluate(() => {
    const lengths: number[] = [];
    Object.assign(window, { lengths });
    const look = () => {
      const length = document.querySelector("li.assistant .said")?.textContent?.length ?? 0;
      if (length > (lengths.at(-1) ?? 0)) lengths.push(length);
    };
    new MutationObserver(look).observe(document.body, { childList: true, characterData: true, subtree: true });
  });

test("an answer streams and ends with a receipt of who computed it", async ({ page, trio }) => {
  await visit(page, trio.kitchen, "chat");
  await watchGrowth(page);
  await ask(page, "Speak of the moon.", 200);
  const answer = page.getByRole("log").getByRole("listitem").nth(1);
  const summary = answer.locator("summary");
  await expect(summary).toHaveText(/^200 tokens · [\d.]+ GFT ·\s+by kitchen → attic → library/);
  const lengths = await page.evaluate(() => (window as unknown as { lengths: number[] }).lengths);
  expect(lengths.length).toBeGreaterThan(1);

  await summary.click();
  await expect(answer.getByText(/^after \d/)).toBeVisible();
  await expect(answer.getByText(/FLOP$/)).toBeVisible();
  await expect(answer.getByRole("listitem")).toHaveText([/kitchen\s*layers 0\.\.2/, /attic\s*layers 2\.\.4/, /library\s*layers 4\.\.6/]);

  // The receipt is the ledger's: the same request, and the same numbers.
  const { request, cost } = await answer.evaluate((item) => {
    const fact = (name: string) => [...item.querySelectorAll("dt")].find((dt) => dt.textContent === name)?.nextElementSibling?.textContent ?? "";
    return { request: fact("Request"), cost: fact("Cost") };
  });
  await page.getByRole("link", { name: "Credits" }).click();
  const settled = page.getByRole("listitem").filter({ hasText: request.slice(0, 8) }).filter({ hasText: "settled" });
  await expect(settled).toContainText(`for the weights' precision = ${cost}`);
});

/** Presses Escape in the page itself at the first word of an answer: asked for from here, the answer could end before. */
const stopAtFirstWord = (page: Page) =>
  page.evaluate(() => {
    const watch = new MutationObserver(() => {
      if (!document.querySelector(".said.writing")?.textContent) return;
      watch.disconnect();
      dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
    });
    watch.observe(document.body, { childList: true, characterData: true, subtree: true });
  });

test("an answer is stopped, and the conversation is still there after a reload", async ({ page, trio }) => {
  await visit(page, trio.kitchen, "chat");
  await stopAtFirstWord(page);
  await ask(page, "Speak of the sea.", 220);
  const answer = page.getByRole("log").getByRole("listitem").nth(1);
  await expect(answer.getByText("Stopped.")).toBeVisible();
  const said = await answer.locator(".said").textContent();

  await page.reload();
  await page.getByRole("button", { name: /^Speak of the sea\./ }).click();
  await expect(page.getByRole("log").locator(".said").nth(1)).toHaveText(said!);
  await page.getByRole("button", { name: "Remove: Speak of the sea." }).click();
  await expect(page.getByText("None yet.")).toBeVisible();
});

test("what cannot be asked is said in words, and the question is given back", async ({ page, trio }) => {
  await visit(page, trio.kitchen, "chat");
  const long = "word ".repeat(400).trim();
  await ask(page, long, 10);
  await expect(page.getByRole("alert")).toContainText("Begin a new conversation");
  await expect(page.getByLabel("Message")).toHaveValue(long);
});

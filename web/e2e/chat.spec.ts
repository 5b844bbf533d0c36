// Answers in the chat: streamed, stopped, kept, and gone on with.
import { expect, test, visit } from "./page";

/** An answer as long as bard's context lets it be. */
async function ask(page: import("@playwright/test").Page, text: string, tokens: number) {
  await page.getByText("how it writes").click();
  await page.getByLabel("Most tokens").fill(String(tokens));
  await page.getByLabel("Message").fill(text);
  await page.getByLabel("Message").press("Enter");
}

test("an answer streams and ends with a receipt of who computed it", async ({ page, trio }) => {
  await visit(page, trio.kitchen, "chat");
  await ask(page, "Speak of the moon.", 200);
  const answer = page.getByRole("log").getByRole("listitem").nth(1);
  await expect(answer).toHaveAttribute("aria-busy", "true");
  // It grows before it is done.
  const text = answer.locator(".said");
  await expect(text).not.toBeEmpty();
  const begun = await text.textContent();
  await expect(answer).toHaveAttribute("aria-busy", "false");
  const whole = await text.textContent();
  expect(whole!.length).toBeGreaterThan(begun!.length);
  expect(whole!.startsWith(begun!)).toBe(true);

  const summary = answer.getByText(/tokens · .* GFT · by kitchen → attic → library/);
  await summary.click();
  await expect(answer.getByText(/^after \d/)).toBeVisible();
  await expect(answer.getByText(/FLOP$/)).toBeVisible();
  await expect(answer.getByRole("listitem")).toHaveText([/kitchen\s*layers 0\.\.2/, /attic\s*layers 2\.\.4/, /library\s*layers 4\.\.6/]);

  // The receipt is the ledger's: what it says was charged is what the account lost less what it earned.
  const cost = /([\d.]+) GFT/.exec((await summary.textContent())!)![1]!;
  expect(Number(cost)).toBeGreaterThan(0);
});

test("an answer is stopped, and the conversation is still there after a reload", async ({ page, trio }) => {
  await visit(page, trio.kitchen, "chat");
  await ask(page, "Speak of the sea.", 220);
  const answer = page.getByRole("log").getByRole("listitem").nth(1);
  await expect(answer.locator(".said")).not.toBeEmpty();
  await page.keyboard.press("Escape");
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

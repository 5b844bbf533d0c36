// A node that wants its key.
import { expect, live, test } from "./page";
import { Nodes, type Node } from "./nodes";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";

let nodes: Nodes;
let node: Node;
let file: string;

test.beforeAll(async () => {
  nodes = new Nodes();
  file = join(mkdtempSync(join(tmpdir(), "talka-key-")), "key");
  writeFileSync(file, "correct-horse\n");
  node = await nodes.add("guarded", ["--api-key-file", file]);
});
test.afterAll(() => nodes.end());

test("the page asks for the key, refuses a wrong one, and opens with the right one", async ({ page }) => {
  await page.goto(node.http);
  const field = page.getByLabel("This node wants its API key");
  await expect(field).toBeFocused();
  await field.fill("wrong-horse");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("alert")).toHaveText("The key was refused.");
  await field.fill("correct-horse");
  await page.keyboard.press("Enter");
  await live(page);
  await expect(page.getByRole("img", { name: "1 of 1 nodes answer" })).toBeVisible();
  // The tab keeps it, and no other does.
  await page.reload();
  await live(page);
  const other = await page.context().newPage();
  await other.goto(node.http);
  await expect(other.getByLabel("This node wants its API key")).toBeVisible();
});

test("a link lets one browser in, once", async ({ page, browser }) => {
  const link = node.say("login", "--api-key-file", file);
  await page.goto(link);
  await live(page);
  expect(page.url()).not.toContain("token");
  await page.reload();
  await live(page);
  const stranger = await browser.newPage();
  await stranger.goto(link);
  await expect(stranger.getByText(/talka login/)).toBeVisible();
  await stranger.goto(node.http);
  await expect(stranger.getByLabel("This node wants its API key")).toBeVisible();
  await stranger.close();
});

// Nodes that die and come back, seen from a page that stays open.
import { expect, live, test, visit } from "./page";

test("a killed node turns red, its layers show as missing, and both recover", async ({ page, trio }) => {
  await visit(page, trio.kitchen);
  const attic = page.locator("g.node").filter({ hasText: "attic" });
  await expect(attic).not.toHaveClass(/gone/);
  await trio.attic.kill();
  await expect(attic).toHaveClass(/gone/);
  await expect(page.getByRole("img", { name: "2 of 3 nodes answer" })).toBeVisible();

  await page.getByRole("link", { name: "Models", exact: true }).click();
  await expect(page.getByText("incomplete")).toBeVisible();
  await expect(page.getByRole("listitem").filter({ hasText: "served by nobody" })).toContainText("layers 2..4");
  await page.getByRole("link", { name: "Network", exact: true }).click();
  await expect(page.getByRole("listitem").filter({ hasText: "attic" }).first()).toContainText(/silent/);

  await trio.attic.start();
  await expect(page.getByRole("listitem").filter({ hasText: "attic" }).first()).toContainText("answers");
  await page.getByRole("link", { name: "Overview" }).click();
  await expect(attic).not.toHaveClass(/gone/);
  await page.getByRole("link", { name: "Models", exact: true }).click();
  await expect(page.getByText("ready", { exact: true })).toBeVisible();
});

test("a page whose own node dies says so and goes on by itself", async ({ page, trio }) => {
  await visit(page, trio.library);
  await trio.library.kill();
  await expect(page.getByRole("banner").getByRole("status")).toHaveText("No answer");
  await expect(page.getByRole("alert")).toContainText("it goes on by itself once the node is back");
  await trio.library.start();
  await live(page);
  await expect(page.getByRole("alert")).toHaveCount(0);
});

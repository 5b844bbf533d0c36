// Keys for programs, made on the page.
import { expect, test, visit } from "./page";
import { Nodes, type Node } from "./nodes";

let nodes: Nodes;
let node: Node;

test.beforeAll(async () => {
  nodes = new Nodes();
  node = await nodes.add("keeper");
});
test.afterAll(() => nodes.end());

test("a key is made, shown once, lets a program in, and is removed", async ({ page }) => {
  await visit(page, node, "settings");
  const keys = page.getByRole("region", { name: "Keys for programs" });
  await keys.getByText("New key").click();
  await keys.getByLabel("Name").fill("laptop");
  await keys.getByLabel("Budget, in GFT").fill("5");
  await keys.getByLabel("Calls at once").fill("2");
  await keys.getByRole("button", { name: "Make the key" }).click();
  const secret = await keys.getByLabel("The key laptop, shown now and never again").inputValue();
  await expect(keys.getByText(/0 GFT of 5\.000 GFT spent, 2 at once/)).toBeVisible();
  const asked = (key: string) => fetch(`${node.http}/v1/models`, { headers: { Authorization: `Bearer ${key}` } });
  expect((await asked(secret)).status).toBe(200);

  await page.reload();
  await expect(keys.getByText("laptop")).toBeVisible();
  await expect(keys.getByText(secret)).toHaveCount(0);
  await keys.getByRole("button", { name: "Remove key laptop" }).click();
  await keys.getByRole("button", { name: "Remove for good" }).click();
  await expect(keys.getByText("None.")).toBeVisible();
  expect((await asked(secret)).status).toBe(401);
});

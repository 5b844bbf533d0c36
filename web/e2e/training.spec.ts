// Jobs on the dashboard, in a network of their own.
import { expect, test, visit } from "./page";
import { Nodes, type Node } from "./nodes";
import { begin, train } from "./train";

let nodes: Nodes;
let node: Node;

test.beforeEach(async () => {
  nodes = new Nodes();
  node = await nodes.add("study");
});
test.afterEach(() => nodes.end());

test("a job is shown, its versions are served and rolled back with one click", async ({ page, request }) => {
  await visit(page, node, "training");
  await expect(page.getByText("This node has trained nothing yet.")).toBeVisible();
  await train(request, node.http, "plays", 200);
  const jobs = page.getByRole("region", { name: "Jobs" });
  await expect(jobs.getByText("done")).toBeVisible();
  await expect(page.getByRole("heading", { name: "Loss" })).toBeVisible();
  const versions = page.getByRole("region", { name: "Versions of plays" });
  await versions.getByRole("button", { name: "Serve step 100 of plays" }).click();
  await expect(versions).toContainText("gets the version of step 100");
  await versions.getByRole("button", { name: "Serve step 200 of plays" }).click();
  await expect(versions).toContainText("gets the version of step 200");
  await versions.getByRole("button", { name: "Roll back to step 100" }).click();
  await expect(versions).toContainText("gets the version of step 100");
  await expect(page.getByRole("row", { name: /training_config.steps/ })).toContainText("200");
});

test("jobs are compared side by side, and one that runs is stopped", async ({ page, request }) => {
  await train(request, node.http, "first", 40);
  await train(request, node.http, "second", 1_000_000, 0.002);
  await visit(page, node, "training");
  await expect(page.getByRole("heading", { name: "Parameters and data" })).toBeVisible();
  await page.getByLabel("first", { exact: true }).check();
  await expect(page.getByRole("heading", { name: "Side by side" })).toBeVisible();
  await expect(page.getByRole("row", { name: /training_config.learning_rate/ })).toContainText("0.002");
  await page.getByRole("button", { name: "Stop second" }).click();
  await expect(page.getByRole("region", { name: "Jobs" }).getByText("stopped")).toBeVisible();
});

test("a job of another member is joined with one click, and shows who trains it", async ({ page, request }) => {
  const other = await nodes.add("barn", [], node.say("invite"));
  await begin(request, node.http, "common", 120, 0.01, true);
  await visit(page, other, "training");
  await page.getByRole("button", { name: "What would common take?" }).click();
  await expect(page.getByText("a day over the network")).toBeVisible();
  await page.getByRole("button", { name: "Take part in common" }).click();
  const jobs = page.getByRole("region", { name: "Jobs" });
  await expect(jobs.getByText("done")).toBeVisible({ timeout: 60_000 });
  await expect(jobs.getByText("round 6 of 6")).toBeVisible();
  const members = page.getByRole("region", { name: "Members of common" });
  await expect(members.getByRole("row", { name: /study/ })).toContainText("leads");
  await expect(members.getByRole("row", { name: /barn/ })).toBeVisible();
  await expect(members.getByRole("heading", { name: "Loss of each member, by rounds" })).toBeVisible();
});

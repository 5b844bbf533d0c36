import { defineConfig } from "@playwright/test";

// In the browser that is installed: nothing is downloaded. `cargo xtask test` names it, and the program to start.
export default defineConfig({
  testDir: "e2e",
  outputDir: "../target/e2e",
  // Nodes share two cores with the browser on small machines; nothing depends on how long that is.
  timeout: 120_000,
  expect: { timeout: 30_000 },
  workers: 1,
  forbidOnly: true,
  reporter: "list",
  use: {
    browserName: "chromium",
    viewport: { width: 1200, height: 800 },
    actionTimeout: 30_000,
    launchOptions: { executablePath: process.env.TALKA_CHROMIUM ?? "/usr/bin/chromium" },
  },
  projects: [
    { name: "tests", testMatch: "*.spec.ts" },
    // `npm run shots`: pictures for people, not for comparing.
    { name: "shots", testMatch: "shots.ts" },
  ],
});

import { readdirSync } from "node:fs";
import { defineConfig } from "vite";

// Makes the tests of pure functions into what `node --test` runs: `npm test`.
export default defineConfig({
  publicDir: false,
  build: {
    ssr: true,
    outDir: "../target/web-tests",
    emptyOutDir: true,
    rollupOptions: {
      input: readdirSync("tests").filter((name) => name.endsWith(".test.ts")).map((name) => `tests/${name}`),
      output: { entryFileNames: "[name].mjs" },
    },
  },
});

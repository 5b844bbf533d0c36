import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// The node embeds four files under fixed names (crates/gateway/src/dashboard.rs), so nothing is split,
// hashed or inlined. `cargo xtask web` builds elsewhere and compares.
export default defineConfig({
  plugins: [svelte({ configFile: false, compilerOptions: { fragments: "tree" } })],
  build: {
    outDir: process.env.TALKA_WEB_OUT ?? "../crates/gateway/page",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    license: { fileName: "licences.md" },
    modulePreload: false,
    rollupOptions: {
      output: { entryFileNames: "talka.js", assetFileNames: "talka[extname]", codeSplitting: false },
    },
  },
  // For work on the page itself: `npm run dev` beside a running node.
  server: { proxy: { "/api": "http://127.0.0.1:4242", "/v1": "http://127.0.0.1:4242" } },
});

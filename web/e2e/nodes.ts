// Real nodes for the tests: `talka` processes of this computer, which are gone when the tests are, however they end.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createSocket } from "node:dgram";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

const TALKA = resolve(process.env.TALKA_BIN ?? "../target/debug/talka");

/** The program with no setting of the person who runs the tests, and no way beyond this computer: to `hub` there, if any. */
function environment(hub = ""): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !/^(TALKA_|HF_)/.test(name));
  const far = hub ? { HF_ENDPOINT: hub } : { HF_HUB_OFFLINE: "1" };
  return { ...Object.fromEntries(kept), ...far, HF_HOME: "/nonexistent", HF_TOKEN_PATH: "" };
}

/** A node. Started again it has the same addresses, so that pages and other nodes find it. */
export class Node {
  http = "";
  #process: ChildProcess | null = null;

  constructor(
    readonly name: string,
    readonly dir: string,
    readonly p2p: string,
    readonly flags: string[] = [],
    readonly hub = "",
  ) {}

  /** Starts it and waits until it answers; with an invitation it joins, for good. */
  async start(invite?: string): Promise<void> {
    const command = invite === undefined ? ["up"] : ["join", invite];
    const listen = this.http ? new URL(this.http).host : "127.0.0.1:0";
    const log = openSync(`${this.dir}.log`, "a");
    const all = [...command, "--data-dir", this.dir, "--name", this.name, "--threads", "1", "--http", listen, "--p2p", this.p2p];
    const running = spawn(TALKA, [...all, ...this.flags], { env: environment(this.hub), stdio: ["ignore", "pipe", log] });
    closeSync(log);
    this.#process = running;
    this.http = await new Promise<string>((ready, failed) => {
      running.once("error", failed);
      running.once("exit", (code) => failed(new Error(`${this.name} ended with ${code}: ${readFileSync(`${this.dir}.log`, "utf8")}`)));
      createInterface(running.stdout!).on("line", (line) => {
        const [, address] = /^ready http=(\S+)/.exec(line) ?? [];
        if (address) ready(address);
      });
    });
  }

  /** SIGKILL, and gone. */
  async kill(): Promise<void> {
    const running = this.#process;
    this.#process = null;
    if (!running || running.exitCode !== null || running.signalCode !== null) return;
    const gone = new Promise((done) => running.once("exit", done));
    running.kill("SIGKILL");
    await gone;
  }

  /** What a client command prints about this node. */
  say(...command: string[]): string {
    const done = spawnSync(TALKA, [...command, "--data-dir", this.dir], { env: environment(), encoding: "utf8" });
    if (done.status !== 0) throw new Error(`talka ${command.join(" ")}: ${done.stderr}`);
    return done.stdout.trim();
  }

  async ask<T>(path: string): Promise<T> {
    const response = await fetch(this.http + path);
    if (!response.ok) throw new Error(`${path} answers ${response.status}`);
    return response.json() as Promise<T>;
  }
}

/** A UDP port of this computer that is free now. */
function freePort(): Promise<number> {
  return new Promise((found) => {
    const socket = createSocket("udp4");
    socket.bind(0, "127.0.0.1", () => {
      const { port } = socket.address();
      socket.close(() => found(port));
    });
  });
}

/** Nodes in a folder of their own. */
export class Nodes {
  readonly #place = mkdtempSync(join(tmpdir(), "talka-web-"));
  readonly #all: Node[] = [];

  async add(name: string, flags: string[] = [], invite?: string, hub = ""): Promise<Node> {
    const node = new Node(name, join(this.#place, name), `127.0.0.1:${await freePort()}`, flags, hub);
    this.#all.push(node);
    await node.start(invite);
    return node;
  }

  /** Three that share the bundled model, each two layers of it, and hear of each other. */
  async trio(): Promise<[Node, Node, Node]> {
    const kitchen = await this.add("kitchen", ["--layers", "bard=0..2"]);
    const invite = kitchen.say("invite", "--reusable");
    const attic = await this.add("attic", ["--layers", "bard=2..4"], invite);
    const library = await this.add("library", ["--layers", "bard=4..6"], invite);
    for (const node of [kitchen, attic, library]) await complete(node);
    return [kitchen, attic, library];
  }

  async end(): Promise<void> {
    await Promise.all(this.#all.map((node) => node.kill()));
    rmSync(this.#place, { recursive: true, force: true });
  }
}

/** Waits until the node knows a way through the whole model. */
export async function complete(node: Node): Promise<void> {
  for (;;) {
    const models = await node.ask<{ complete: boolean }[]>("/api/models");
    if (models.every((model) => model.complete)) return;
    await new Promise((go) => setTimeout(go, 50));
  }
}

import { NDARRAY_VERSION } from "./ndarray.ts";
import { ProcessPeer } from "./process_peer.ts";

/** Peers that import the same struct by hand, by name. */
export type Peers = Record<string, ProcessPeer>;

/**
 * Installs koffi and bun from npm into `build/`, and starts those that work.
 * Says on the console which do not, and why.
 *
 * @param library The path of the compiled producer.
 */
export async function startPeers(library: string): Promise<Peers> {
  const prefix = pathOf("../../../build/bench_peers");
  const modules = `${prefix}/node_modules`;
  try {
    await Deno.mkdir(prefix, { recursive: true });
    await run(
      "npm",
      ["install", "--prefix", prefix, "--no-audit", "--no-fund"],
      ["--loglevel=error", "koffi@3", "bun@1"],
    );
  } catch (error) {
    console.warn(`Without koffi and bun: ${(error as Error).message}`);
    return {};
  }
  const commands: Record<string, [program: string, ...args: string[]]> = {
    koffi: ["node", pathOf("./koffi.mjs"), `${modules}/koffi`, library],
    bun: [`${modules}/.bin/bun`, pathOf("./bun.mjs"), library],
  };
  const peers: Peers = {};
  for (const [name, [program, ...args]] of Object.entries(commands)) {
    try {
      const peer = new ProcessPeer(program, args);
      await peer.ask({ task: "import", seconds: 0.01 });
      peers[name] = peer;
    } catch (error) {
      console.warn(`Without ${name}: ${(error as Error).message}`);
    }
  }
  return peers;
}

/** The versions of what was installed, of Node.js, and of scijs ndarray. */
export async function peerVersions(): Promise<Record<string, string>> {
  const versions: Record<string, string> = { ndarray: NDARRAY_VERSION };
  for (const name of ["koffi", "bun"]) {
    const json = `../../../build/bench_peers/node_modules/${name}/package.json`;
    try {
      versions[name] = JSON.parse(await Deno.readTextFile(pathOf(json)))
        .version;
    } catch {
      // Not installed.
    }
  }
  if ("koffi" in versions) {
    versions["node"] = (await run("node", ["--version"])).trim().slice(1);
  }
  return versions;
}

async function run(program: string, ...args: string[][]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, {
    args: args.flat(),
  }).output();
  const text = new TextDecoder();
  if (success) return text.decode(stdout);
  throw new Error(text.decode(stderr).trim().split("\n").at(-1));
}

function pathOf(relative: string): string {
  return decodeURIComponent(new URL(relative, import.meta.url).pathname);
}

import { assertEquals } from "@std/assert";
import { tvmFfiPath } from "./native/tvm_ffi.ts";
import { skipped } from "./skipped.ts";

const root = new URL("../", import.meta.url);
const tables = Deno.readTextFileSync(new URL("ffi/tvm_ffi/abi.ts", root));

/** What a C++ compiler says of the header in the wheel; `null` where there is none. */
function compiled(): Map<string, number> | null {
  if (tvmFfiPath === null) return null;
  const include = tvmFfiPath.replace(/lib[/\\][^/\\]*$/, "include");
  const dlpack = include.replace(/include$/, "3rdparty/dlpack/include");
  const program = Deno.makeTempFileSync();
  try {
    const source = new URL("tests/native/tvm_abi.cc", root).pathname;
    const { success, stderr } = new Deno.Command(Deno.env.get("CXX") ?? "g++", {
      args: [`-I${include}`, `-I${dlpack}`, source, "-o", program],
    }).outputSync();
    const text = new TextDecoder();
    if (!success) throw new Error(text.decode(stderr));
    const said = text.decode(new Deno.Command(program).outputSync().stdout);
    return new Map(
      said.trim().split("\n").map((line) => {
        const [name, value] = line.split(" ");
        return [name!, Number(value)];
      }),
    );
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    skipped("the ABI of TVM-FFI", "apt-get install g++");
    return null;
  } finally {
    Deno.removeSync(program);
  }
}

const compiler = compiled();

Deno.test({
  name:
    "tvm-ffi: byte offsets, flags and types are those of the wheel's header",
  ignore: compiler === null,
  fn() {
    const checked = new Set<string>();
    const expect = (name: string, value: string): void => {
      assertEquals(compiler!.get(name), Number(value), name);
      checked.add(name);
    };
    // `field: 8, // type member` of a table for `Struct`, and its size.
    for (
      const [, struct, body] of tables.matchAll(
        /`(TVMFFI\w+)`[^`]*?\*\/\nexport const \w+ = \{([^}]*)\}/g,
      )
    ) {
      for (
        const [, value, member] of body!.matchAll(
          /: (\d+), \/\/ [^,\n]*?\**(\w+)(?:,.*)?$/gm,
        )
      ) {
        if (!member!.startsWith("kTVMFFI")) {
          expect(`${struct}.${member}`, value!);
        }
      }
      const size = /\bsize: (\d+)/.exec(body!);
      if (size !== null) expect(struct!, size[1]!);
    }
    for (
      const [, value, name] of tables.matchAll(/: (\d+), \/\/ (kTVMFFI\w+)$/gm)
    ) expect(name!, value!);
    expect(
      "TVMFFIObject.combined_ref_count",
      /strongCount: (\d+)/.exec(tables)![1]!,
    );
    assertEquals([...compiler!.keys()].filter((n) => !checked.has(n)), []);
  },
});

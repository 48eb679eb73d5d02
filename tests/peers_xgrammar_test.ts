/** XGrammar: its C++ called from here, compared with its Python package. */

import { addressOf, Tensor } from "@dlpack/deno";
import { TvmFfi } from "@dlpack/deno/tvm_ffi";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { findLibrary } from "../examples/find_library.ts";
import { pythonPath } from "../examples/python.ts";
import { tvmFfiPath } from "./native/tvm_ffi.ts";
import { skipped } from "./skipped.ts";
import { assertTvmError } from "./tvm_ffi.ts";

const library = findLibrary({
  variable: "XGRAMMAR_LIBRARY",
  module: "xgrammar",
  name: "xgrammar_bindings",
});
if (library === null) {
  skipped("XGrammar", "pip install --no-deps xgrammar==0.2.8");
}
const ignore = library === null || tvmFfiPath === null;

function open() {
  const ffi = TvmFfi.open(tvmFfiPath!);
  ffi.openLibrary(library!);
  const type = (name: string) => ffi.type(`xgrammar.tvm_ffi_binding.${name}`)!;
  return { ffi, type };
}

/** A vocabulary of all printable characters, and of some words. */
const vocabulary = [
  "<end>",
  ...Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)),
  ...['{"', '": ', '", "', '"}', "name", "age", "tags", "true", "null", "é"],
  "\u{1f600}",
];
const schema = JSON.stringify({
  type: "object",
  properties: {
    name: { type: "string", maxLength: 8 },
    age: { type: "integer", minimum: 0, maximum: 150 },
    tags: { type: "array", items: { enum: ["a", "é", null] } },
  },
  required: ["name", "age", "tags"],
});
const text = '{"name": "Zoe é", "age": 42, "tags": ["é", null, "a"]}';
const end = 0;

/** The longest tokens that make up a text, and one that is not allowed. */
function tokensOf(text: string): number[] {
  const tokens: number[] = [];
  for (let at = 0; at < text.length;) {
    const [token, length] = vocabulary.entries()
      .filter(([i, word]) => i !== end && text.startsWith(word, at))
      .map(([i, word]) => [i, word.length] as const)
      .reduce((a, b) => b[1] > a[1] ? b : a);
    tokens.push(token);
    at += length;
  }
  return [
    ...tokens.slice(0, 3),
    vocabulary.indexOf("}"),
    ...tokens.slice(3),
    end,
  ];
}

Deno.test({
  name: "xgrammar: bitmasks, logits and all else equal the Python package's",
  ignore,
  async fn() {
    const { ffi, type } = open();
    const tokens = tokensOf(text);
    const likes = vocabulary.map((_, i) => Math.fround(Math.sin(i)));

    const TokenizerInfo = type("TokenizerInfo");
    using tokenizer = new TokenizerInfo(vocabulary, 0, null, [end], false);
    using compiler = new (type("GrammarCompiler"))(tokenizer, 2, true, -1);
    using compiled = compiler.compile_json_schema(
      ...[schema, false, null, null, true, null, false],
    );
    using matcher = new (type("GrammarMatcher"))(
      compiled,
      null,
      false,
      -1,
      null,
    );
    using apply = ffi.globalFunction(
      "xgrammar.tvm_ffi_binding.kernels.apply_token_bitmask_inplace_cpu",
    )!;
    const size = vocabulary.length;
    const words = Math.ceil(size / 32);
    const steps = tokens.map((token) => {
      const bitmask = Tensor.zeros([1, words], "int32");
      const needs = matcher.fill_next_token_bitmask(bitmask, 0, false);
      const logits = Tensor.from(Float32Array.from(likes), [1, size]);
      using _logits = logits.hold();
      using _bitmask = bitmask.hold();
      const [a, b] = [addressOf(logits), addressOf(bitmask)];
      apply(
        a,
        [1, size],
        [size, 1],
        b,
        [1, words],
        [words, 1],
        size,
        null,
        "float32",
      );
      const accepted = matcher.accept_token(token, false);
      return {
        bitmask: [...bitmask.slice(0)],
        logits: [...logits.slice(0)].map((x) => Number.isFinite(x) ? x : null),
        needs,
        accepted,
        terminated: matcher.is_terminated(),
        jump: matcher.is_terminated() ? "" : matcher.find_jump_forward_string(),
      };
    });
    assertEquals(steps.map(({ accepted }) => accepted).indexOf(false), 3);
    assertEquals(steps.at(-1)!.terminated, true);
    using grammar = compiled.grammar();

    const folder = library!.replace(/[/\\][^/\\]*$/, "");
    const child = new Deno.Command(pythonPath(), {
      args: [new URL("xgrammar.py", import.meta.url).pathname, folder],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const request = { vocabulary, schema, end, tokens, logits: likes };
    await ReadableStream.from([JSON.stringify(request)])
      .pipeThrough(new TextEncoderStream()).pipeTo(child.stdin);
    const { success, stdout, stderr } = await child.output();
    assert(success, new TextDecoder().decode(stderr));
    assertEquals(JSON.parse(new TextDecoder().decode(stdout)), {
      steps,
      bytes: Number(compiled.memory_size_bytes()),
      grammar: grammar.to_string(),
      vocabulary: (tokenizer.decoded_vocab() as Uint8Array[]).map((
        b,
      ) => [...b]),
    });
  },
});

Deno.test({
  name: "xgrammar: many matchers at once, forks, roll-backs, and errors",
  ignore,
  fn() {
    const { ffi, type } = open();
    using tokenizer = new (type("TokenizerInfo"))(
      vocabulary,
      0,
      null,
      [end],
      false,
    );
    using compiler = new (type("GrammarCompiler"))(tokenizer, 2, true, -1);
    using compiled = compiler.compile_regex("[ab]+c");
    const Matcher = type("GrammarMatcher");
    using one = new Matcher(compiled, null, false, -1, null);
    assertEquals(one.accept_string("ab", false), true);
    using two = one.fork();
    assertEquals(
      [one.accept_string("c", false), two.accept_string("a", false)],
      [true, true],
    );
    assertEquals([one.is_completed(), two.is_completed()], [true, false]);

    using batch = new (type("BatchGrammarMatcher"))(2);
    const words = Math.ceil(vocabulary.length / 32);
    const bitmask = Tensor.zeros([2, words], "int32");
    batch.batch_fill_next_token_bitmask([one, two], bitmask, null, false);
    const allowed = (row: number): string[] =>
      vocabulary.filter((_, i) => bitmask.get(row, i >> 5) >> (i & 31) & 1);
    assertEquals([allowed(0), allowed(1)], [["<end>"], ["a", "b", "c"]]);

    assertEquals(
      type("BatchGrammarMatcher").batch_accept_token(
        [one, two],
        [end, vocabulary.indexOf("c")],
        false,
      ).map(Boolean),
      [true, true],
    );
    two.rollback(1);
    assertEquals(two.is_completed(), false);
    assertTvmError(() => compiler.compile_regex("[ab"), "InternalError", "");
    assertTvmError(
      () =>
        two.fill_next_token_bitmask(Tensor.zeros([1, 1], "float32"), 0, false),
      "InternalError",
      "",
    );
    assertEquals(ffi.type("xgrammar.tvm_ffi_binding.Nothing"), null);
  },
});

Deno.test("examples/xgrammar.ts writes JSON, or says what to install", async () => {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      new URL("../examples/xgrammar.ts", import.meta.url).href,
    ],
    env: { NO_COLOR: "1" },
  }).output();
  const text = new TextDecoder();
  const out = text.decode(stdout) + text.decode(stderr);
  if (ignore) {
    return assertStringIncludes(out, "pip install --no-deps xgrammar");
  }
  assertEquals(code, 0, out);
  assertStringIncludes(
    out,
    "xgrammar.tvm_ffi_binding.CompiledGrammar {} takes",
  );
  assertStringIncludes(
    out,
    '{"name": "                 may go on with Ada  Grace',
  );
  assert(
    /JSON of the schema: \{ name: "(Ada|Grace)", age: \d+ \}/.test(out),
    out,
  );
});

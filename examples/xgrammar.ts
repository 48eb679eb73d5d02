// XGrammar says which tokens of a language model may come next, so that what the
// model writes is JSON of a schema. Its C++ is called through TVM-FFI: no Python
// in this process, and the bitmask and the logits are tensors of this one.
//
//   pip install apache-tvm-ffi
//   pip install --no-deps xgrammar==0.2.8
//   deno run -A examples/xgrammar.ts
//
// XGRAMMAR_LIBRARY=<path of libxgrammar_bindings> skips the search for it, and
// TVM_FFI_LIBRARY that for libtvm_ffi.

import { addressOf, Tensor } from "@dlpack/deno";
import { TvmFfi } from "@dlpack/deno/tvm_ffi";
import { findLibrary } from "./find_library.ts";

const tvmFfi = findLibrary({
  variable: "TVM_FFI_LIBRARY",
  module: "tvm_ffi",
  name: "tvm_ffi",
});
const xgrammar = findLibrary({
  variable: "XGRAMMAR_LIBRARY",
  module: "xgrammar",
  name: "xgrammar_bindings",
});
if (tvmFfi === null || xgrammar === null) {
  console.error(
    "XGrammar is not installed: pip install apache-tvm-ffi, then " +
      "pip install --no-deps xgrammar==0.2.8",
  );
  Deno.exit(1);
}

using ffi = TvmFfi.open(tvmFfi);
ffi.openLibrary(xgrammar); // registers its types and functions
const prefix = "xgrammar.tvm_ffi_binding";
const TokenizerInfo = ffi.type(`${prefix}.TokenizerInfo`)!;
const GrammarCompiler = ffi.type(`${prefix}.GrammarCompiler`)!;
const GrammarMatcher = ffi.type(`${prefix}.GrammarMatcher`)!;
using applyBitmask = ffi.globalFunction(
  `${prefix}.kernels.apply_token_bitmask_inplace_cpu`,
)!;

// A language model's vocabulary has a hundred thousand tokens; this one has 18.
const vocabulary = [
  ...["<end>", "{", "}", '"', "name", "age", ": ", ", ", "[", "null"],
  ...["Ada", "Grace", " ", "1", "9", "true", "-", "hello"],
];
const end = vocabulary.indexOf("<end>");
const schema = JSON.stringify({
  type: "object",
  properties: {
    name: { enum: ["Ada", "Grace"] },
    age: { type: "integer", minimum: 0, maximum: 150 },
  },
  required: ["name", "age"],
});

// The arguments are those that the Python package passes on.
using tokenizer = new TokenizerInfo(vocabulary, 0, null, [end], false);
using compiler = new GrammarCompiler(tokenizer, 2, true, -1);
using compiled = compiler.compile_json_schema(
  ...[schema, false, null, null, true, null, false],
);
using matcher = new GrammarMatcher(compiled, null, false, -1, null);
console.log(compiled, "takes", compiled.memory_size_bytes(), "bytes");

// A bit for each token, in words of 32.
const bitmask = Tensor.zeros([1, Math.ceil(vocabulary.length / 32)], "int32");
const logits = Tensor.zeros([1, vocabulary.length], "float32");

/** Stands for a model: the token that was just written it likes least. */
function guess(last: number): void {
  logits.assign(Float32Array.from(
    vocabulary,
    (_, token) => token === last ? -9 : Math.cos(3 * token),
  ));
}

let written = "";
for (let last = -1; last !== end;) {
  guess(last);
  matcher.fill_next_token_bitmask(bitmask, 0, false);
  // Sets the logits of forbidden tokens to -Infinity, where they are: the function
  // takes addresses, which nothing keeps.
  using _logits = logits.hold();
  using _bitmask = bitmask.hold();
  applyBitmask(
    addressOf(logits),
    [...logits.shape],
    [...logits.strides],
    addressOf(bitmask),
    [...bitmask.shape],
    [...bitmask.strides],
    vocabulary.length,
    null,
    logits.dtype,
  );

  const scores = [...logits.slice(0)] as number[];
  const allowed = vocabulary.filter((_, token) => scores[token] !== -Infinity);
  last = scores.indexOf(Math.max(...scores));
  console.log(written.padEnd(26), "may go on with", allowed.join("  "));
  if (!matcher.accept_token(last, false)) throw new Error("Not accepted");
  if (last !== end) written += vocabulary[last];
}
console.log("JSON of the schema:", JSON.parse(written));

// A C library with status codes and out-parameters, native/filter.c, wrapped
// in a page of TypeScript: tensors in, tensors out, and errors that are thrown.
// Needs a C compiler.
//
//   deno run -A examples/filter.ts

import { dlopen, fromDlpack, OutCapsule, Tensor } from "@dlpack/deno";
import { compile } from "../tests/native/cc.ts";

// ---- the page ----

const library = dlopen(
  compile(new URL("./native/filter.c", import.meta.url), "filter"),
  {
    filter_message: { parameters: ["i32"], result: "pointer" },
    filter_threshold: { parameters: ["DLTensor*", "f32"], result: "i32" },
    filter_blur: {
      parameters: ["DLTensor*", "i32", "DLManagedTensorVersioned**"],
      result: "i32",
    },
  },
);
const c = library.symbols;

/** What the library's statuses are called here, by number. */
const statuses = ["ok", "not an image", "bad radius", "no memory"] as const;

/** Why a filter failed. */
class FilterError extends Error {
  override readonly name = "FilterError";
  readonly code: typeof statuses[number];

  constructor(status: number) {
    super(Deno.UnsafePointerView.getCString(c.filter_message(status)!));
    this.code = statuses[status]!;
  }
}

function check(status: number): void {
  if (status !== 0) throw new FilterError(status);
}

const out = new OutCapsule();

/** Blurs an image by the mean over `2 * radius + 1` pixels: a new image. */
function blur(image: Tensor, radius: number): Tensor<"float32"> {
  check(c.filter_blur(image, radius, out));
  return fromDlpack(out.take()) as Tensor<"float32">;
}

/** Makes an image black and white, in place. */
function threshold(image: Tensor, level: number): void {
  if (image.readOnly) throw new TypeError("Cannot write to a read-only image");
  check(c.filter_threshold(image, level));
}

// ---- its use ----

const drawing = [
  "..........",
  "..######..",
  "..#....#..",
  "..#....#..",
  "..######..",
  "..........",
];
const image = Tensor.from(
  Float32Array.from(drawing.join(""), (dot) => dot === "#" ? 1 : 0),
  [drawing.length, drawing[0]!.length],
);

function show(image: Tensor<"float32">): void {
  const shades = " .:-=+*#";
  for (const row of image.toArray() as number[][]) {
    console.log(row.map((v) => shades[Math.round(v * 7)]).join(""));
  }
}

console.log("JavaScript's memory, lent to C:");
show(image);

{
  using blurred = blur(image, 1);
  console.log("Blurred, in memory of C:");
  show(blurred);
  threshold(blurred, 0.3);
  console.log("Black and white, in place:");
  show(blurred);

  // Any view will do: C follows the strides.
  using half = blur(image.transpose().slice([null, null, 2]), 0);
  console.log("Transposed, every second row:");
  show(half);
} // C's memory is given back here

for (
  const [bad, radius] of [[image, 99], [image.astype("int32"), 1]] as const
) {
  try {
    blur(bad, radius);
  } catch (error) {
    if (!(error instanceof FilterError)) throw error;
    console.log(`${error.name} "${error.code}": ${error.message}`);
  }
}

library.close();

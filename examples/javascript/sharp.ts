/**
 * Pictures with sharp: a tensor's memory as its input, its output as a tensor.
 *
 *   deno run -A examples/javascript/sharp.ts
 *
 * dtypes: uint8, shape [H, W, 1 | 3 | 4], C order. Other typed arrays are taken for
 * pictures of a wider range and come out darker, or are refused: astype("uint8").
 * Grey comes out as red, green and blue, unless you add .toColourspace("b-w").
 * To be awaited: everything, as sharp reads in threads of its own: `t.during`.
 */

import { Tensor } from "@dlpack/deno";
import sharp, { type Sharp } from "npm:sharp@0.35.5";
import { cZeros } from "../c_memory.ts";

/** A pipeline that reads a tensor: wrap the promise that ends it in `t.during`. */
export function toSharp(t: Tensor): Sharp {
  const [height, width, channels] = t.shape as [number, number, number];
  if (!t.is("uint8") || t.ndim !== 3 || ![1, 3, 4].includes(channels)) {
    throw new TypeError(
      `Not uint8 [H, W, 1 | 3 | 4]: ${t.dtype} [${t.shape.join(", ")}]`,
    );
  }
  if (!t.isContiguous) throw new TypeError("Not in C order: pass t.copy()");
  const pixels = t.data.subarray(t.offset, t.offset + t.size);
  return sharp(pixels, {
    raw: { width, height, channels: channels as 1 | 3 | 4 },
  });
}

/** The pixels that a pipeline ends with: memory of sharp's, not copied. */
export async function fromSharp(
  picture: Sharp,
): Promise<Tensor<"uint8">> {
  const { data, info: { height, width, channels } } = await picture.raw()
    .toBuffer({ resolveWithObject: true });
  const pixels = new Uint8Array(
    data.buffer as ArrayBuffer,
    data.byteOffset,
    data.length,
  );
  return Tensor.from(pixels, [height, width, channels]);
}

if (import.meta.main) {
  using t = cZeros([40, 60, 3], "uint8"); // C's memory
  t.slice(null, [0, 30], 0).assign(255); // the left half is red
  const small = await t.during(fromSharp(toSharp(t).resize(6, 4)));
  console.log("Of the small picture, red:", small.slice(null, null, 0));
  const png = await t.during(toSharp(t).png().toBuffer());
  console.log("And", png.length, "bytes of PNG");
}

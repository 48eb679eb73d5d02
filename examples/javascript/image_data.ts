/**
 * ImageData over the memory of a tensor: for canvases and createImageBitmap.
 *
 *   deno run -A examples/javascript/image_data.ts
 *
 * dtypes: uint8, shape [H, W, 4], C order: red, green, blue, alpha. To be awaited:
 * createImageBitmap, `t.during`. A canvas's putImageData copies at the call, and
 * what getImageData gives is a copy, which goes back by assign().
 */

import { Tensor } from "@dlpack/deno";
import { cZeros } from "../c_memory.ts";

/** The same memory as ImageData. */
export function toImageData(t: Tensor): ImageData {
  const [height = 0, width = 0, channels] = t.shape;
  if (!t.is("uint8") || t.ndim !== 3 || channels !== 4) {
    throw new TypeError(
      `Not uint8 [H, W, 4]: ${t.dtype} [${t.shape.join(", ")}]`,
    );
  }
  if (!t.isContiguous) throw new TypeError("Not in C order: pass t.copy()");
  const { data: { buffer, byteOffset }, offset, size } = t;
  const pixels = new Uint8ClampedArray(buffer, byteOffset + offset, size);
  return new ImageData(pixels, width, height);
}

/** A tensor over the memory of ImageData. */
export function fromImageData(image: ImageData): Tensor<"uint8"> {
  const { data, width, height } = image;
  return Tensor.from(data as Uint8ClampedArray, [height, width, 4]);
}

if (import.meta.main) {
  using t = cZeros([2, 3, 4], "uint8"); // C's memory
  const image = toImageData(t);
  t.slice(0).assign(200);
  console.log("ImageData sees", image.data.slice(0, 4));
  image.data[0] = 7;
  console.log("and C what it writes:", t.get(0, 0, 0));
  const { width, height } = await t.during(createImageBitmap(image));
  console.log("createImageBitmap:", width, "by", height);
}

// An image of Pillow's, looked at by pixels.
//
//   python3 -m venv .venv && . .venv/bin/activate && pip install pillow numpy
//   deno run -A examples/pillow.ts [IMAGE]

import { fromDlpack, Tensor } from "@dlpack/deno";
import { Python } from "@dlpack/deno/python";

const py = Python.open();
py.exec("import numpy as np; from PIL import Image, ImageDraw");

const [file] = Deno.args;
if (file !== undefined) {
  py.exec(`image = Image.open(${JSON.stringify(file)}).convert("RGB")`);
} else {
  py.exec(`
    image = Image.new("RGB", (48, 16), "navy")
    ImageDraw.Draw(image).ellipse((16, 0, 31, 15), fill="gold")
  `);
}

// Rows x columns x channels, by way of NumPy: Pillow hands out its bytes.
using pixels = fromDlpack(py.eval("np.asarray(image)"), { dtype: "uint8" });
const [height, width] = pixels.shape as [number, number, number];
console.log(`An image of ${width} x ${height}`, pixels.shape, pixels.strides);
console.log("Its middle", pixels.slice(height >> 1, width >> 1).toArray());

// Half as large, as text: of every second pixel the mean of the channels.
const shades = " .:-=+*#%@";
const few = pixels.slice([null, null, 2], [null, null, 1]);
for (const row of few.toArray() as number[][][]) {
  console.log(
    row.map(([r, g, b]) => {
      const mean = (r! + g! + b!) / 3;
      return shades[Math.floor(mean / 256 * shades.length)];
    }).join(""),
  );
}

// The other way: pixels that Deno computes become an image.
const ramp = Tensor.zeros([16, 48], "uint8");
ramp.data.forEach((_, i) => ramp.data[i] = i % 48 * 5);
py.set("ramp", ramp, { as: py.eval("np.from_dlpack") });
py.exec(`
  other = Image.fromarray(ramp)
  print("Pillow's is", other.size, other.mode, other.getpixel((47, 0)))
`);

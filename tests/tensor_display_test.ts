// What a tensor shows of itself: to console.log, and in a notebook.

import { fromDlpack, Tensor } from "@dlpack/deno";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Buffer } from "node:buffer";
import { crc32, inflateSync } from "node:zlib";
import { askOracle } from "./parity/python.ts";
import { skipped } from "./skipped.ts";

type Bundle = Record<string, string>;

function display(t: Tensor): Promise<Bundle> {
  const shown = t as unknown as Record<symbol, () => Promise<Bundle>>;
  return shown[Symbol.for("Jupyter.display")]!();
}

const numbers = Tensor.from(new Float32Array([1, 2, 3, 4.5]), [2, 2]);

Deno.test("console.log aligns a tensor inside of objects and arrays", () => {
  assertEquals(
    Deno.inspect({ a: numbers, b: [numbers] }),
    `{
  a: Tensor float32 [2, 2], strides [2, 1], cpu:0
  [[1.  2. ]
   [3.  4.5]],
  b: [
    Tensor float32 [2, 2], strides [2, 1], cpu:0
    [[1.  2. ]
     [3.  4.5]]
  ]
}`,
  );
  const blocks = Tensor.zeros([2, 1, 1], "uint8");
  assertEquals(
    Deno.inspect([blocks]),
    `[
  Tensor uint8 [2, 1, 1], strides [1, 1, 1], cpu:0
  [[[0]]

   [[0]]]
]`,
  );
});

Deno.test("console.log honours the options of Deno.inspect", () => {
  const row = Tensor.from(Uint8Array.from({ length: 30 }, (_, i) => i));
  const elements = (options: Deno.InspectOptions) =>
    Deno.inspect(row, options).split("\n").slice(1);
  assertEquals(elements({ breakLength: 31 }), [
    "[ 0  1  2  3  4  5  6  7",
    "  8  9 10 11 12 13 14 15",
    " 16 17 18 19 20 21 22 23",
    " 24 25 26 27 28 29]",
  ]);
  assertEquals(elements({ breakLength: Infinity }).length, 1);
  assertEquals(elements({ iterableLimit: 29 }), ["[ 0  1  2 ... 27 28 29]"]);
  const large = Tensor.zeros([2000], "uint8");
  assert(Deno.inspect(large).endsWith("[0 0 0 ... 0 0 0]"));
  const all = Deno.inspect(large, { iterableLimit: Infinity });
  assertEquals(all.match(/\b0\b/g)!.length, 2000 + 1); // "cpu:0", too

  const nested = { a: numbers, deeper: { b: numbers } };
  assertEquals(
    Deno.inspect(nested, { depth: 0 }),
    "{ a: [Tensor float32 [2, 2]], deeper: [Object] }",
  );
  assertEquals(Deno.inspect(numbers, { depth: 0 }), Deno.inspect(numbers));
  assertEquals(
    Deno.inspect(large, { colors: true }).split("\n")[1],
    "[" + "\x1b[33m0\x1b[39m ".repeat(3) + "... " +
      "\x1b[33m0\x1b[39m ".repeat(3).trimEnd() + "]",
  );
  assertEquals(
    Deno.inspect([numbers], { depth: 0, colors: true }),
    "[ \x1b[36m[Tensor float32 [2, 2]]\x1b[39m ]",
  );
});

Deno.test("A table has the elements, and the indices at its rim", async () => {
  const matrix = Tensor.from(new Int8Array([1, -2, 3, 4]), [2, 2]);
  assertEquals(await display(matrix), {
    "text/plain": "Tensor int8 [2, 2], strides [2, 1], cpu:0\n" +
      "[[ 1 -2]\n [ 3  4]]",
    "text/html":
      "<div><code>Tensor int8 [2, 2], strides [2, 1], cpu:0</code></div>" +
      '<table style="text-align:right"><thead>' +
      "<tr><th></th><th>0</th><th>1</th></tr></thead><tbody>" +
      "<tr><th>0</th><td>1</td><td>-2</td></tr>" +
      "<tr><th>1</th><td>3</td><td>4</td></tr></tbody></table>",
  });
  const row = await display(Tensor.from(new BigInt64Array([7n, 8n])));
  assertStringIncludes(
    row["text/html"]!,
    "<tr><th>0</th><th>1</th></tr></thead><tbody>" +
      "<tr><td>7</td><td>8</td></tr>",
  );
});

Deno.test("A large table has the ten rows and columns at each end", async () => {
  const data = Int32Array.from({ length: 900 * 50 }, (_, i) => i);
  const html = (await display(Tensor.from(data, [900, 50])))["text/html"]!;
  const rows = [...html.matchAll(/<tr>(.*?)<\/tr>/g)].map(([, row]) =>
    [...row!.matchAll(/<t[dh]>(.*?)<\/t[dh]>/g)].map(([, text]) => text)
  );
  assertEquals(rows.length, 1 + 10 + 1 + 10);
  assertEquals(rows[0]!.slice(9, 13), ["8", "9", "…", "40"]);
  assertEquals(rows[11]!.slice(0, 2), ["⋮", "⋮"]);
  assertEquals(rows[12]![0], "890");
  assertEquals(rows[12]!.at(-1), String(890 * 50 + 49));
});

Deno.test("Of other numbers of axes the text is shown, of none the element", async () => {
  const cube = Tensor.zeros([2, 2, 2], "bool");
  assertStringIncludes(
    (await display(cube))["text/html"]!,
    `<pre>${cube}</pre>`,
  );
  const element = Tensor.from(new Float64Array([1.5]), []);
  assertStringIncludes(
    (await display(element))["text/html"]!,
    "<pre>1.5</pre>",
  );
  const empty = await display(Tensor.zeros([0, 3], "uint8"));
  assertStringIncludes(empty["text/html"]!, "<pre>[]</pre>");
  assertEquals(empty["image/png"], undefined);
});

Deno.test("A tensor that was released shows its head, and that it was", async () => {
  const t = fromDlpack(numbers);
  t[Symbol.dispose]();
  const text = "Tensor float32 [2, 2], strides [2, 1], cpu:0, released";
  assertEquals(await display(t), { "text/plain": text });
});

// ---- Pictures ----

interface Decoded {
  readonly size: readonly [width: number, height: number];
  readonly channels: number;
  readonly pixels: number[];
}

/** Reads a PNG file of 8 bits, and checks all of its sums. */
function decode(base64: string): Decoded {
  const bytes = Buffer.from(base64, "base64");
  assertEquals(bytes.subarray(0, 8).toString("latin1"), "\x89PNG\r\n\x1a\n");
  const chunks = new Map<string, Buffer>();
  for (let at = 8; at < bytes.length;) {
    const length = bytes.readUInt32BE(at);
    const checked = bytes.subarray(at + 4, at + 8 + length);
    assertEquals(bytes.readUInt32BE(at + 8 + length), crc32(checked));
    chunks.set(checked.toString("latin1", 0, 4), checked.subarray(4));
    at += 12 + length;
  }
  assertEquals([...chunks.keys()], ["IHDR", "IDAT", "IEND"]);
  const header = chunks.get("IHDR")!;
  const size = [header.readUInt32BE(0), header.readUInt32BE(4)] as const;
  const [bits, type, ...rest] = header.subarray(8);
  assertEquals([bits, ...rest], [8, 0, 0, 0]);
  const channels = { 0: 1, 2: 3, 4: 2, 6: 4 }[type!]!;
  const raw = inflateSync(chunks.get("IDAT")!);
  const row = size[0] * channels;
  assertEquals(raw.length, size[1] * (row + 1));
  const pixels: number[] = [];
  for (let y = 0; y < size[1]; y++) {
    assertEquals(raw[y * (row + 1)], 2); // the filter "up"
    for (let x = 0; x < row; x++) {
      const above = y === 0 ? 0 : pixels[(y - 1) * row + x]!;
      pixels.push((raw[y * (row + 1) + 1 + x]! + above) & 255);
    }
  }
  return { size, channels, pixels };
}

async function picture(t: Tensor): Promise<Decoded> {
  return decode((await display(t))["image/png"]!);
}

const count = (length: number) => Uint8Array.from({ length }, (_, i) => 9 * i);

Deno.test("uint8 is the picture that it is, whatever its strides", async () => {
  for (const channels of [1, 3, 4]) {
    const data = count(2 * 3 * channels);
    const t = Tensor.from(data, [2, 3, channels]);
    assertEquals(
      await picture(t),
      { size: [3, 2], channels, pixels: [...data] },
    );
    const turned = t.transpose(1, 0, 2).slice([null, null, -1]);
    assertEquals(
      await picture(turned),
      { size: [2, 3], channels, pixels: [...turned.copy().data] },
    );
  }
  const planes = Tensor.from(count(3 * 2 * 5), [3, 2, 5]);
  assertEquals(await picture(planes), {
    size: [5, 2],
    channels: 3,
    pixels: [...planes.transpose(1, 2, 0).copy().data],
  });
  const grey = Tensor.from(count(6), [2, 3]);
  assertEquals((await picture(grey)).pixels, [...count(6)]);
});

Deno.test("What may be numbers as well has them below the picture", async () => {
  const html = async (shape: number[]) =>
    (await display(Tensor.zeros(shape, "float32")))["text/html"]!;
  assertStringIncludes(await html([2, 3]), "<td>0.</td>");
  assertStringIncludes(await html([50, 50]), "<td>…</td>");
  assertStringIncludes(await html([2, 3, 4]), "<pre>[[[0. 0. 0. 0.]");
  assertEquals((await html([50, 50, 3])).includes("<pre>"), false);
});

Deno.test("Deno itself decodes the picture", async () => {
  const { "image/png": base64 } = await display(
    Tensor.from(count(3 * 7 * 5), [3, 7, 5]),
  );
  const file = new Blob([Uint8Array.fromBase64(base64!)], {
    type: "image/png",
  });
  const { width, height } = await createImageBitmap(file);
  assertEquals([width, height], [5, 7]);
});

Deno.test("Of floats the least is black, the greatest white, and NaN transparent", async () => {
  for (const dtype of ["float16", "float32", "float64", "bfloat16"] as const) {
    const t = Tensor.from(new Float64Array([-2, 0, 2, -1]), [2, 2]);
    assertEquals(
      await picture(t.astype(dtype)),
      { size: [2, 2], channels: 1, pixels: [0, 128, 255, 64] },
      dtype,
    );
  }
  const partial = Tensor.from(new Float32Array([NaN, 1, 3, Infinity]), [1, 4]);
  assertEquals(
    await picture(partial),
    { size: [4, 1], channels: 2, pixels: [0, 0, 0, 255, 255, 255, 255, 0] },
  );
  const nothing = Tensor.from(new Float32Array([NaN, NaN]), [1, 2]);
  assertEquals((await picture(nothing)).pixels, [0, 0, 0, 0]);
  const same = Tensor.from(new Float32Array([7, 7]), [1, 2]);
  assertEquals((await picture(same)).pixels, [128, 128]);
});

Deno.test("Floats in colour are from 0 to 1, or from the least to the greatest", async () => {
  const unit = Tensor.from(new Float32Array([0, 0.2, 0.6]), [1, 1, 3]);
  assertEquals((await picture(unit)).pixels, [0, 51, 153]);
  const wide = Tensor.from(new Float32Array([-1, 0, 4]), [1, 1, 3]);
  assertEquals((await picture(wide)).pixels, [0, 51, 255]);
  assertStringIncludes(
    (await display(wide))["text/html"]!,
    "-1 is black, 4 full colour",
  );
  // Alpha is no colour.
  const alpha = Tensor.from(new Float32Array([-1, 0, 4, 0.2]), [1, 1, 4]);
  assertEquals((await picture(alpha)).pixels, [0, 51, 255, 51]);
});

Deno.test("A large picture is shown by fewer rows and columns, and says so", async () => {
  const t = Tensor.zeros([2100, 1100], "uint8");
  t.slice([null, null, 2], [null, null, 2]).assign(200);
  const bundle = await display(t);
  const { size, pixels } = decode(bundle["image/png"]!);
  assertEquals(size, [550, 1050]);
  assert(pixels.every((value) => value === 200));
  assertStringIncludes(bundle["text/html"]!, "1 of 2 rows and columns");
  // One that is long only, and costs nothing to have.
  const long = Tensor.from(new Uint8Array(1), [1_000_000, 1], {
    strides: [0, 0],
  });
  assertEquals((await picture(long)).size[1] <= 4096, true);
});

Deno.test("A picture that does not compress fits into a notebook's message", async () => {
  const data = new Uint8Array(1000 * 1000 * 3);
  let random = 1;
  for (let i = 0; i < data.length; i++) {
    random = Math.imul(random, 1664525) + 1013904223 | 0;
    data[i] = random >>> 24;
  }
  const bundle = await display(Tensor.from(data, [1000, 1000, 3]));
  const { size, pixels } = decode(bundle["image/png"]!);
  assertEquals(size, [500, 500]);
  const row = 2 * 1000 * 3;
  assertEquals(pixels.slice(0, 6), [...data.slice(0, 3), ...data.slice(6, 9)]);
  assertEquals(pixels.slice(1500, 1503), [...data.slice(row, row + 3)]);
  assert(JSON.stringify(bundle).length < 3e6);
});

Deno.test("Other elements are no picture", async () => {
  for (const dtype of ["int8", "bool", "uint16", "complex64"] as const) {
    const bundle = await display(Tensor.zeros([4, 4, 3], dtype));
    assertEquals(Object.keys(bundle), ["text/plain", "text/html"]);
  }
  const bundle = await display(Tensor.zeros([4, 4, 2], "uint8"));
  assertEquals(bundle["image/png"], undefined);
});

// ---- A real kernel ----

Deno.test("Deno's Jupyter kernel shows tensors", async () => {
  const cells = [
    'import { fromDlpack, Tensor } from "@dlpack/deno";' +
    "const t = Tensor.from(new Float32Array([1, 2, 3, 4.5]), [2, 2]); t",
    "fromDlpack(t.copy()).reshape([4])", // as C's memory
    "Tensor.zeros([2, 2, 3], 'uint8')",
    "await Deno.jupyter.display(Tensor.zeros([5], 'int64'))",
    "({ inside: t })",
  ];
  const folder = new URL("../", import.meta.url).pathname;
  const shown = await askOracle<Bundle[]>("../notebook.py", {
    deno: Deno.execPath(),
    folder: Deno.build.os === "windows" ? folder.slice(1) : folder,
    cells,
  });
  if (shown === null) {
    skipped("tensors in a notebook", "pip install jupyter_client");
    return;
  }
  assertEquals(shown[0], await display(numbers));
  assertEquals(shown[1], await display(numbers.reshape([4])));
  assertEquals(decode(shown[2]!["image/png"]!).size, [2, 2]);
  assertEquals(shown[3], await display(Tensor.zeros([5], "int64")));
  assertEquals(shown[4]!["text/plain"], Deno.inspect({ inside: numbers }));
});

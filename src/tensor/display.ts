// How a tensor shows itself in a notebook: what Deno's Jupyter kernel asks for.

import { formatArray, formatCells, type Printable } from "./format.ts";
import { encodePng, type Pixels } from "./png.ts";

/** For each MIME type the text of it; of a picture, base64. */
export type MediaBundle = Record<string, string>;

/** What a tensor has that can be a picture. */
export interface Showable extends Printable {
  /** A part of it, without a copy. */
  slice(...ranges: (null | [null, null, number])[]): Showable;
  /** A copy in C order, as numbers. */
  astype(dtype: "float64"): { readonly data: Float64Array };
}

/** Items of a table at each end of an axis, if they are not too many. */
const EDGE_ITEMS = 10;
/** The same below a picture. */
const EDGE_ITEMS_BELOW = 3;
/** Pictures of more elements than this are shown without numbers. */
const MAX_NUMBERS = 1000;
/** Most pixels of a picture: as many as a screen shows. */
const MAX_PIXELS = 2 ** 20;
/** Most pixels of its longer side. */
const MAX_SIDE = 4096;
/** Most characters of a picture in base64: servers of notebooks drop messages of a few megabytes, and it is there twice. */
const MAX_TEXT = 1_300_000;
/** A picture with fewer pixels on its longer side is magnified. */
const MIN_SIDE = 192;

/**
 * The head, and the elements as a table (of one or two axes) or as text.
 * Pictures, uint8 or floats of shape [H, W], [H, W, 1 | 3 | 4] or [3, H, W], are
 * shown as such. What may be numbers as well, a matrix or something small, has
 * its values below.
 *
 * @param head What is said of the tensor in one line.
 * @param x The tensor; `null` when its elements cannot be read any more.
 */
export async function displayTensor(
  head: string,
  x: Showable | null,
): Promise<MediaBundle> {
  if (x === null) return { "text/plain": head };
  const plain = `${head}\n${formatArray(x)}`;
  const caption = `<div><code>${escape(head)}</code></div>`;
  const layout = pictureLayout(x);
  if (layout === null) {
    return {
      "text/plain": plain,
      "text/html": caption + valuesHtml(x, EDGE_ITEMS),
    };
  }
  // Read before anything is waited for: it may be disposed meanwhile.
  const size = x.shape.reduce((product, extent) => product * extent, 1);
  const values = x.shape.length === 2 || size <= MAX_NUMBERS
    ? valuesHtml(x, EDGE_ITEMS_BELOW)
    : "";
  const picture = await encode(draw(x, layout));
  return {
    "text/plain": plain,
    "text/html": caption + pictureHtml(picture) + values,
    "image/png": picture.png,
  };
}

// ---- Values ----

function valuesHtml(x: Showable, edges: number): string {
  const { length: ndim } = x.shape;
  if (ndim === 0 || ndim > 2 || x.shape.includes(0)) {
    return `<pre>${escape(formatArray(x))}</pre>`;
  }
  const { axes, words } = formatCells(x, edges);
  const [rows, columns] = ndim === 2 ? axes : [[0], ...axes];
  const cell = (name: "td" | "th", text: string | number) =>
    `<${name}>${text}</${name}>`;
  const left = words.values();
  const row = (i: number | null) =>
    `<tr>${ndim === 2 ? cell("th", i ?? "⋮") : ""}` +
    columns!.map((j) =>
      i === null
        ? cell("td", j === null ? "⋱" : "⋮")
        : cell("td", j === null ? "…" : left.next().value!.trim())
    ).join("") + "</tr>";
  const corner = ndim === 2 ? "<th></th>" : "";
  return `<table style="text-align:right"><thead><tr>${corner}${
    columns!.map((j) => cell("th", j ?? "…")).join("")
  }</tr></thead><tbody>${rows!.map(row).join("")}</tbody></table>`;
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

// ---- Pictures ----

/** Which axis is what, in a picture. */
interface PictureLayout {
  readonly height: number;
  readonly width: number;
  readonly channels: 1 | 3 | 4;
  readonly channelsFirst: boolean;
}

/** How a tensor is a picture, or `null` when it is none. */
function pictureLayout({ dtype, shape }: Showable): PictureLayout | null {
  if (!/^(uint8$|b?float)/.test(dtype) || shape.includes(0)) return null;
  const [a = 0, b = 0, c] = shape;
  if (shape.length === 2) {
    return { height: a, width: b, channels: 1, channelsFirst: false };
  }
  if (shape.length !== 3) return null;
  if (c === 1 || c === 3 || c === 4) {
    return { height: a, width: b, channels: c, channelsFirst: false };
  }
  return a === 3
    ? { height: b, width: c!, channels: 3, channelsFirst: true }
    : null;
}

/** Pixels, and what is to be known of them. */
interface Drawing {
  readonly pixels: Pixels;
  /** Rows and columns of the tensor for one of the picture. */
  readonly step: number;
  /** Which values are black and white; "" for uint8. */
  readonly range: string;
}

/** Draws every row and column, or as many as a screen shows. */
function draw(
  x: Showable,
  { height, width, channels, channelsFirst }: PictureLayout,
): Drawing {
  const step = Math.ceil(Math.max(
    Math.sqrt(height * width / MAX_PIXELS),
    Math.max(height, width) / MAX_SIDE,
  ));
  const part: [null, null, number] = [null, null, step];
  const view = channelsFirst ? x.slice(null, part, part) : x.slice(part, part);
  const values = view.astype("float64").data;
  const h = Math.ceil(height / step);
  const w = Math.ceil(width / step);
  const { low, high } = rangeOf(x.dtype, values, channels);
  // What is no number is transparent.
  const isPartial = channels !== 4 && !values.every(Number.isFinite);
  const drawn = (channels + (isPartial ? 1 : 0)) as 1 | 2 | 3 | 4;
  const data = new Uint8ClampedArray(h * w * drawn);
  // From one pixel, and from one channel, to the next.
  const [pixel, channel] = channelsFirst ? [1, h * w] : [channels, 1];
  for (let p = 0, to = 0; p < h * w; p++) {
    let isNumber = true;
    for (let c = 0; c < channels; c++) {
      const value = values[p * pixel + c * channel]!;
      const isAlpha = c === 3;
      const unit = isAlpha && x.dtype !== "uint8"
        ? value
        : (value - low) / (high - low);
      isNumber &&= Number.isFinite(value);
      data[to++] = 255 * unit;
    }
    if (isPartial) data[to++] = isNumber ? 255 : 0;
  }
  return {
    pixels: { width: w, height: h, channels: drawn, data },
    step,
    range: x.dtype === "uint8" ? "" : `${short(low)} is black, ` +
      `${short(high)} ${channels === 1 ? "white" : "full colour"}`,
  };
}

/** The values that are black and white: of floats in colour 0 and 1, unless some lie outside; else the least and the greatest. */
function rangeOf(
  dtype: string,
  values: Float64Array,
  channels: number,
): { low: number; high: number } {
  if (dtype === "uint8") return { low: 0, high: 255 };
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (!Number.isFinite(value) || (channels === 4 && i % 4 === 3)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const isUnit = channels !== 1 && low >= 0 && high <= 1;
  if (isUnit || low > high) return { low: 0, high: 1 };
  // One value everywhere is grey.
  return low === high ? { low: low - 1, high: high + 1 } : { low, high };
}

function short(value: number): string {
  return String(Number(value.toPrecision(4)));
}

/** A picture for a notebook: a PNG file in base64. */
interface Picture extends Drawing {
  readonly png: string;
}

/** Encodes a drawing, or every second row and column of it, until it fits. */
async function encode(drawing: Drawing): Promise<Picture> {
  const png = (await encodePng(drawing.pixels)).toBase64();
  if (png.length <= MAX_TEXT) return { ...drawing, png };
  return encode({
    ...drawing,
    pixels: halve(drawing.pixels),
    step: 2 * drawing.step,
  });
}

function halve({ width, height, channels, data }: Pixels): Pixels {
  const w = Math.ceil(width / 2);
  const h = Math.ceil(height / 2);
  const half = new Uint8Array(w * h * channels);
  for (let y = 0, to = 0; y < h; y++) {
    for (let x = 0; x < w; x++, to += channels) {
      const from = (2 * y * width + 2 * x) * channels;
      for (let c = 0; c < channels; c++) half[to + c] = data[from + c]!;
    }
  }
  return { width: w, height: h, channels, data: half };
}

function pictureHtml({ png, pixels, step, range }: Picture): string {
  const { width, height } = pixels;
  const scale = Math.max(1, Math.floor(MIN_SIDE / Math.max(width, height)));
  const notes = [
    step > 1 ? `1 of ${step} rows and columns` : "",
    range,
  ].filter((note) => note !== "").join("; ");
  return `<img src="data:image/png;base64,${png}" width="${width * scale}" ` +
    `height="${height * scale}" style="image-rendering:pixelated">` +
    (notes === "" ? "" : `<div><small>${notes}</small></div>`);
}

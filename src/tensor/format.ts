// Text of an array as NumPy's str(ndarray) gives it, default print options.

/** What a strided n-dimensional array offers to be printed. */
export interface Printable {
  /** Name of the data type, such as `"float32"`. */
  readonly dtype: string;
  /** Extent of each axis, in elements. */
  readonly shape: readonly number[];
  /**
   * The element at one index per axis: a boolean (bool), number or bigint
   * (integers), number (floats), `{ re, im }` (complex), bigint (handle).
   */
  get(...index: number[]): unknown;
}

/** Most digits after the decimal point of an array's element. */
const PRECISION = 8;
/** Arrays of more elements than this are summarised. */
const THRESHOLD = 1000;
/** Items a summary keeps at each end of an axis, if they are not too many. */
const EDGE_ITEMS = 3;
/** Most elements that a summary shows: with many axes, fewer at each end. */
const SHOWN = 10_000;
/** Columns of a line. */
const LINE_WIDTH = 75;
/** Columns that NumPy leaves free of the 80 that it takes for a terminal's. */
const MARGIN = 5;
/** Stands for the items that a summary leaves out. */
const ELLIPSIS = "...";

/** How the text is laid out: NumPy's `threshold` and `linewidth`. */
export interface PrintOptions {
  /** Arrays of more elements than this are summarised. Default: 1000. */
  readonly threshold?: number;
  /** Columns of a line. Default: 75. */
  readonly width?: number;
}

/**
 * The text that NumPy (2.3 or later) gives as `str()` of the same array.
 *
 * Above the threshold it is a summary, and only the three items at each end of
 * each axis are read. NumPy has no small floats (bfloat16, float8_*, float6_*,
 * float4_*): they print as the float32 of the same value.
 */
export function formatArray(
  x: Printable,
  { threshold = THRESHOLD, width = LINE_WIDTH }: PrintOptions = {},
): string {
  if (x.shape.includes(0)) return "[]";
  if (x.shape.length === 0) return formatScalar(x.get(), x.dtype);
  const size = x.shape.reduce((product, extent) => product * extent, 1);
  const edges = size > threshold ? edgeItems(x.shape) : size;
  if (edges === 0) return `[${ELLIPSIS}]`;
  const axes = x.shape.map((extent) => shownItems(extent, edges));
  const words = formatElements(shownElements(x, axes), x.dtype);
  return layOut(words.values(), axes, " ", width);
}

// ---- As console.log shows it ----

/** What Deno passes to custom inspection: `Deno.InspectOptions`, and where it is. */
export interface InspectContext {
  /** Whether to colour what is shown. */
  readonly colors?: boolean;
  /** The deepest level that is shown. */
  readonly depth?: number | null;
  /** The level of the array: how many objects it lies in. */
  readonly currentDepth?: number;
  /** Spaces before a line of the object that it lies in. */
  readonly indentationLvl?: number;
  /** Columns of a line. */
  readonly breakLength?: number;
  /** Most elements that are shown without a summary; 100: as many as NumPy does. */
  readonly iterableLimit?: number;
}

/** Deno's default for an iterable, which for an array stands for NumPy's. */
const DENO_LIMIT = 100;

/**
 * Text for `console.log`: a head, and the elements on lines below it, aligned
 * also inside of an object.
 *
 * @param name The class's name, which the head begins with.
 * @param head What is said of the array in one line.
 * @param x The array; `null` when its elements cannot be read any more.
 * @param context What Deno passes.
 */
export function inspectArray(
  name: string,
  head: string,
  x: Printable | null,
  context: InspectContext,
): string {
  const { colors, currentDepth = 0, indentationLvl = 0 } = context;
  if (currentDepth > (context.depth ?? Infinity)) {
    return colors ? paint(`[${name}]`, CYAN) : `[${name}]`;
  }
  if (x === null) return head;
  const { breakLength = 80, iterableLimit = DENO_LIMIT } = context;
  const text = formatArray(x, {
    threshold: iterableLimit === DENO_LIMIT ? THRESHOLD : iterableLimit,
    width: breakLength - MARGIN - indentationLvl,
  });
  const elements = colors ? colourWords(text) : text;
  // Not on the empty lines between the blocks of three axes or more.
  return `${head}\n${elements}`.replace(
    /\n(?!\n)/g,
    "\n" + " ".repeat(indentationLvl),
  );
}

function colourWords(text: string): string {
  return text.replace(
    /[^\s[\]]+/g,
    (word) => word === ELLIPSIS ? word : paint(word, YELLOW),
  );
}

/** Deno's colours for what is not shown, and for numbers. */
const CYAN = 36;
const YELLOW = 33;

function paint(text: string, colour: number): string {
  return `\x1b[${colour}m${text}\x1b[39m`;
}

// ---- As a table shows it ----

/** The words at the ends of each axis, and which indices they have. */
export interface Cells {
  /** For each axis; `null` where items are left out. */
  readonly axes: readonly (readonly (number | null)[])[];
  /** In C order, without what is left out; all of one layout. */
  readonly words: readonly string[];
}

/** The words of a table with at most so many items at each end of an axis. */
export function formatCells(x: Printable, edges: number): Cells {
  const axes = x.shape.map((extent) => shownItems(extent, edges));
  const words = x.shape.includes(0)
    ? []
    : formatElements(shownElements(x, axes), x.dtype);
  return { axes, words };
}

// ---- Which elements are shown ----

/** Indices along an axis, in order; null where items are left out. */
type Axis = readonly (number | null)[];

/**
 * How many items to show at each end: NumPy shows three of however many axes,
 * which are 6 ** 18 elements for 18 axes.
 */
function edgeItems(shape: readonly number[]): number {
  let edges = EDGE_ITEMS;
  const shown = (): number =>
    shape.reduce((product, extent) => product * Math.min(extent, 2 * edges), 1);
  while (edges > 0 && shown() > SHOWN) edges--;
  return edges;
}

function shownItems(extent: number, edges: number): Axis {
  if (extent <= 2 * edges) {
    return Array.from({ length: extent }, (_, i) => i);
  }
  const head = Array.from({ length: edges }, (_, i) => i);
  const tail = head.map((i) => extent - edges + i);
  return [...head, null, ...tail];
}

/** The elements at the shown indices, last axis fastest. */
function shownElements(x: Printable, axes: readonly Axis[]): unknown[] {
  const elements: unknown[] = [];
  const index: number[] = [];
  const visit = (depth: number) => {
    const axis = axes[depth];
    if (axis === undefined) {
      elements.push(x.get(...index));
      return;
    }
    for (const i of axis) {
      if (i === null) continue;
      index[depth] = i;
      visit(depth + 1);
    }
  };
  visit(0);
  return elements;
}

// ---- Brackets and lines ----

/** Takes from `words` what the axes show, and puts it in nested brackets. */
function layOut(
  words: Iterator<string>,
  axes: readonly Axis[],
  indent: string,
  width: number,
): string {
  const [axis = [], ...inner] = axes;
  if (inner.length === 0) {
    const row = axis.map((i) => i === null ? ELLIPSIS : next(words));
    return `[${wrap(row, indent, width - 1)}]`;
  }
  const blocks = axis.map((i) =>
    i === null ? ELLIPSIS : layOut(words, inner, indent + " ", width - 1)
  );
  return `[${blocks.join("\n".repeat(inner.length) + indent)}]`;
}

function next(words: Iterator<string>): string {
  const word = words.next();
  if (word.done) throw new RangeError("Fewer words than the axes show");
  return word.value;
}

/** Words on lines of at most `width` columns, all but the first indented. */
function wrap(row: readonly string[], indent: string, width: number): string {
  const lines: string[] = [];
  let line = "";
  for (const word of row) {
    // A line has one space after each word; "" has none, and must take one.
    if (line && indent.length + line.length + word.length > width) {
      lines.push(line.trimEnd());
      line = "";
    }
    line += word + " ";
  }
  lines.push(line.slice(0, -1));
  return lines.join("\n" + indent);
}

// ---- Elements by dtype ----

/** A complex element. */
interface Complex {
  readonly re: number;
  readonly im: number;
}

/** Words of one common layout, for the elements of an array. */
function formatElements(elements: unknown[], dtype: string): string[] {
  const float = floatKind(dtype);
  if (float) return formatFloats(elements as number[], float, false);
  const part = complexPart(dtype);
  if (part) return formatComplexes(elements as Complex[], part);
  const words = elements.map((element) => formatExact(element, dtype));
  // NumPy leaves room for " True" even where no element is False.
  return alignRight(words, dtype === "bool" ? "False".length : 0);
}

/** The word of a 0-d array's element: all its digits, no padding. */
function formatScalar(element: unknown, dtype: string): string {
  const float = floatKind(dtype);
  if (float) return scalarFloat(element as number, float, ".0");
  const part = complexPart(dtype);
  if (part) return scalarComplex(element as Complex, part);
  return formatExact(element, dtype);
}

function formatExact(element: unknown, dtype: string): string {
  if (dtype === "bool") return element ? "True" : "False";
  if (dtype === "handle") return "0x" + (element as bigint).toString(16);
  if (/^u?int\d+$/.test(dtype)) return String(element);
  throw new TypeError(
    `No text for elements of dtype ${JSON.stringify(dtype)}: ` +
      "expected a bool, integer, float, complex or handle dtype",
  );
}

function alignRight(words: readonly string[], least = 0): string[] {
  const width = longest(words, least);
  return words.map((word) => word.padStart(width));
}

function longest(words: readonly string[], least = 0): number {
  return words.reduce((width, word) => Math.max(width, word.length), least);
}

// ---- Floats ----

/** What the text of a binary float depends on. */
interface FloatKind {
  /** Bits of a normal significand, with the implicit one. */
  readonly bits: number;
  /** Exponent of the smallest denormal, a power of two. */
  readonly minExponent: number;
  /** Arrays with an element at or above this use exponents. */
  readonly arrayLimit: number;
  /** Scalars at or above this use an exponent. */
  readonly scalarLimit: number;
  /** Nearest value of this kind. */
  readonly round: (x: number) => number;
}

const FLOAT16: FloatKind = {
  bits: 11,
  minExponent: -24,
  arrayLimit: 1e3,
  scalarLimit: 1e3,
  round: Math.f16round,
};
const FLOAT32: FloatKind = {
  bits: 24,
  minExponent: -149,
  arrayLimit: 1e6,
  scalarLimit: 1e6,
  round: Math.fround,
};
const FLOAT64: FloatKind = {
  bits: 53,
  minExponent: -1074,
  arrayLimit: 1e8,
  scalarLimit: 1e16,
  round: Number,
};

function floatKind(dtype: string): FloatKind | undefined {
  if (dtype === "float16") return FLOAT16;
  if (dtype === "float64") return FLOAT64;
  if (/^(float32$|bfloat16$|float[864]_)/.test(dtype)) return FLOAT32;
  return undefined;
}

/** Kind of the real and imaginary parts. */
function complexPart(dtype: string): FloatKind | undefined {
  if (dtype === "complex32") return FLOAT16;
  if (dtype === "complex64") return FLOAT32;
  if (dtype === "complex128") return FLOAT64;
  return undefined;
}

/** A finite number's text in three parts: `-12`, `5`, `e+03`. */
interface Parts {
  /** Before the point: sign and digits. */
  readonly whole: string;
  /** After the point; no trailing zeros. */
  readonly fraction: string;
  /** Power of ten, or "" in positional text. */
  readonly exponent: string;
}

/** Words with points (and exponents) below each other; `plus` as in +1. */
function formatFloats(
  values: readonly number[],
  kind: FloatKind,
  plus: boolean,
): string[] {
  const finite = values.filter(Number.isFinite);
  const exponential = needsExponent(finite, kind);
  const shortest = (value: number) =>
    exponential
      ? exponentialParts(value, kind, plus, PRECISION, false)
      : positionalParts(value, kind, plus, PRECISION);
  const parts = finite.map(shortest);

  const places = longest(parts.map((part) => part.fraction));
  const exponentWidth = longest(parts.map((part) => part.exponent));
  const right = places + exponentWidth;
  let left = longest(parts.map((part) => part.whole));
  for (const value of values) {
    if (Number.isFinite(value)) continue;
    left = Math.max(left, nonFinite(value, plus).length - (right + 1));
  }

  const written = (value: number) => {
    if (!Number.isFinite(value)) {
      return nonFinite(value, plus).padStart(left + 1 + right);
    }
    if (!exponential) {
      const { whole, fraction } = shortest(value);
      return `${whole.padStart(left)}.${fraction.padEnd(places)}`;
    }
    const { whole, fraction, exponent } = exponentialParts(
      value,
      kind,
      plus,
      places,
      true,
    );
    const power = exponent.slice(2).padStart(exponentWidth - 2, "0");
    return `${whole.padStart(left)}.${fraction.padEnd(places, "0")}` +
      exponent.slice(0, 2) + power;
  };
  return values.map(written);
}

/** NumPy's rule: a value too large, too small, or too wide a range. */
function needsExponent(finite: readonly number[], kind: FloatKind): boolean {
  let min = Infinity;
  let max = 0;
  for (const value of finite) {
    if (value === 0) continue;
    min = Math.min(min, Math.abs(value));
    max = Math.max(max, Math.abs(value));
  }
  // As NumPy does, both comparisons are made in the array's own dtype.
  return max >= kind.arrayLimit || min < kind.round(1e-4) ||
    kind.round(max / min) > 1000;
}

function positionalParts(
  value: number,
  kind: FloatKind,
  plus: boolean,
  places: number,
): Parts {
  const { digits, exponent } = decimal(
    Math.abs(value),
    kind,
    (leading) => leading + 1 + places,
    false,
  );
  const whole = digits.slice(0, Math.max(0, exponent + 1));
  return {
    whole: signOf(value, plus) + (whole.padEnd(exponent + 1, "0") || "0"),
    fraction: "0".repeat(digits ? Math.max(0, -exponent - 1) : 0) +
      digits.slice(whole.length),
    exponent: "",
  };
}

function exponentialParts(
  value: number,
  kind: FloatKind,
  plus: boolean,
  places: number,
  full: boolean,
): Parts {
  const { digits, exponent } = decimal(
    Math.abs(value),
    kind,
    () => 1 + places,
    full,
  );
  const power = String(Math.abs(exponent)).padStart(2, "0");
  return {
    whole: signOf(value, plus) + (digits.slice(0, 1) || "0"),
    fraction: digits.slice(1),
    exponent: (exponent < 0 ? "e-" : "e+") + power,
  };
}

function signOf(value: number, plus: boolean): string {
  return value < 0 || Object.is(value, -0) ? "-" : plus ? "+" : "";
}

function nonFinite(value: number, plus: boolean): string {
  if (Number.isNaN(value)) return plus ? "+nan" : "nan";
  return signOf(value, plus) + "inf";
}

/** One float by itself; `integral` follows a positional whole number. */
function scalarFloat(
  value: number,
  kind: FloatKind,
  integral: "" | ".0",
  plus = false,
): string {
  if (!Number.isFinite(value)) return nonFinite(value, plus);
  const size = Math.abs(value);
  if (size === 0 || (size >= 1e-4 && size < kind.scalarLimit)) {
    const { whole, fraction } = positionalParts(value, kind, plus, Infinity);
    return whole + (fraction ? `.${fraction}` : integral);
  }
  const { whole, fraction, exponent } = exponentialParts(
    value,
    kind,
    plus,
    Infinity,
    false,
  );
  return whole + (fraction ? `.${fraction}` : "") + exponent;
}

// ---- Complex numbers ----

function formatComplexes(
  values: readonly Complex[],
  part: FloatKind,
): string[] {
  const re = formatFloats(values.map((value) => value.re), part, false);
  const im = formatFloats(values.map((value) => value.im), part, true);
  // The j follows the last digit; the padding follows the j.
  return re.map((word, i) => word + im[i]!.replace(/ *$/, "j$&"));
}

function scalarComplex({ re, im }: Complex, part: FloatKind): string {
  if (Object.is(re, 0)) return scalarFloat(im, part, "") + "j";
  const imaginary = scalarFloat(im, part, "", true);
  return `(${scalarFloat(re, part, "")}${imaginary}j)`;
}

// ---- Decimal digits ----

/** The number d.ddd × 10^exponent. */
interface Decimal {
  /** Significant digits, no zeros at either end; "" for zero. */
  readonly digits: string;
  /** Power of ten of the first digit. */
  readonly exponent: number;
}

/**
 * Decimal digits of `value`, which is finite, not negative, and of that kind.
 *
 * Digits are made one by one, exactly, with integers (Steele and White): they
 * end once they tell the value from its neighbours, or as soon as there are
 * `most` of them (a function of the first one's power of ten). With `full`
 * they do not end before. The last one is rounded to nearest, ties to even.
 */
function decimal(
  value: number,
  kind: FloatKind,
  most: (exponent: number) => number,
  full: boolean,
): Decimal {
  if (value === 0) return { digits: "", exponent: 0 };

  // value = significand × 2^unit
  const unit = Math.max(
    binaryExponent(value) - kind.bits + 1,
    kind.minExponent,
  );
  const significand = BigInt(value / 2 ** unit);
  // Of two decimals halfway to a neighbour, the even significand owns both.
  const even = significand % 2n === 0n;
  // Below a power of two the neighbour is half as far.
  const narrow = unit > kind.minExponent &&
    significand === 1n << BigInt(kind.bits - 1);

  // value = rest / one; the halves of the gaps are below / one, above / one.
  let rest = significand * 4n;
  let below = narrow ? 1n : 2n;
  let above = 2n;
  let one = 1n;
  const grow = (factor: bigint) => {
    rest *= factor;
    below *= factor;
    above *= factor;
  };
  const shift = unit - 2;
  if (shift >= 0) grow(1n << BigInt(shift));
  else one <<= BigInt(-shift);

  // Scale by a power of ten so that 1 <= rest / one < 10.
  let exponent = Math.floor(Math.log10(value));
  if (exponent >= 0) one *= 10n ** BigInt(exponent);
  else grow(10n ** BigInt(-exponent));
  if (rest < one) {
    exponent--;
    grow(10n);
  } else if (rest >= one * 10n) {
    exponent++;
    one *= 10n;
  }

  const length = most(exponent);
  let digits = "";
  let downTells: boolean;
  let upTells: boolean;
  while (true) {
    digits += rest / one;
    rest %= one;
    downTells = even ? rest <= below : rest < below;
    upTells = even ? rest + above >= one : rest + above > one;
    if (digits.length >= length) break;
    if (!full && (downTells || upTells)) break;
    grow(10n);
  }

  const twice = rest * 2n;
  const odd = Number(digits.at(-1)) % 2 === 1;
  const nearestIsUp = twice > one || (twice === one && odd);
  const up = downTells === upTells ? nearestIsUp : upTells;
  if (!up) return { digits: digits.replace(/0+$/, ""), exponent };
  const kept = digits.replace(/9+$/, "");
  if (kept === "") return { digits: "1", exponent: exponent + 1 };
  const last = Number(kept.at(-1)) + 1;
  return { digits: kept.slice(0, -1) + last, exponent };
}

/** Largest e with 2^e <= value. */
function binaryExponent(value: number): number {
  const e = Math.floor(Math.log2(value));
  if (2 ** e > value) return e - 1;
  return 2 ** (e + 1) <= value ? e + 1 : e;
}

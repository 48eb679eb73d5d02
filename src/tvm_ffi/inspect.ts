/**
 * What `console.log` shows of objects.
 *
 * @module
 */

/** What Deno passes to custom inspection: its options, and where it is. */
export interface InspectContext extends Deno.InspectOptions {
  /** The level of the object: how many others it lies in. */
  readonly currentDepth?: number;
}

/** Deno's default. */
const LIMIT = 100;

/** The objects that are being shown, from the outermost to the innermost. */
const around: bigint[] = [];

/**
 * The text of an object. It has an end, also where objects refer to each other:
 * each of them is another one to Deno whenever it is read.
 *
 * @param key The name of its type.
 * @param address Where it is.
 * @param show Gives the text, by the levels that may be shown below it.
 */
export function inspectObject(
  key: string,
  address: bigint,
  { depth, currentDepth = 0 }: InspectContext,
  show: (levels: number) => string,
): string {
  const levels = (depth ?? Infinity) - currentDepth;
  if (levels < 0) return `[${key}]`;
  if (around.includes(address)) return "[Circular]";
  around.push(address);
  try {
    return show(levels);
  } finally {
    around.pop();
  }
}

/** How many elements {@linkcode inspectContainer} takes: one more than it shows. */
export function limitOf({ iterableLimit = LIMIT }: InspectContext): number {
  return Math.max(iterableLimit, 0) + 1;
}

/**
 * The text of a container, as that of an array or a Map.
 *
 * @param key The name of its type.
 * @param length How many elements it has.
 * @param text What Deno says of the first {@linkcode limitOf} of them.
 */
export function inspectContainer(
  key: string,
  length: number,
  text: string,
  context: InspectContext,
): string {
  const elements = text.replace(/^Map\(\d+\) /, "");
  const left = length - limitOf(context) + 1;
  const at = left > 1 ? elements.lastIndexOf("... 1 more item") : -1;
  const shown = at < 0
    ? elements
    : elements.slice(0, at) + `... ${left} more items` +
      elements.slice(at + "... 1 more item".length);
  return `${key}(${length}) ${shown}`;
}

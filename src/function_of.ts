/** V8 takes equal texts for one function: those of two copies of this module differ. */
const copy = Math.random();

/**
 * A function made from text.
 *
 * @param names What the text names.
 * @param text Its statements. V8 takes equal texts for one function, and keeps
 * them for good.
 * @returns `null` where code must not be made from strings.
 */
export function functionOf<F>(
  names: readonly string[],
  text: string,
): F | null {
  try {
    return new Function(...names, `// ${copy}\n${text}`) as F;
  } catch (error) {
    // --disallow-code-generation-from-strings, for example.
    if (error instanceof EvalError) return null;
    throw error;
  }
}

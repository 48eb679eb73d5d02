/** What people use for n-d arrays in JavaScript: scijs ndarray, of npm. */
export interface NdArray {
  /** Reads an element. */
  get(...index: number[]): unknown;
  /** Writes one. */
  set(...args: unknown[]): void;
}

/** Makes one over a typed array. */
export type MakeNdArray = (
  data: unknown,
  shape: readonly number[],
  strides: readonly number[],
  offset: number,
) => NdArray;

/** The version that is compared with. */
export const NDARRAY_VERSION = "1.1.1";

/** Gets it from npm, or says on the console why not. */
export async function loadNdArray(): Promise<MakeNdArray | null> {
  try {
    const { default: make } = await import("npm:ndarray@1.1.1") as {
      default: MakeNdArray;
    };
    return make;
  } catch (error) {
    console.warn(`Without scijs ndarray: ${(error as Error).message}`);
    return null;
  }
}

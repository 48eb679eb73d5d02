/** What a {@linkcode PythonError} is made of. */
interface Raised {
  readonly type: string;
  readonly message: string;
  readonly traceback: string;
}

/**
 * Thrown when Python raises an exception. Its message is the last line that
 * Python would print; the whole is in `traceback`.
 *
 * A `BufferError` of Python's that says why an array cannot be exchanged comes
 * as `BufferError` of this module, with the `PythonError` as its cause.
 *
 * @example Catch what Python raises
 * ```ts ignore
 * import { Python, PythonError } from "@dlpack/deno/python";
 *
 * const py = Python.open();
 * try {
 *   py.exec("{}['key']");
 * } catch (error) {
 *   if (!(error instanceof PythonError)) throw error;
 *   console.log(error.type, error.message); // KeyError KeyError: 'key'
 *   console.log(error.traceback);
 * }
 * ```
 */
export class PythonError extends Error {
  /** Always `"PythonError"`. */
  override readonly name = "PythonError";
  /** The exception's class: `"ValueError"`, `"numpy.exceptions.AxisError"`. */
  readonly type: string;
  /**
   * What Python would have printed, its causes included: with the lines of the
   * programs that `exec` and `eval` were given, which are `<exec 1>`, `<eval 2>`, ….
   */
  readonly traceback: string;

  /**
   * An exception of Python's.
   *
   * @param raised The class of the exception, its text, and what Python would
   * print of it.
   */
  constructor({ type, message, traceback }: Raised) {
    super(message === "" ? type : `${type}: ${message}`);
    this.type = type;
    this.traceback = traceback;
  }
}

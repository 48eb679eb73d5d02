import {
  type Interpreter,
  joinInterpreter,
} from "../../ffi/python/interpreter.ts";
import { loadedLibpythons } from "../../ffi/python/loaded.ts";

/** Joins the Python that somebody else has started in this process, if any. */
export function joinPython(): Interpreter | null {
  for (const library of loadedLibpythons()) {
    const joined = joinInterpreter(library);
    if (joined !== null) return joined;
  }
  return null;
}

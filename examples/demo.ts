/**
 * A tour of this module with a small C library, native/field.c: heat that
 * spreads over a plate, handed out as tensors. Without a C compiler, memory of
 * the C library that is always there takes its place.
 *
 * Run it with `deno task demo`.
 */

import { BufferError, fromDlpack, liveTensors } from "@dlpack/deno";
import { compile } from "../tests/native/cc.ts";
import { openCLibrary } from "./demo/c_library.ts";
import { openCompiled } from "./demo/compiled.ts";
import type { PlateLibrary } from "./demo/plate.ts";

const library = openLibrary();

const field = library.create(4, 6);

heading("A tensor from C: a view of the library's own memory");
const plate = fromDlpack(field.tensor());
console.log(plate);
console.log("C pads each row to 16 elements: the view steps over that");

heading("The same memory: JavaScript heats the top row, C reads it");
for (let column = 0; column < 6; column++) plate.set(0, column, 100);
console.log("At row 0, column 5 C reads", field.at(0, 5));

heading("And back: C lets the heat spread, JavaScript sees it");
field.step();
field.step();
console.log(plate);

heading("Transposed by C: other strides, the same memory");
{
  using t = fromDlpack(field.transposed());
  console.log(t);
}

heading("From the bottom row up: a negative stride");
{
  using t = fromDlpack(field.upwards());
  console.log(t);
}

heading("A picture: its red channel, every second column");
{
  using image = fromDlpack(field.image());
  console.log("dtype  ", image.dtype);
  console.log("shape  ", image.shape);
  console.log("strides", image.strides);
  console.log("device ", image.device);
  console.log(image.slice(null, [0, null, 2], 0));
}

heading("A large one is summarised, as NumPy does");
{
  const large = library.create(1000, 1000);
  using t = fromDlpack(large.tensor());
  large.free(); // the tensor keeps the memory
  for (let i = 0; i < 1000; i++) t.set(i, i, i);
  console.log(t);
  console.log("Held for JavaScript now:", liveTensors());
}

heading("A copy stays as it is when C goes on");
const copy = plate.copy();
field.step();
console.log("view", plate.slice(1).toArray());
console.log("copy", copy.slice(1).toArray());

heading("A legacy struct cannot say that it is writable: read-only");
{
  using t = fromDlpack(field.legacy());
  try {
    t.set(0, 0, 20);
  } catch (error) {
    if (!(error instanceof BufferError)) throw error;
    console.log(`${error.name} "${error.code}":\n  ${error.message}`);
  }
}

heading("The memory goes back to C, once for each tensor");
field.free();
console.log("The field is gone, its tensor is not:", plate.get(1, 1));
plate[Symbol.dispose](); // what the end of `using` does
console.log(plate);
console.log("Deleter runs, counted by C:", library.deleted());
console.log("Held for JavaScript now:", liveTensors());
library.close();

heading("Where to look next");
console.log(`Your own C library   examples/your_own_library.md
Any C library        examples/c_libraries.md
JavaScript's arrays  examples/javascript/
NumPy's files        deno run -A examples/npy.ts`);

/** The compiled library, or what takes its place where there is no compiler. */
function openLibrary(): PlateLibrary {
  try {
    const native = new URL("./native/", import.meta.url);
    compile(new URL("matrix.c", native), "matrix"); // for the README's example
    return openCompiled(compile(new URL("field.c", native), "field"));
  } catch (error) {
    const { message } = error as Error;
    if (!message.startsWith("No C compiler found")) throw error;
    console.log(`${message}.

So this is the same tour without one: on memory of the C library, from calloc,
with free as the deleter.`);
    return openCLibrary();
  }
}

function heading(text: string): void {
  console.log(`\n%c${text}`, "font-weight: bold");
}

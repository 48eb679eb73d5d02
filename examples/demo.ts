/**
 * A tour of this module with a small C library, native/field.c: heat that
 * spreads over a plate, handed out as tensors. Needs a C compiler.
 *
 * Run it with `deno task demo`.
 */

import {
  BufferError,
  DlpackCapsule,
  fromDlpack,
  liveTensors,
  type Tensor,
} from "@dlpack/deno";
import { compile } from "../tests/native/cc.ts";

const library = Deno.dlopen(compileLibrary(), {
  field_new: { parameters: ["i32", "i32"], result: "pointer" }, // rows, columns
  field_free: { parameters: ["pointer"], result: "void" },
  field_step: { parameters: ["pointer"], result: "void" },
  field_at: { parameters: ["pointer", "i32", "i32"], result: "f32" },
  // DLManagedTensorVersioned*:
  field_tensor: { parameters: ["pointer"], result: "pointer" },
  field_transposed: { parameters: ["pointer"], result: "pointer" },
  field_upwards: { parameters: ["pointer"], result: "pointer" },
  field_image: { parameters: ["pointer"], result: "pointer" },
  // DLManagedTensor*:
  field_legacy: { parameters: ["pointer"], result: "pointer" },
  field_tensors_deleted: { parameters: [], result: "i32" },
});
const c = library.symbols;

/** The tensor behind a pointer that C returned: a view of C's memory. */
function view(pointer: Deno.PointerValue): Tensor {
  return fromDlpack(new DlpackCapsule(pointer, "dltensor_versioned"));
}

const field = c.field_new(4, 6);

heading("A tensor from C: a view of the library's own memory");
const plate = view(c.field_tensor(field));
console.log(plate);
console.log("C pads each row to 16 elements: the view steps over that");

heading("The same memory: JavaScript heats the top row, C reads it");
for (let column = 0; column < 6; column++) plate.set(0, column, 100);
console.log("field_at(field, 0, 5) in C gives", c.field_at(field, 0, 5));

heading("And back: C lets the heat spread, JavaScript sees it");
c.field_step(field);
c.field_step(field);
console.log(plate);

heading("Transposed by C: other strides, the same memory");
{
  using t = view(c.field_transposed(field));
  console.log(t);
}

heading("From the bottom row up: a negative stride");
{
  using t = view(c.field_upwards(field));
  console.log(t);
}

heading("A picture: its red channel, every second column");
{
  using image = view(c.field_image(field));
  console.log("dtype  ", image.dtype);
  console.log("shape  ", image.shape);
  console.log("strides", image.strides);
  console.log("device ", image.device);
  console.log(image.slice(null, [0, null, 2], 0));
}

heading("A large one is summarised, as NumPy does");
{
  const large = c.field_new(1000, 1000);
  using t = view(c.field_tensor(large));
  c.field_free(large); // the tensor keeps the memory
  for (let i = 0; i < 1000; i++) t.set(i, i, i);
  console.log(t);
  console.log("Held for JavaScript now:", liveTensors());
}

heading("A copy stays as it is when C goes on");
const copy = plate.copy();
c.field_step(field);
console.log("view", plate.slice(1).toArray());
console.log("copy", copy.slice(1).toArray());

heading("A legacy struct cannot say that it is writable: read-only");
{
  using t = fromDlpack(new DlpackCapsule(c.field_legacy(field), "dltensor"));
  try {
    t.set(0, 0, 20);
  } catch (error) {
    if (!(error instanceof BufferError)) throw error;
    console.log(`${error.name} "${error.code}":\n  ${error.message}`);
  }
}

heading("The memory goes back to C, once for each tensor");
c.field_free(field);
console.log("The field is gone, its tensor is not:", plate.get(1, 1));
plate[Symbol.dispose](); // what the end of `using` does
console.log(plate);
console.log("Deleter runs, counted by C:", c.field_tensors_deleted());
console.log("Held for JavaScript now:", liveTensors());
library.close();

/** The compiled library; ends here, with advice, where there is no compiler. */
function compileLibrary(): URL {
  try {
    return compile(new URL("./native/field.c", import.meta.url), "field");
  } catch (error) {
    console.error((error as Error).message);
    Deno.exit(1);
  }
}

function heading(text: string): void {
  console.log(`\n%c${text}`, "font-weight: bold");
}

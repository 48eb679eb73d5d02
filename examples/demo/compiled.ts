import { dlopen } from "@dlpack/deno";
import type { PlateLibrary } from "./plate.ts";

/** The library that was compiled from ../native/field.c. */
export function openCompiled(path: URL): PlateLibrary {
  const tensor = {
    parameters: ["pointer"],
    result: "DLManagedTensorVersioned*",
  } as const;
  const library = dlopen(path, {
    field_new: { parameters: ["i32", "i32"], result: "pointer" }, // rows, columns
    field_free: { parameters: ["pointer"], result: "void" },
    field_step: { parameters: ["pointer"], result: "void" },
    field_at: { parameters: ["pointer", "i32", "i32"], result: "f32" },
    field_tensor: tensor,
    field_transposed: tensor,
    field_upwards: tensor,
    field_image: tensor,
    field_legacy: { parameters: ["pointer"], result: "DLManagedTensor*" },
    field_tensors_deleted: { parameters: [], result: "i32" },
  });
  const c = library.symbols;
  return {
    create(rows, columns) {
      const field = c.field_new(rows, columns);
      return {
        tensor: () => c.field_tensor(field)!,
        transposed: () => c.field_transposed(field)!,
        upwards: () => c.field_upwards(field)!,
        image: () => c.field_image(field)!,
        legacy: () => c.field_legacy(field)!,
        at: (row, column) => c.field_at(field, row, column),
        step: () => c.field_step(field),
        free: () => c.field_free(field),
      };
    },
    deleted: () => c.field_tensors_deleted(),
    close: () => library.close(),
  };
}

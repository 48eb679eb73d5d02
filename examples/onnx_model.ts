// The smallest models of ONNX, in protobuf: c = operator(a, b).

/** A message: the numbers of its fields, and what is in them. */
function message(
  ...fields: [field: number, value: number | string | Uint8Array][]
): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder();
  return new Uint8Array(fields.flatMap(([field, value]) => {
    if (typeof value === "number") return [field << 3, value];
    const content = typeof value === "string" ? text.encode(value) : value;
    return [field << 3 | 2, content.length, ...content]; // all below 128
  }));
}

/**
 * A model of one operator.
 *
 * @param operator Its name in ONNX: `"MatMul"`, `"Add"`, …
 * @param elementType ONNX's number of the elements' type; 1 is float32.
 * @returns The content of a .onnx file. `a`, `b` and `c` have two axes each, of
 * any lengths.
 */
export function onnxModel(
  operator: string,
  elementType: number,
): Uint8Array<ArrayBuffer> {
  const shape = message([1, message()], [1, message()]);
  const tensor = message([1, elementType], [2, shape]);
  const matrix = (name: string) =>
    message([1, name], [2, message([1, tensor])]);
  const graph = message(
    [1, message([1, "a"], [1, "b"], [2, "c"], [4, operator])],
    [2, "one operator"],
    [11, matrix("a")],
    [11, matrix("b")],
    [12, matrix("c")],
  );
  const irVersion = 8;
  const operators = message([2, 13]); // version 13 of ONNX's own
  return message([1, irVersion], [7, graph], [8, operators]);
}

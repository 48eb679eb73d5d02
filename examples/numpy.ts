// Matrix algebra with NumPy, on memory of Deno's.
//
//   python3 -m venv .venv && . .venv/bin/activate && pip install numpy
//   deno run -A examples/numpy.ts

import { fromDlpack, Tensor } from "@dlpack/deno";
import { Python } from "@dlpack/deno/python";

const py = Python.open(); // of the active environment, or the first on PATH
py.exec("import numpy as np");

// Twelve months of two shops: NumPy sees this very buffer.
const sales = Float64Array.from({ length: 24 }, (_, i) => 100 + 7 * i % 31);
py.set("x", Tensor.from(sales, [12, 2]));
py.exec(`
  x = np.from_dlpack(x)
  months = np.stack([np.ones(12), np.arange(12)], axis=1)
  trend, *_ = np.linalg.lstsq(months, x, rcond=None)
`);

// And Deno sees NumPy's: a fit, and its transpose, are views.
using trend = fromDlpack(py.eval("trend"), { dtype: "float64" });
using shops = fromDlpack(py.eval("x.T"), { dtype: "float64" });
console.log("Start and growth of each shop", trend);
console.log("Shops have strides", shops.strides, shops.slice(null, [0, 4]));

// What one side writes, the other one reads.
sales[0] = 1000;
console.log("NumPy sees", String(py.eval("x[0]")));
py.exec("x *= 2");
console.log("Deno sees", sales[0], shops.get(0, 0));

// What Python forgets stays, while Deno has a view of it.
py.exec("del trend, x");
console.log("Deleted in Python, still", trend.get(0, 1).toFixed(2), "here");

// What DLPack cannot say is refused, and what Python raises is thrown.
for (const expression of ["np.array(['text'])", "np.zeros(3) @ np.zeros(4)"]) {
  try {
    fromDlpack(py.eval(expression));
  } catch (error) {
    console.log((error as Error).name, (error as Error).message);
  }
}

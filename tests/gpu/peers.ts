/** Tensors of PyTorch and CuPy: all dtypes and layouts, both ways. */

import { fromDlpack, fromDlpackAsync, type Tensor } from "@dlpack/deno";
import { second } from "./libraries.ts";
import type { Python } from "./python.ts";
import { head, row, same } from "./table.ts";

const cpu = { device: "cpu" } as const;

async function digest(t: Tensor): Promise<string> {
  const hash = await crypto.subtle.digest("SHA-256", t.copy().bytes);
  return new Uint8Array(hash).toHex();
}

/** Both functions copy what the library itself copies to the host. */
async function check(py: Python, x: string, dtype?: string): Promise<string> {
  const expected = py.ask(`digest(${x})`);
  const shape = JSON.parse(py.ask(`list((${x}).shape)`));
  for (const load of [fromDlpack, fromDlpackAsync] as const) {
    const t: Tensor = await load(py.give(x), cpu);
    same(t.shape, shape);
    if (dtype !== undefined) same(t.dtype, dtype);
    same(await digest(t), expected);
  }
  return "ok";
}

const layouts = [
  "x",
  "x[1:, 2]",
  "x[..., ::3]",
  "x[:, 1:3]",
  "x[::2, :, 1:]",
  "x[2, 3, 1]",
  "x[:0]",
  "large[:, :512]",
];

/** Prints the table of PyTorch's. */
export async function testTorch(py: Python): Promise<void> {
  if (!py.has("torch")) return console.log("\nNo PyTorch with CUDA");
  py.run(`
def digest(x):
    dense = x.cpu().contiguous().clone().reshape(-1)
    if dense.is_complex(): dense = torch.view_as_real(dense).reshape(-1)
    return hashlib.sha256(dense.view(torch.uint8).numpy().tobytes()).hexdigest()
def random(dtype):
    raw = torch.randint(0, 256, (5 * 7 * 16 * dtype.itemsize,), dtype=torch.uint8)
    if dtype == torch.bool: raw &= 1
    return raw.cuda().view(dtype).reshape(5, 7, 16)
x = random(torch.float32)
large = torch.arange(1 << 24, dtype=torch.int32, device="cuda").reshape(1 << 14, 1 << 10)
`);
  head(`PyTorch ${py.ask("torch.__version__")}, by dtype: strided`);
  const dtypes = "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 " +
    "float16 bfloat16 float32 float64 complex32 complex64 complex128 " +
    "float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu";
  for (const dtype of dtypes.split(" ")) {
    await row(dtype, async () => {
      py.run(`y = random(torch.${dtype}).transpose(0, 2)[1:, ::2]`);
      const refusal = refusalOf(py, "y");
      return refusal ?? await check(py, "y", dtype);
    });
  }
  head("by layout");
  for (
    const layout of [...layouts, "x.permute(2, 0, 1)", "x[:1].expand(3, 7, 16)"]
  ) {
    await row(layout, () => check(py, layout));
  }
  head("with PyTorch: streams, kinds of memory, other libraries");
  await row("written on a side stream", () => {
    py.run(`
side = torch.cuda.Stream()
with torch.cuda.stream(side):
    z = torch.zeros(1 << 24, dtype=torch.uint8, device="cuda")
    for i in range(60): z.fill_(i)
    z.fill_(77)
`);
    const t = fromDlpack(py.give("z"), cpu);
    if ((t.data as Uint8Array).some((byte) => byte !== 77)) {
      throw new Error("came too early");
    }
  });
  await row("pinned memory, viewed", () => {
    py.run("p = torch.arange(6, dtype=torch.float32).pin_memory()");
    using t = fromDlpack(py.give("p"));
    same(t.toArray(), [0, 1, 2, 3, 4, 5]);
    return `ok, on ${t.device.type}`;
  });
  await row("the reference goes when the tensor does", () => {
    py.run(
      "held = torch.zeros(1 << 20, device='cuda'); torch.cuda.synchronize()",
    );
    const before = Number(py.ask("torch.cuda.memory_allocated()"));
    const kept = py.give("held");
    py.run("del held");
    same(Number(py.ask("torch.cuda.memory_allocated()")), before);
    fromDlpack(kept, cpu);
    same(Number(py.ask("torch.cuda.memory_allocated()")), before - (4 << 20));
  });
  await row("lent to a C library, which copies on the GPU", () => {
    py.run(
      "c = torch.arange(6, dtype=torch.int32, device='cuda').reshape(2, 3)",
    );
    const lent = py.give("c");
    const copy = second.cl_copy(lent)!;
    py.run("c += 100; torch.cuda.synchronize()");
    same(fromDlpack(copy, cpu).toArray(), [[0, 1, 2], [3, 4, 5]]);
    same(fromDlpack(lent, cpu).toArray(), [[100, 101, 102], [103, 104, 105]]);
  });
  await row("a C library's, taken over by PyTorch", () => {
    py.run(
      "c = torch.arange(6, dtype=torch.int32, device='cuda').reshape(2, 3)",
    );
    const copy = second.cl_copy(py.give("c"))!;
    const before = second.cl_deleted();
    py.set("theirs", copy);
    py.run("d = torch.from_dlpack(theirs)");
    same(py.ask("(d * 2).tolist()"), "[[0, 2, 4], [6, 8, 10]]");
    same(second.cl_deleted() - before, 0n);
    py.run("del d, theirs");
    py.run("pass"); // JavaScript looks at its next call what is over
    same(second.cl_deleted() - before, 1n);
  });
}

/** Prints the table of CuPy's. */
export async function testCupy(py: Python): Promise<void> {
  if (!py.has("cupy")) return console.log("\nNo CuPy");
  py.run(`
def digest(x): return hashlib.sha256(cupy.ascontiguousarray(x).get().tobytes()).hexdigest()
def random(dtype):
    dtype = cupy.dtype(dtype)
    raw = cupy.random.randint(0, 256, 5 * 7 * 16 * dtype.itemsize).astype("uint8")
    if dtype == bool: raw &= 1
    return raw.view(dtype).reshape(5, 7, 16)
x = random("float32")
large = cupy.arange(1 << 24, dtype="int32").reshape(1 << 14, 1 << 10)
`);
  head(`CuPy ${py.ask("cupy.__version__")}, by dtype: strided`);
  const dtypes = "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 " +
    "float16 float32 float64 complex64 complex128";
  for (const dtype of dtypes.split(" ")) {
    await row(dtype, async () => {
      py.run(`y = random("${dtype}").transpose(2, 1, 0)[1:, ::2]`);
      return refusalOf(py, "y") ?? await check(py, "y", dtype);
    });
  }
  head("by layout");
  for (const layout of [...layouts, "x.T"]) {
    await row(layout, () => check(py, layout));
  }
  head("with CuPy: negative strides, managed memory, on to PyTorch");
  await row(
    "x[::-1, :, ::-2], whose strides CuPy 14.2 divides unsigned",
    () => {
      let told = "";
      try {
        same(fromDlpack(py.give("x[::-1, :, ::-2]"), cpu).shape, [5, 7, 8]);
      } catch (error) {
        told = `${(error as Error).message}`;
        if (!told.includes("have it copy the array")) throw error;
      }
      return told === "" ? "ok" : "ok, refused";
    },
  );
  await row("managed memory, viewed when the GPU is done", () => {
    py.run(`
m = cupy.ndarray((1 << 20,), "uint8", memptr=cupy.cuda.malloc_managed(1 << 20))
stream = cupy.cuda.Stream(non_blocking=True)
with stream:
    for i in range(200): m.fill(i)
    m.fill(55)
`);
    using t = fromDlpack(py.give("m"));
    same((t.data as Uint8Array).every((byte) => byte === 55), true);
    return `ok, on ${t.device.type}`;
  });
  await row("taken over by PyTorch, without the host", () => {
    py.run("e = cupy.arange(6, dtype='float32').reshape(2, 3)");
    const capsule = py.give("e");
    same([capsule.device, capsule.dtype], [{ type: "cuda", id: 0 }, "float32"]);
    py.set("theirs", capsule);
    py.run("f = torch.from_dlpack(theirs); f[0, 0] = 42");
    py.run("torch.cuda.synchronize()");
    same(py.ask("e.tolist()"), "[[42.0, 1.0, 2.0], [3.0, 4.0, 5.0]]");
  });
}

/** What the library says where it does not export a tensor. */
function refusalOf(py: Python, x: string): string | null {
  try {
    py.give(x)[Symbol.dispose]();
    return null;
  } catch (error) {
    return `not exported: ${(error as Error).message}`;
  }
}

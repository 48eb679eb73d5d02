import {
  BufferError,
  type BufferErrorCode,
  DeviceType,
  DlpackCapsule,
  type DlpackExporter,
  type DlpackRequest,
  fromDlpack,
  type FromDlpackOptions,
  liveTensors,
  type Tensor,
} from "@dlpack/deno";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { deviceName, isHost } from "../src/device.ts";
import { dtypeByCode } from "../src/dtype/table.ts";
import {
  assertBufferError,
  capsule,
  deletions,
  floats,
  importFixture,
  runScript,
  testBothPaths,
} from "./helpers.ts";
import { counts, fixture, type FixtureSpec, make } from "./native/fixture.ts";

const huge = 2 ** 53 - 1;
const beyond = 2n ** 53n;

/** What is wrong with a struct, and what comes of it. */
const refusals: readonly [
  name: string,
  changes: Partial<FixtureSpec>,
  code: BufferErrorCode,
  message: string,
][] = [
  ["major 2", { version: [2, 0] }, "version", "DLPack 2.0"],
  [
    "a huge minor of major 3",
    { version: [3, 2 ** 31] },
    "version",
    "DLPack 3.",
  ],
  ["major 255", { version: [255, 1] }, "version", "DLPack 255.1"],
  ["ndim -1", { ndim: -1 }, "shape", "-1 axes"],
  ["ndim 65", { ndim: 65 }, "shape", "65 axes: 0 to 64"],
  ["ndim 2^31 - 1", { ndim: 2 ** 31 - 1 }, "shape", "2147483647 axes"],
  [
    "64 axes and lanes",
    { shape: Array(64).fill(1), dtype: [1, 8, 2] },
    "shape",
    "64 axes and one of 2 lanes",
  ],
  ["device 0", { device: [0, 0] }, "device", "device type 0"],
  ["device 5", { device: [5, 0] }, "device", "device type 5"],
  ["device -1", { device: [-1, 0] }, "device", "device type -1"],
  ["device 99", { device: [99, 0] }, "device", "device type 99"],
  ["lanes 0", { dtype: [2, 32, 0] }, "dtype", "0 lanes"],
  ["bool of 1 bit", { dtype: [6, 1, 1] }, "dtype", "bool (code 6), 1 bit,"],
  ["int128", { dtype: [0, 128, 1] }, "dtype", "int (code 0), 128 bits"],
  ["float80", { dtype: [2, 80, 1] }, "dtype", "float (code 2), 80 bits"],
  ["0 bits", { dtype: [1, 0, 1] }, "dtype", "uint (code 1), 0 bits"],
  ["code 200", { dtype: [200, 8, 1] }, "dtype", "unknown (code 200)"],
  ["bcomplex", { dtype: [18, 32, 1] }, "dtype", "bcomplex (code 18)"],
  ["float4 of 8 bits", { dtype: [17, 8, 1] }, "dtype", "float4_e2m1fn"],
  ["int4x3", { dtype: [0, 4, 3] }, "dtype", "12 bits do not end on a byte"],
  ["NULL shape", { ndim: 2, shape: null }, "shape", "shape is NULL"],
  ["a negative length", { shape: [2, -3] }, "shape", "[2, -3]"],
  ["an unsafe length", { shape: [1, beyond] }, "shape", "overflows"],
  ["the smallest length", { shape: [-(2n ** 63n)] }, "shape", "negative"],
  [
    "a size that overflows",
    { shape: [2 ** 27, 2 ** 27] },
    "shape",
    "overflows",
  ],
  ["bytes that overflow", { shape: [2 ** 52] }, "shape", "overflows"],
  ["more than an address", { shape: [2 ** 47] }, "shape", "address space"],
  [
    "an empty tensor's lengths",
    { shape: [0, huge, huge] },
    "shape",
    "overflows",
  ],
  [
    "lanes that overflow",
    { shape: [2 ** 48], dtype: [2, 8, 32] },
    "dtype",
    "8 bits",
  ],
  [
    "lanes that overflow in size",
    { shape: [2 ** 40], dtype: [1, 8, 2 ** 14] },
    "shape",
    "overflows",
  ],
  [
    "an unsafe stride",
    { shape: [2, 3], strides: [beyond, 1] },
    "shape",
    "strides [9007199254740992, 1]",
  ],
  [
    "a negative stride that was divided unsigned",
    { shape: [2, 3], strides: [3, (2n ** 64n - 4n) / 4n] },
    "shape",
    "they overflow; CuPy up to 14.2 writes negative strides so",
  ],
  [
    "a reach that overflows",
    { shape: [3, 3], strides: [huge, huge] },
    "shape",
    "beyond the address space",
  ],
  [
    "a reach below address 0",
    { shape: [2], strides: [-(2 ** 48)] },
    "shape",
    "beyond the address space",
  ],
  [
    "a byte offset that wraps around",
    { shape: [2], byteOffset: 2n ** 63n },
    "shape",
    "beyond the address space",
  ],
  ["NULL data", { nullData: true }, "data", "data is NULL"],
  ["NULL data of no axes", { shape: [], nullData: true }, "data", "NULL"],
];

testBothPaths(
  "fromDlpack() refuses a struct and calls its deleter once",
  async (t) => {
    for (const [name, changes, code, message] of refusals) {
      await t.step(name, () => {
        for (const versioned of [true, false]) {
          if (!versioned && changes.version !== undefined) continue;
          for (const copy of [null, true, false]) {
            const before = liveTensors();
            const deleted = deletions(() => {
              const c = capsule({ ...floats([2, 3]), ...changes, versioned });
              assertBufferError(() => fromDlpack(c, { copy }), code, message);
              assertEquals(c.name.slice(0, 5), "used_");
              c[Symbol.dispose]();
            });
            assertEquals(deleted, 1);
            assertEquals(liveTensors(), before);
          }
        }
      });
    }
  },
);

Deno.test("fromDlpack() checks in the order of the design", () => {
  // All is wrong; each round mends the first wrong thing.
  const spec: FixtureSpec = {
    ...floats([2, 3]),
    version: [2, 0],
    ndim: 65,
    device: [99, 0],
    dtype: [200, 8, 0],
    shape: null,
    nullData: true,
  };
  const mends: readonly [BufferErrorCode, Partial<FixtureSpec>][] = [
    ["version", { version: [1, 0] }],
    ["shape", { ndim: 2 }],
    ["device", { device: [2, 0] }],
    ["dtype", { dtype: [200, 8, 1] }],
    ["dtype", { dtype: [2, 32, 1] }],
    ["shape", { shape: [2, -1] }],
    ["shape", { shape: [2, 3] }],
    ["data", { nullData: false }],
    ["device", { device: [1, 0] }],
  ];
  let next = spec;
  for (const [code, mend] of mends) {
    using there = capsule(next);
    // At last only the option is wrong: then the capsule stays as it was.
    const isRefused = "device" in mend && mend.device![0] === 1;
    assertEquals(
      deletions(() => assertBufferError(() => fromDlpack(there), code)),
      isRefused ? 0 : 1,
    );
    next = { ...next, ...mend };
  }
  using t = importFixture(next);
  assertEquals(t.shape, [2, 3]);
});

testBothPaths("fromDlpack() takes what is odd but sound", async (t) => {
  const sound: readonly [string, Partial<FixtureSpec>][] = [
    ["minor 99", { version: [1, 99] }],
    ["a huge minor", { version: [1, 2 ** 32 - 1] }],
    ["unknown flags", { flags: 2n ** 63n + 8n }],
    ["cpu:5", { device: [1, 5] }],
    ["cpu:-1", { device: [1, -1] }],
    ["NULL strides", { strides: null }],
    ["any stride of a length 1", {
      shape: [1, 2, 3, 1],
      strides: [-(2n ** 63n), 3, 1, 2n ** 62n],
    }],
    ["no deleter", { deleter: "null" }],
  ];
  for (const [name, changes] of sound) {
    await t.step(name, () => {
      using t = importFixture({ ...floats([2, 3]), ...changes });
      assertEquals(t.toArray()?.toString(), "0,1,2,3,4,5");
      assert(t.strides.every(Number.isSafeInteger));
    });
  }
});

Deno.test("What one struct says is not taken for what the next one says", () => {
  const alike: readonly Partial<FixtureSpec>[] = [
    {},
    { version: [1, 0] },
    { versioned: false },
    { flags: 1 },
    { flags: 2 },
    { flags: 4 },
    { device: [3, 0] },
    { device: [1, 1] },
    { device: [2, 0] },
    { dtype: [0, 32, 1] },
    { dtype: [4, 16, 1] },
    { dtype: [1, 8, 4] },
    { dtype: [1, 1, 1], versioned: false },
    { dtype: [1, 1, 1] },
    { dtype: [0, 4, 1] },
    { dtype: [0, 4, 1], flags: 4 },
    { shape: [3, 2] },
    { shape: [2, 1] },
    { shape: [6], ndim: 1 },
    { shape: [], ndim: 0 },
    { strides: [1, 2] },
    { strides: [3, 1] },
    { strides: [0, -1], origin: 8 },
    { origin: 4, shape: [1, 3] },
    { byteOffset: 4, shape: [1, 3] },
    { shape: [0, 3] },
    ...refusals.map(([, changes]) => changes),
  ];
  const outcomeOf = (changes: Partial<FixtureSpec>): unknown => {
    try {
      using c = capsule({ ...floats([2, 3]), ...changes });
      using t = fromDlpack(c);
      const { dtype, shape, strides, offset, readOnly, device } = t;
      return [dtype, shape, strides, offset, readOnly, device, t.toArray()];
    } catch (error) {
      assert(error instanceof BufferError, `${error}`);
      return error.message.replace(/0x[0-9a-f]+/g, "0x");
    }
  };
  const other = { ...floats([7]), dtype: [1, 8, 1], shape: [7] } as const;
  const alone = alike.map((changes) => {
    outcomeOf(other);
    return outcomeOf(changes);
  });
  assert(new Set(alone.map((outcome) => JSON.stringify(outcome))).size > 50);
  for (const before of alike) {
    alike.forEach((changes, i) => {
      outcomeOf(before);
      assertEquals(outcomeOf(changes), alone[i]);
      assertEquals(outcomeOf(changes), alone[i]);
    });
  }
});

/** What {@linkcode writeStruct} is told. */
interface Addresses {
  readonly data: bigint;
  readonly shape: bigint;
  readonly strides: bigint;
}

/** Writes a versioned struct of a float32 tensor, without a deleter. */
function writeStruct(
  into: DataView,
  ndim: number,
  { data, shape, strides }: Addresses,
): void {
  for (let i = 0; i < 80; i++) into.setUint8(i, 0);
  into.setUint32(0, 1, true);
  into.setBigUint64(32, data, true);
  into.setInt32(40, 1, true);
  into.setInt32(48, ndim, true);
  into.setUint8(52, 2);
  into.setUint8(53, 32);
  into.setUint16(54, 1, true);
  into.setBigUint64(56, shape, true);
  into.setBigUint64(64, strides, true);
}

/** Imports the struct at an address. */
function importAt(address: bigint): Tensor {
  const pointer = Deno.UnsafePointer.create(address)!;
  return fromDlpack(new DlpackCapsule(pointer, "dltensor_versioned"));
}

/** The address of numbers, each of which is its index. */
function addressOfNumbers(count: number): [bigint, Float32Array<ArrayBuffer>] {
  const numbers = Float32Array.from({ length: count }, (_, i) => i);
  return [Deno.UnsafePointer.value(Deno.UnsafePointer.of(numbers)), numbers];
}

/** The bytes at an address. */
function bytesAt(address: bigint, length: number): ArrayBuffer {
  const pointer = Deno.UnsafePointer.create(address)!;
  return Deno.UnsafePointerView.getArrayBuffer(pointer, length);
}

testBothPaths("Lengths and strides are read wherever they lie", () => {
  // Two pages, between two that nobody may read.
  const pages = 8192;
  const memory = make({ dtype: [1, 8, 1], nbytes: pages, deleter: "null" });
  const start = fixture.fx_data_address(memory);
  const bytes = bytesAt(start, pages);
  const words = new BigInt64Array(bytes);
  const [data, _numbers] = addressOfNumbers(64);
  const places: [what: string, at: number, shape: number, strides: number][] = [
    ["side by side", 0, 1000, 1016],
    ["as NumPy's, at the end of all", 0, pages - 32, pages - 16],
    ["as PyTorch's, apart", 0, 2000, 2040],
    ["apart at the end of a page", 0, 4096 - 56, 4096 - 16],
    ["on two pages", 0, 4096 - 16, 4096],
    ["the lengths on two pages", 0, 4096 - 8, 4096 + 8],
    ["the strides first", 0, 1016, 1000],
    ["the strides first, at the end", 0, pages - 16, pages - 32],
    ["far apart", 0, 1000, 3000],
    ["on two pages, far apart", 0, 1000, 7000],
    ["one in the other", 0, 1000, 1008],
    ["one and the same", 0, 1000, 1000],
    ["the struct on two pages", 4096 - 40, 1000, 1016],
    ["the struct at the end of a page", 4096 - 80, 1000, 1016],
    ["the struct at the end of all", pages - 80, 1000, 1016],
  ];
  for (const [what, at, shapeAt, stridesAt] of places) {
    writeStruct(new DataView(bytes, at), 2, {
      data,
      shape: start + BigInt(shapeAt),
      strides: start + BigInt(stridesAt),
    });
    words.set([9n, 2n], stridesAt / 8);
    words.set([3n, 2n], shapeAt / 8);
    const read = (place: number): number[] =>
      [...words.subarray(place / 8, place / 8 + 2)].map(Number);
    const [shape, strides] = [read(shapeAt), read(stridesAt)];
    using t = importAt(start + BigInt(at));
    assertEquals([t.shape, t.strides], [shape, strides], what);
    assertEquals(t.get(2, 1), 2 * strides[0]! + strides[1]!, what);
  }
  // What begins a struct of another version is all that is there of it.
  const stable = new DataView(bytes, pages - 32, 32);
  stable.setBigUint64(0, 2n, true);
  stable.setBigUint64(16, 0n, true);
  assertBufferError(
    () => importAt(start + BigInt(pages - 32)),
    "version",
    "DLPack 2.0",
  );
  fixture.fx_free(memory);
});

Deno.test({
  name: "Addresses whose lower halves are equal, or go over their end",
  ignore: Deno.build.os !== "linux",
  fn() {
    const GiB4 = 2n ** 32n;
    const c = Deno.dlopen("libc.so.6", {
      mmap: {
        parameters: ["u64", "usize", "i32", "i32", "i32", "i64"],
        result: "u64",
      }, // void *(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
      mprotect: { parameters: ["u64", "usize", "i32"], result: "i32" }, // int (void *addr, size_t len, int prot)
      munmap: { parameters: ["u64", "usize"], result: "i32" }, // int (void *addr, size_t length)
    }).symbols;
    // Nothing of it may be read but four pages, and no more of it is taken.
    const room = 3n * GiB4;
    const [PRIVATE, ANONYMOUS, NORESERVE] = [2, 0x20, 0x4000];
    const flags = PRIVATE | ANONYMOUS | NORESERVE;
    const start = c.mmap(0n, room, 0, flags, -1, 0n);
    const first = (start / GiB4 + 1n) * GiB4;
    const pages = [first, first + 4096n, first + GiB4 + 4096n];
    for (const page of [...pages, first + GiB4 - 4096n]) {
      assertEquals(c.mprotect(page, 4096n, 3), 0);
    }
    const [data, _numbers] = addressOfNumbers(4);
    // The lengths end where the lower half is full, the strides begin at 8.
    const [struct, shape, strides] = [
      first + 1024n,
      first + GiB4 - 8n,
      first + 8n,
    ];
    new BigInt64Array(bytesAt(shape, 8))[0] = 4n;
    new BigInt64Array(bytesAt(strides, 8))[0] = 1n;
    const like = { data, shape, strides };
    writeStruct(new DataView(bytesAt(struct, 80)), 1, like);
    using one = importAt(struct);
    assertEquals(one.toArray(), [0, 1, 2, 3]);

    // Another struct 4 GiB away is not taken for one that somebody owns.
    const [near, far] = [first + 4096n, first + GiB4 + 4096n];
    for (const at of [near, far]) {
      writeStruct(new DataView(bytesAt(at, 80)), 1, like);
    }
    using a = importAt(near);
    using b = importAt(far);
    assertEquals([a.get(1), b.get(2)], [1, 2]);
    const owned = "owns the struct already";
    assertBufferError(() => importAt(far), "consumed", owned);
    b[Symbol.dispose]();
    using again = importAt(far);
    assertEquals(again.get(3), 3);
    for (const t of [one, a, again]) t[Symbol.dispose]();
    assertEquals(c.munmap(start, room), 0);
  },
});

Deno.test("A struct is owned while its memory is still used", () => {
  const pointer = make(floats([2]));
  const wrap = () => new DlpackCapsule(pointer, "dltensor_versioned");
  const t = fromDlpack(wrap());
  const owned = "owns the struct already";
  {
    using _held = t.hold();
    t[Symbol.dispose]();
    assertBufferError(wrap, "consumed", owned);
  }
  using capsule = DlpackCapsule.from(8n ** 5n, { dtype: "bool", shape: [0] });
  assertBufferError(
    () => new DlpackCapsule(capsule.pointer, "dltensor_versioned"),
    "consumed",
    owned,
  );
});

Deno.test("fromDlpack() takes empty tensors, whatever their data and strides", () => {
  for (const nullData of [true, false]) {
    for (const strides of [null, [7, -5], [2n ** 62n, -(2n ** 62n)]]) {
      for (const copy of [null, true, false]) {
        assertEquals(
          deletions(() => {
            using t = importFixture(
              { ...floats([0, 3]), strides, nullData, nbytes: 0 },
              { copy },
            );
            assertEquals([t.size, t.nbytes, t.toArray()], [0, 0, []]);
            assertEquals(t.data, new Float32Array(0));
            assert(t.isContiguous);
          }),
          1,
        );
      }
    }
  }
});

Deno.test("fromDlpack() follows the table of device and copy", async (t) => {
  const host = [1, 3, 11, 13];
  for (const type of host) {
    for (const device of [null, "cpu"] as const) {
      for (const copy of [null, false, true]) {
        await t.step(`${deviceName(type)}, ${device}, ${copy}`, () => {
          assert(isHost(type));
          const before = counts();
          const x = importFixture(floats([2, 2], { device: [type, 0] }), {
            device,
            copy,
          });
          assertEquals(counts().deleted - before.deleted, copy ? 1 : 0);
          assertEquals(x.toArray(), [[0, 1], [2, 3]]);
          assertEquals(x.device.type, copy ? "cpu" : deviceName(type));
          x[Symbol.dispose]();
          assertEquals(counts().deleted - before.deleted, 1);
        });
      }
    }
  }
  for (const [name, type] of Object.entries(DeviceType)) {
    if (host.includes(type)) continue;
    await t.step(name, () => {
      const refused = (options: FromDlpackOptions, code: BufferErrorCode) =>
        deletions(() => {
          const spec = floats([2], { device: [type, 7] });
          using refused = capsule(spec);
          const error = assertBufferError(
            () => fromDlpack(refused, options),
            code,
          );
          assert(error.message.includes(`${name}:7`), error.message);
          if (options.device === "cpu" && options.copy !== false) return;
          // By its options alone: the advice of the message can be followed.
          assertEquals(counts().deleted, deleted);
          assertEquals(refused.name, "dltensor_versioned");
          // Of another exporter's it is released: nobody else has it.
          const exporter = {
            __dlpack__: () => capsule(spec),
            __dlpack_device__: () => [type, 7] as const,
          };
          assertBufferError(() => fromDlpack(exporter, options), code);
          assertEquals(counts().deleted, deleted + 1);
        });
      let { deleted } = counts();
      const again = (count: number): number => {
        ({ deleted } = counts());
        return count;
      };
      assertEquals(again(refused({}, "device")), 2);
      assertEquals(again(refused({ copy: true }, "device")), 2);
      assertEquals(again(refused({ copy: false }, "device")), 2);
      assertEquals(again(refused({ device: "cpu", copy: false }, "copy")), 2);
      // It is the host's memory in truth: what no runtime knows is refused.
      assertEquals(refused({ device: "cpu" }, "device"), 1);
    });
  }
});

Deno.test("fromDlpack() says how to reach a device's memory", () => {
  assertBufferError(
    () => importFixture(floats([2], { device: [2, 0] })),
    "device",
    'Cannot view a tensor on cuda:0 from JavaScript: pass { device: "cpu" } ' +
      "to copy it to the host",
  );
});

Deno.test("fromDlpack() needs no second copy of what was copied for it", () => {
  const before = counts().deleted;
  const copied = importFixture(floats([2], { flags: 2 }), { copy: true });
  assertEquals(counts().deleted, before, "it is the producer's copy");
  assertEquals(copied.readOnly, false);
  copied[Symbol.dispose]();
  // A read-only one is not ours to write to.
  const readOnly = importFixture(floats([2], { flags: 3 }), { copy: true });
  assertEquals(counts().deleted, before + 2);
  assertEquals(readOnly.readOnly, false);
  // Nor can it be what was asked not to be copied.
  using made = capsule(floats([2], { flags: 2 }));
  assertEquals(
    deletions(() =>
      assertBufferError(
        () => fromDlpack(made, { copy: false }),
        "copy",
        "asked for none",
      )
    ),
    0,
    "it is as it was",
  );
  assertEquals(fromDlpack(made).toArray(), [0, 1]);
});

Deno.test("fromDlpack() checks its arguments before it asks the exporter", () => {
  let asked = 0;
  const exporter: DlpackExporter = {
    __dlpack__() {
      asked++;
      return capsule(floats([2]));
    },
    __dlpack_device__: () => [1, 0],
  };
  const call = (x: unknown, options?: unknown) => () =>
    fromDlpack(x as DlpackExporter, options as FromDlpackOptions);
  assertThrows(call(exporter, { device: "CPU" }), TypeError, '"CPU"');
  assertThrows(call(exporter, { device: [1, 0] }), TypeError, "an array");
  assertThrows(call(exporter, { copy: 1 }), TypeError, "null, not 1");
  assertThrows(call(exporter, { copy: "yes" }), TypeError, '"yes"');
  assertEquals(asked, 0);
  assertThrows(call(null), TypeError, "returned no tensor");
  assertThrows(call(undefined), TypeError, "Cannot import undefined");
  assertThrows(
    call(new Float32Array(2)),
    TypeError,
    "make a tensor of it with Tensor.from()",
  );
  assertThrows(call({ __dlpack__() {} }), TypeError, "no __dlpack__() and");
  const spec = capsule(floats([2]));
  for (const bare of [spec.pointer, 0x7f0000001000n]) {
    assertThrows(call(bare), TypeError, "wrap it in new DlpackCapsule(pointer");
  }
  spec[Symbol.dispose]();
  using _t = fromDlpack(exporter);
  assertEquals(asked, 1);
});

Deno.test("fromDlpack() asks for what NumPy asks", () => {
  const requests: (DlpackRequest | undefined)[] = [];
  const exporter: DlpackExporter = {
    __dlpack__(request) {
      requests.push(request);
      return capsule(floats([2]));
    },
    __dlpack_device__(): never {
      throw new Error("NumPy never calls it");
    },
  };
  for (
    const options of [{}, { device: "cpu" }, { copy: false }, {
      device: null,
      copy: true,
    }] as const
  ) fromDlpack(exporter, options)[Symbol.dispose]();
  assertEquals(requests, [
    { maxVersion: [1, 3], dlDevice: null, copy: null },
    { maxVersion: [1, 3], dlDevice: [1, 0], copy: null },
    { maxVersion: [1, 3], dlDevice: null, copy: false },
    { maxVersion: [1, 3], dlDevice: null, copy: true },
  ]);
});

Deno.test("fromDlpack() passes on what an exporter throws or returns wrong", () => {
  const exporter = (answer: () => unknown) =>
    ({
      __dlpack__: answer,
      __dlpack_device__: () => [1, 0],
    }) as unknown as DlpackExporter;
  const boom = new RangeError("boom");
  const error = assertThrows(() =>
    fromDlpack(exporter(() => {
      throw boom;
    })), RangeError);
  assertEquals(error, boom);
  for (const wrong of [undefined, null, {}, 4096n]) {
    assertThrows(
      () => fromDlpack(exporter(() => wrong)),
      TypeError,
      "must return a DlpackCapsule",
    );
  }
});

testBothPaths("fromDlpack() notices the other struct and calls nothing", () => {
  const specs: readonly FixtureSpec[] = [
    floats([2, 3]),
    floats([]),
    floats([4], { deleter: "null" }),
    floats([0], { nullData: true, nbytes: 0 }),
    floats([2], { flags: 3, device: [2, 1], version: [1, 0] }),
  ];
  for (const spec of specs) {
    for (const versioned of [true, false]) {
      const managed = capsule({ ...spec, versioned });
      const right = managed.name as "dltensor";
      const pointer = managed.take();
      const wrap = wrapAs(versioned);
      const before = liveTensors();
      assertEquals(
        deletions(() => {
          const wrong = wrap(pointer);
          const error = assertBufferError(() => fromDlpack(wrong), "version");
          assert(error.message.includes(`"${right}"`), error.message);
          wrong[Symbol.dispose]();
          assertEquals(liveTensors(), before);
          // Nor when it is let go without an import.
          wrap(pointer)[Symbol.dispose]();
          assertEquals(liveTensors(), before);
        }),
        0,
      );
      assertEquals(
        deletions(() => wrapAs(!versioned)(pointer)[Symbol.dispose]()),
        spec.deleter === "null" ? 0 : 1,
      );
    }
  }
});

testBothPaths(
  "fromDlpack() calls nothing in a header that is impossible",
  () => {
    const impossible: readonly FixtureSpec[] = [
      // A versioned struct is 1.0 or newer, and versions are small.
      floats([2], { version: [0, 0] }),
      floats([2], { version: [0, 8] }),
      floats([2], { version: [256, 0] }),
      // Half a pointer in place of each of lanes, device and ndim.
      floats([2], { versioned: false, dtype: [2, 32, 0], device: [0x1234, 0] }),
      floats([2], { versioned: false, dtype: [2, 32, 0], ndim: -5 }),
    ];
    for (const spec of impossible) {
      const kept = capsule(spec);
      const { pointer } = kept;
      assertEquals(
        deletions(() => assertBufferError(() => fromDlpack(kept), "version")),
        0,
      );
      fixture.fx_call_deleter_from_thread(pointer);
    }
  },
);

Deno.test("fromDlpack() notices structs that are the other one whatever they say", () => {
  // Found by the fuzzer: these were mistaken, and a piece of data called.
  const cases: readonly [FixtureSpec, "dltensor" | "dltensor_versioned"][] = [
    [floats([2], { version: [300, 0] }), "dltensor"],
    [floats([2], { version: [1, 70000] }), "dltensor"],
    [
      floats([2], { versioned: false, dtype: [2, 32, 0], nullData: true }),
      "dltensor_versioned",
    ],
  ];
  for (const [spec, wrong] of cases) {
    const pointer = make(spec);
    assertEquals(
      deletions(() =>
        assertBufferError(
          () => fromDlpack(new DlpackCapsule(pointer, wrong)),
          "version",
        )
      ),
      0,
    );
    fixture.fx_call_deleter_from_thread(pointer);
  }
});

/** Wraps a pointer as the other struct than the one it is. */
function wrapAs(
  isVersioned: boolean,
): (p: Deno.PointerObject) => DlpackCapsule {
  return (pointer) =>
    new DlpackCapsule(
      pointer,
      isVersioned ? "dltensor" : "dltensor_versioned",
    );
}

Deno.test("A copy that cannot be made is a BufferError, the deleter called", () => {
  const wide: FixtureSpec = {
    dtype: [2, 32, 1],
    shape: [2 ** 20, 2 ** 20, 2 ** 10],
    strides: [0, 0, 0],
    nbytes: 4,
  };
  assertEquals(
    deletions(() => {
      using t = importFixture(wide);
      assertEquals(t.size, 2 ** 50);
      assertEquals(t.get(5, 7, 9), 0);
      assertEquals(t.data.length, 1);
      assertBufferError(() => t.copy(), "copy", "no memory");
      assertBufferError(() => importFixture(wide, { copy: true }), "copy");
    }),
    2,
  );
});

Deno.test("Every dtype of dlpack.h is known, and nothing else", () => {
  const known: Record<number, readonly number[]> = {
    0: [1, 2, 4, 8, 16, 32, 64],
    1: [1, 2, 4, 8, 16, 32, 64],
    2: [16, 32, 64],
    3: [64],
    4: [16],
    5: [32, 64, 128],
    6: [8],
    15: [6],
    16: [6],
    17: [4],
  };
  for (let code = 7; code <= 14; code++) known[code] = [8];
  for (let code = 0; code < 256; code++) {
    for (let bits = 0; bits < 256; bits++) {
      const info = dtypeByCode(code, bits);
      assertEquals(info !== undefined, known[code]?.includes(bits) ?? false);
      if (info !== undefined) {
        assertEquals([info.code, info.bits], [code, bits]);
      }
    }
  }
});

Deno.test("Without full FFI permission the error says what is needed", async () => {
  for (const flags of [[], ["--allow-ffi=lib.so"]]) {
    const { out, err } = await runScript(
      `
      import { DlpackCapsule, Tensor } from "@dlpack/deno";
      const t = Tensor.from(new Float32Array([1, 2]));
      console.log(t.transpose().copy().toArray());
      for (const run of [
        () => new DlpackCapsule(4096n, "dltensor"),
        () => t.__dlpack__(),
      ]) {
        try { run(); } catch (error) {
          console.log(error instanceof Deno.errors.NotCapable, error.message);
        }
      }`,
      flags,
    );
    assertEquals([out.length, err], [3, ""]);
    assertEquals(out[0], "[ 1, 2 ]", "no permission for its own memory");
    for (const line of out.slice(1)) {
      assert(line.startsWith("true Cannot reach native memory"), line);
      assert(line.includes("--allow-ffi=lib.so"), line);
    }
  }
});

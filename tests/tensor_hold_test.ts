/**
 * Memory that a pending operation still uses: hold(), during(), and what the
 * table at Tensor.data says of Deno's own functions. The fixture's deleter fills
 * the memory with 0xDB and leaves it mapped, so that late reads are seen.
 */

import {
  type DlpackCapsule,
  fromDlpack,
  liveTensors,
  Tensor,
} from "@dlpack/deno";
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { Buffer } from "node:buffer";
import { createHash, pbkdf2, pbkdf2Sync } from "node:crypto";
import fs from "node:fs";
import { brotliCompressSync, brotliDecompressSync, gzip } from "node:zlib";
import {
  assertBufferError,
  capsule,
  collectGarbage,
  deletions,
  floats,
  importFixture,
  runScript,
  testBothPaths,
} from "./helpers.ts";
import { openCalls } from "./native/calls.ts";
import { counts } from "./native/fixture.ts";

const SIZE = 2 ** 20;
const POISON = 0xdb;

/** A tensor of uint8, all of them 0x41. */
function letters(size = SIZE): Tensor<"uint8"> {
  const t = importFixture({
    dtype: [1, 8, 1],
    shape: [size],
    nbytes: size,
    data: new Uint8Array(size).fill(0x41),
    deleter: "poison",
  });
  assert(t.is("uint8"));
  return t;
}

function all(bytes: Uint8Array, value: number, size = SIZE): void {
  assertEquals(bytes.length, size);
  const at = bytes.findIndex((byte) => byte !== value);
  assertEquals(at, -1, `byte ${at} is ${bytes[at]}`);
}

// --- hold() and during() ------------------------------------------------------

testBothPaths("hold() keeps the memory over dispose, to its end", () => {
  const deleted = deletions(() => {
    const t = importFixture(floats([2, 3]));
    const { data } = t;
    const view = t.transpose();
    const [first, second] = [t.hold(), view.hold()];
    t[Symbol.dispose]();
    t[Symbol.dispose]();
    assertBufferError(() => t.get(0, 0), "released");
    assertBufferError(() => t.data, "released");
    assertBufferError(() => view.data, "released");
    assertBufferError(() => t.hold(), "released");
    assertEquals([...data], [0, 1, 2, 3, 4, 5]);
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    assertEquals([...data], [0, 1, 2, 3, 4, 5], "one hold is left");
    second[Symbol.dispose]();
    assertEquals(data.length, 0);
  });
  assertEquals(deleted, 1);
});

testBothPaths("hold() keeps the struct that was lent, too", async () => {
  const { lib } = openCalls();
  const { calls_remember, calls_remembered_ndim } = lib.symbols;
  const lenders = [
    () => importFixture(floats([1, 2, 3])),
    () => Tensor.from(new Float32Array(6), [1, 2, 3]),
    () => Tensor.from(new Float32Array(6), [1, 2, 3]).copy(),
    () => capsule(floats([1, 2, 3])),
    () => capsule(floats([1, 2, 3], { versioned: false })),
  ];
  for (const [i, lend] of lenders.entries()) {
    const held = (() => {
      const lender = lend();
      const held = lender.hold();
      calls_remember(lender);
      if (i === 4) (lender as DlpackCapsule).with({ writable: true });
      lender[Symbol.dispose]();
      return held;
    })();
    await collectGarbage();
    // Memory that was freed is given to these.
    const others = Array.from({ length: 4096 }, (_, k) => {
      const other = new Uint8Array(64 + k % 256).fill(0x7f);
      return [other, other.buffer];
    });
    assertEquals(calls_remembered_ndim(), 3);
    assertEquals(others.length, 4096);
    held[Symbol.dispose]();
  }
  lib.close();
});

testBothPaths("hold() keeps the memory over garbage collection", async () => {
  const before = counts().deleted;
  const held = (() => importFixture(floats([2, 3])).hold())();
  await collectGarbage();
  assertEquals(counts().deleted, before);
  held[Symbol.dispose]();
  await collectGarbage();
  assertEquals(counts().deleted, before + 1);
});

Deno.test("A hold that was forgotten keeps the memory, too", async () => {
  const before = counts().deleted;
  const data = (() => {
    const t = importFixture(floats([2, 3]));
    t.hold();
    return t.data;
  })();
  await collectGarbage();
  assertEquals(counts().deleted, before);
  assertEquals(data.length, 6);
});

Deno.test("What is held is not given away, and an end gives nothing back early", () => {
  const deleted = deletions(() => {
    const t = importFixture(floats([2, 3]));
    const held = t.hold();
    assertBufferError(() => t.release(), "consumed", "1 export, call or hold");
    held[Symbol.dispose]();
    assertEquals(t.get(1, 2), 5);
    t.release()[Symbol.dispose]();
  });
  assertEquals(deleted, 1);
});

Deno.test("An export ends after a hold, or before", () => {
  for (const exportFirst of [true, false]) {
    const before = counts().deleted;
    const t = importFixture(floats([2, 3]));
    const { data } = t;
    const held = t.hold();
    const exported = t.__dlpack__({ maxVersion: [1, 3] });
    t[Symbol.dispose]();
    const ends = [
      () => exported[Symbol.dispose](),
      () => held[Symbol.dispose](),
    ];
    if (!exportFirst) ends.reverse();
    ends[0]!();
    assertEquals(data.length, exportFirst ? 6 : 0, "empty after the hold");
    assertEquals(counts().deleted, before);
    ends[1]!();
    assertEquals(counts().deleted, before + 1);
  }
});

Deno.test("A buffer that was transferred while it was held is never freed", () => {
  const { warn } = console;
  const warnings: unknown[] = [];
  console.warn = (message) => warnings.push(message);
  try {
    const t = importFixture(floats([2, 3]));
    const held = t.hold();
    const moved = structuredClone(t.data, { transfer: [t.data.buffer] });
    t[Symbol.dispose]();
    held[Symbol.dispose]();
    assertEquals([...moved], [0, 1, 2, 3, 4, 5]);
    assertEquals(warnings.length, 1);
  } finally {
    console.warn = warn;
  }
});

Deno.test("hold() of JavaScript's memory keeps it from being used again", async () => {
  const source = Tensor.from(new Uint8Array(SIZE).fill(1));
  const copy = source.copy();
  using _held = copy.hold();
  copy[Symbol.dispose]();
  await collectGarbage();
  const next = source.copy();
  next.set(0, 2);
  assertBufferError(() => copy.get(0), "released");
});

Deno.test("during() holds until the promise settles, and gives it back", async () => {
  const before = counts().deleted;
  const t = letters();
  const { data } = t;
  const { promise, resolve } = Promise.withResolvers<string>();
  const settled = t.during(promise);
  t[Symbol.dispose]();
  await collectGarbage();
  all(data, 0x41);
  resolve("done");
  assertEquals(await settled, "done");
  assertEquals(data.length, 0);
  assertEquals(counts().deleted, before + 1);

  const failing = letters();
  const failed = failing.during(Promise.reject(new Error("as it must")));
  failing[Symbol.dispose]();
  await assertRejects(() => failed, Error, "as it must");
  assertEquals(counts().deleted, before + 2);
});

Deno.test("An error during() is not lost when nobody waits for it", async () => {
  const { code, err } = await runScript(`
    import { Tensor } from "@dlpack/deno";
    Tensor.zeros([1], "float32").during(Promise.reject(new Error("disk full")));
  `);
  assertEquals(code, 1);
  assertStringIncludes(err, "disk full");
});

Deno.test("during() takes nothing but a promise", () => {
  using t = letters(8);
  for (const wrong of [undefined, null, 5, "promise", {}, () => 1]) {
    assertThrows(
      () => t.during(wrong as unknown as Promise<void>),
      TypeError,
      "pass the promise of the work",
    );
  }
});

// --- Functions that copy at the call -----------------------------------------

/** Each is begun with data that is then disposed at once. */
const copying: Record<
  string,
  (data: Uint8Array<ArrayBuffer>) => Promise<Uint8Array>
> = {
  "Deno.writeFile": async (data) => {
    const path = Deno.makeTempFileSync();
    await Deno.writeFile(path, data);
    const bytes = await Deno.readFile(path);
    await Deno.remove(path);
    return bytes;
  },
  "Blob": (data) => new Blob([data]).bytes(),
  "File": (data) => new File([data], "letters").bytes(),
  "Response": (data) => new Response(data).bytes(),
  "Request": (data) =>
    new Request("http://localhost", { method: "POST", body: data }).bytes(),
  "FormData": (data) => {
    const form = new FormData();
    form.append("file", new Blob([data]));
    return (form.get("file") as File).bytes();
  },
  "structuredClone": (data) => Promise.resolve(structuredClone(data)),
  "postMessage without transfer": async (data) => {
    const { port1, port2 } = new MessageChannel();
    const received = Promise.withResolvers<Uint8Array>();
    port2.onmessage = (event) => received.resolve(event.data);
    port1.postMessage(data);
    const bytes = await received.promise;
    port1.close();
    port2.close();
    return bytes;
  },
  "crypto.subtle": async (data) => {
    const digest = await crypto.subtle.digest("SHA-256", data);
    const wanted = await crypto.subtle.digest(
      "SHA-256",
      new Uint8Array(SIZE).fill(0x41),
    );
    assertEquals(new Uint8Array(digest), new Uint8Array(wanted));
    return new Uint8Array(SIZE).fill(0x41);
  },
  "BroadcastChannel": async (data) => {
    const [from, to] = [1, 2].map(() => new BroadcastChannel("letters"));
    const received = Promise.withResolvers<Uint8Array>();
    to!.onmessage = (event) => received.resolve(event.data);
    from!.postMessage(data);
    const bytes = await received.promise;
    from!.close();
    to!.close();
    return bytes;
  },
  "fetch and Deno.serve": async (data) => {
    const server = Deno.serve(
      { port: 0, hostname: "127.0.0.1", onListen() {} },
      async (request) => new Response(await request.bytes()),
    );
    const { port } = server.addr;
    const response = fetch(`http://127.0.0.1:${port}`, {
      method: "POST",
      body: data,
    });
    const bytes = await (await response).bytes();
    await server.shutdown();
    return bytes;
  },
  "Buffer.from": (data) => Promise.resolve(Buffer.from(data)),
  "createHash": (data) => {
    const hash = createHash("sha256").update(data);
    return Promise.resolve().then(() => {
      const wanted = createHash("sha256").update(
        new Uint8Array(SIZE).fill(0x41),
      );
      assertEquals(hash.digest("hex"), wanted.digest("hex"));
      return new Uint8Array(SIZE).fill(0x41);
    });
  },
  "brotliCompressSync": (data) =>
    Promise.resolve(brotliDecompressSync(brotliCompressSync(data))),
  "fs.write": (data) => {
    const path = Deno.makeTempFileSync();
    const fd = fs.openSync(path, "w");
    const { promise, resolve } = Promise.withResolvers<Uint8Array>();
    fs.write(fd, data, () => {
      fs.closeSync(fd);
      resolve(Deno.readFileSync(path));
    });
    return promise;
  },
};

/** The table is of Deno 2.9: what is otherwise in 2.7, it says so. */
const isOld = Deno.version.deno.startsWith("2.7.");

for (const [name, begin] of Object.entries(copying)) {
  Deno.test({
    name: `${name} copies at the call, as the table says`,
    ignore: isOld && name === "fs.write",
    async fn() {
      const t = letters();
      const pending = begin(t.data);
      t[Symbol.dispose]();
      all(await pending, 0x41);
    },
  });
}

// --- Functions that read or write later ---------------------------------------

/** A pipe whose reader waits, so that a write goes on for long. */
function pipe(): {
  write(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  read(): Promise<Uint8Array>;
} {
  const child = new Deno.Command("cat", { stdin: "piped", stdout: "piped" })
    .spawn();
  const writer = child.stdin.getWriter();
  return {
    write: (bytes) => writer.write(bytes),
    async read() {
      const output = new Response(child.stdout).bytes();
      await writer.close();
      const bytes = await output;
      await child.status;
      return bytes;
    },
  };
}

Deno.test("FsFile.write reads later: freed memory without during(), good with it", async () => {
  const path = await Deno.makeTempFile();
  // A write of this size is under way when the call returns.
  const size = 64 * SIZE;
  for (const isHeld of [false, true]) {
    using file = await Deno.open(path, { write: true, truncate: true });
    const write = (): Promise<number> => {
      using t = letters(size);
      const written = file.write(t.data);
      return isHeld ? t.during(written) : written;
    };
    const length = await write();
    const written = await Deno.readFile(path);
    assertEquals(written.length, length);
    const poisoned = written.includes(POISON);
    assertEquals(poisoned, !isHeld, `poisoned: ${poisoned}`);
  }
  await Deno.remove(path);
});

Deno.test("FsFile.read writes later: into the memory with during()", async () => {
  const path = await Deno.makeTempFile();
  await Deno.writeFile(path, new Uint8Array(SIZE).fill(0x42));
  using file = await Deno.open(path);
  const t = letters();
  const { bytes } = t;
  const look = t.hold(); // as the end of during() empties the array
  const read = t.during(file.read(bytes));
  t[Symbol.dispose]();
  assertEquals(await read, SIZE);
  all(bytes, 0x42);
  look[Symbol.dispose]();
  assertEquals(bytes.length, 0);
  await Deno.remove(path);
});

Deno.test("A child's stdin reads each chunk later: all of it with during()", async () => {
  const { write, read } = pipe();
  const begin = (): Promise<void> => {
    using t = letters();
    return t.during(write(t.data));
  };
  const begun = begin();
  const output = read();
  await begun;
  all(await output, 0x41);
});

Deno.test("What a compressor takes is there with during()", async () => {
  const compress = async (isHeld: boolean): Promise<Uint8Array> => {
    const stream = new CompressionStream("gzip");
    const writer = stream.writable.getWriter();
    const compressed = new Response(stream.readable).bytes();
    (() => {
      using t = letters();
      const written = writer.write(t.data);
      if (isHeld) t.during(written);
    })();
    await writer.close();
    const plain = new Blob([await compressed as Uint8Array<ArrayBuffer>])
      .stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(plain).bytes();
  };
  all(await compress(true), 0x41);
  // The table says so: nothing, without a word.
  assertEquals((await compress(false)).length, 0);
});

Deno.test("Node's pbkdf2 reads later: what it derives is right with during()", async () => {
  const derive = (data: Uint8Array): Promise<string> =>
    new Promise((resolve, reject) =>
      pbkdf2(data, "salt", 1000, 16, "sha256", (error, key) => {
        if (error === null) resolve(key.toString("hex"));
        else reject(error);
      })
    );
  const right = pbkdf2Sync(
    new Uint8Array(SIZE).fill(0x41),
    "salt",
    1000,
    16,
    "sha256",
  ).toString("hex");
  const begin = (): Promise<string> => {
    using t = letters();
    return t.during(derive(t.data));
  };
  assertEquals(await begin(), right);
});

Deno.test({
  name: "Streams of Deno throw when the memory is gone",
  ignore: isOld,
  async fn() {
    const path = await Deno.makeTempFile();
    using file = await Deno.open(path, { write: true });
    const writer = file.writable.getWriter();
    const t = letters();
    const written = writer.write(t.data);
    t[Symbol.dispose]();
    await assertRejects(() => written, TypeError);
    await Deno.remove(path);
  },
});

Deno.test("Node's gzip takes it with during()", async () => {
  const compress = (data: Uint8Array): Promise<Uint8Array> =>
    new Promise((resolve, reject) =>
      gzip(
        data,
        (error, bytes) => error === null ? resolve(bytes) : reject(error),
      )
    );
  const begin = (): Promise<Uint8Array> => {
    using t = letters();
    return t.during(compress(t.data));
  };
  const plain = new Blob([await begin() as Uint8Array<ArrayBuffer>]).stream()
    .pipeThrough(new DecompressionStream("gzip"));
  all(await new Response(plain).bytes(), 0x41);
});

Deno.test("A reader with mode byob transfers the buffer: it is noticed", async () => {
  const { warn } = console;
  console.warn = () => {};
  try {
    const path = await Deno.makeTempFile();
    await Deno.writeFile(path, new Uint8Array(SIZE).fill(0x42));
    const file = await Deno.open(path);
    const t = letters();
    const reader = file.readable.getReader({ mode: "byob" });
    const { value } = await reader.read(t.data);
    assert(value![0] === 0x42);
    assertBufferError(() => t.get(0), "released", "transferred");
    await reader.cancel();

    // The ways that work.
    using again = await Deno.open(path);
    using other = letters();
    assertEquals(await other.during(again.read(other.bytes)), SIZE);
    all(other.data, 0x42);
    other.data.set(value!.subarray(0, 10));
    t[Symbol.dispose]();
    await Deno.remove(path);
  } finally {
    console.warn = warn;
  }
});

Deno.test("A pending operation does not keep a tensor, during() does", async () => {
  const before = counts().deleted;
  let data: Uint8Array | null = null;
  const { promise, resolve } = Promise.withResolvers<void>();
  (() => {
    const t = letters();
    t.during(promise);
    data = t.data;
  })();
  const length = (data as unknown as Uint8Array).length;
  data = null;
  assertEquals(length, SIZE);
  await collectGarbage();
  assertEquals(counts().deleted, before);
  resolve();
  await promise;
  await collectGarbage();
  assertEquals(counts().deleted, before + 1);
});

Deno.test("Held memory is counted until it is given back", () => {
  const before = liveTensors();
  const t = fromDlpack(capsule(floats([2, 3])));
  const held = t.hold();
  t[Symbol.dispose]();
  assertEquals(liveTensors(), {
    ...before,
    count: before.count + 1,
    bytes: before.bytes + 24,
  });
  held[Symbol.dispose]();
  assertEquals(liveTensors(), before);
});

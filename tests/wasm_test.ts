// The assembler: random expressions against what they mean in JavaScript.

import { assertEquals } from "@std/assert";
import {
  apart,
  assemble,
  choose,
  i32,
  i64,
  load,
  pitch,
  select,
  storedBytes,
  v128,
  type Value,
} from "../src/wasm/assembler.ts";
import { Random } from "./random.ts";

const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
const words = new Int32Array(memory.buffer);

/** An expression, and what it is for two words. */
interface Pair {
  value: Value;
  of: (a: number, b: number) => number;
}

const operations: [
  make: (a: Value, b: Value) => Value,
  of: (a: number, b: number) => number,
][] = [
  [i32.add, (a, b) => a + b | 0],
  [i32.sub, (a, b) => a - b | 0],
  [i32.and, (a, b) => a & b],
  [i32.or, (a, b) => a | b],
  [i32.shl, (a, b) => a << b],
  [i32.shr_u, (a, b) => a >>> b | 0],
  [i32.eq, (a, b) => a === b ? 1 : 0],
  [i32.ne, (a, b) => a !== b ? 1 : 0],
];

/** Each new one is made of those before: many are used more than once. */
function randomPairs(random: Random, count: number): Pair[] {
  const pairs: Pair[] = [
    { value: load.i32(), of: (a) => a },
    { value: load.i32(4), of: (_, b) => b },
    ...[0, 1, -1, 64, -65, 8191, 2 ** 31 - 1, -(2 ** 31)].map((n): Pair => ({
      value: i32.const(n),
      of: () => n,
    })),
  ];
  while (pairs.length < count) {
    const [a, b, c] = [0, 0, 0].map(() => random.pick(pairs)) as [
      Pair,
      Pair,
      Pair,
    ];
    const kind = random.below(operations.length + 2);
    if (kind < operations.length) {
      const [make, of] = operations[kind]!;
      pairs.push({
        value: make(a.value, b.value),
        of: (x, y) => of(a.of(x, y), b.of(x, y)),
      });
    } else {
      const make = kind === operations.length ? select : choose;
      pairs.push({
        value: make(a.value, b.value, c.value),
        of: (x, y) => c.of(x, y) !== 0 ? a.of(x, y) : b.of(x, y),
      });
    }
  }
  return pairs;
}

Deno.test("assemble() makes of any expression what it means", () => {
  const random = new Random();
  for (let round = 0; round < 300; round++) {
    const pairs = randomPairs(random, 12 + random.below(30));
    const results = [0, 0, 0].map(() => random.pick(pairs));
    const block = { bytes: 8, values: results.map(({ value }) => value) };
    assertEquals(storedBytes(block), 12);
    const run = assemble(block, memory);
    const count = 1 + random.below(5);
    const numbers = Int32Array.from(
      { length: 2 * count },
      () =>
        random.below(4) === 0 ? random.below(3) - 1 : random.below(2 ** 32) | 0,
    );
    words.fill(77);
    words.set(numbers);
    run(0, 4096, count);
    const expected = Array.from(
      { length: count },
      (_, i) =>
        results.map(({ of }) => of(numbers[2 * i]!, numbers[2 * i + 1]!)),
    ).flat();
    const found = words.slice(1024, 1024 + expected.length + 1);
    assertEquals([...found], [...expected, 77]);
  }
});

Deno.test("assemble() keeps more values than one byte can number", () => {
  const first = load.i32();
  const sums: Value[] = [];
  for (let i = 1; i <= 200; i++) sums.push(i32.sub(first, i32.const(i)));
  // Each is used twice.
  const total = [...sums, ...sums].reduce((a, b) => i32.or(a, b));
  words[0] = 1 << 20;
  assemble({ bytes: 4, values: [total] }, memory)(0, 4096, 1);
  const expected = sums.reduce((or, _, i) => or | (1 << 20) - 1 - i, 0);
  assertEquals(words[1024], expected);
});

Deno.test("assemble() stores what is narrow, wide, and a vector", () => {
  const byte = i32.store8(load.i32());
  const vector = v128.const(Array.from({ length: 16 }, (_, i) => i));
  const block = { bytes: 4, values: [byte, i64.const(-(2n ** 62n)), vector] };
  assertEquals(storedBytes(block), 25);
  words.set([0x12345678]);
  assemble(block, memory)(0, 4096, 1);
  const view = new DataView(memory.buffer, 4096);
  assertEquals(view.getUint8(0), 0x78);
  assertEquals(view.getBigInt64(1, true), -(2n ** 62n));
  for (let i = 0; i < 16; i++) assertEquals(view.getUint8(9 + i), i);
});

Deno.test("assemble() goes through rows of blocks, at any distances", () => {
  // Two vectors of each of two rows, stored two by two.
  const [[a, b], [c, d]] = load.rows(pitch, 2, 2) as [Value[], Value[]];
  const run = assemble({
    bytes: 32,
    values: [a!, c!, b!, d!],
    apart,
    group: 2,
    rows: { from: i32.shl(pitch, i32.const(1)), into: i32.const(1024) },
  }, memory);
  const bytes = new Uint8Array(memory.buffer);
  bytes.set(new Random().bytes(8192));
  const source = bytes.slice(0, 4096);
  const expected = bytes.slice(4096, 8192);
  for (let row = 0; row < 2; row++) {
    for (let block = 0; block < 3; block++) {
      for (let value = 0; value < 4; value++) {
        const [upper, line] = [value >> 1, value & 1];
        const at = 7 + row * 400 + block * 32 + line * 200 + upper * 16;
        const to = 5 + row * 1024 + block * 32 + upper * 120 + line * 16;
        expected.set(source.subarray(at, at + 16), to);
      }
    }
  }
  run(7, 4096 + 5, 3, 2, 200, 120);
  assertEquals(bytes.slice(4096, 8192), expected);
});

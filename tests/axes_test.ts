// Lengths and strides that are one array, against the numbers themselves.

import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { shapeTable, stridesTable } from "../src/axes.ts";
import { Random } from "./random.ts";

/** Words of 64-bit integers, from some place on. */
function wordsOf(values: readonly number[], at: number): Int32Array {
  const words = new Int32Array(at + 2 * values.length);
  values.forEach((value, axis) => {
    const big = BigInt(value);
    words[at + 2 * axis] = Number(BigInt.asIntN(32, big));
    words[at + 2 * axis + 1] = Number(BigInt.asIntN(32, big >> 32n));
  });
  return words;
}

/** Of few axes and few numbers, so that equal ones come again, and of any. */
function randomAxes(random: Random): number[] {
  const numbers = random.pick([
    [0, 1, 2, 3, -1],
    [2 ** 31, -(2 ** 31), 2 ** 32, 2 ** 32 + 1, -(2 ** 53) + 1, 2 ** 53 - 1],
    [1, 2 ** 32 + 1, -(2 ** 32) + 1],
    Array.from({ length: 300 }, (_, i) => i),
  ]);
  const length = random.pick([0, 1, 2, 2, 3, 4, 64]);
  return Array.from({ length }, () => random.pick(numbers));
}

Deno.test("Equal axes are one array, and others are never taken for them", () => {
  const random = new Random();
  let shared = 0;
  for (let i = 0; i < 100_000; i++) {
    const values = randomAxes(random);
    const copy = [...values];
    const at = 2 * random.below(3);
    const table = random.pick([shapeTable, stridesTable]);
    const found = random.pick([
      () => table.shared(values),
      () => table.of(wordsOf(values, at), at, values.length),
    ])();
    assertEquals(found.length, copy.length);
    for (let axis = 0; axis < copy.length; axis++) {
      if (!Object.is(found[axis], copy[axis])) assertEquals(found, copy);
    }
    if (found !== values && Object.isFrozen(found)) throw new Error("frozen");
    if (table.shared([...copy]) === found) shared++;
    if (i % 10 === 0) {
      const shown = table.shown(found);
      assert(Object.isFrozen(shown) && !Object.isFrozen(found));
      assertEquals(shown, copy);
      assertStrictEquals(table.shown(found), shown);
    }
  }
  assertEquals(shared, 100_000);
});

Deno.test("Lengths and strides do not take each other's place", () => {
  // In one table these two would be in one slot.
  for (const [shape, strides] of [[[31], [1]], [[128, 336, 3], [1008, 3, 1]]]) {
    const known = shapeTable.shared(shape!);
    stridesTable.shared([...strides!]);
    assertStrictEquals(shapeTable.shared([...shape!]), known);
  }
});

Deno.test("Integers beyond the safe ones come as the nearest number", () => {
  for (const value of [2n ** 53n + 1n, 2n ** 63n - 1n, -(2n ** 63n)]) {
    const words = new Int32Array(new BigInt64Array([value]).buffer);
    assertEquals(shapeTable.of(words, 0, 1), [Number(value)]);
    assertEquals(shapeTable.of(words, 0, 1), [Number(value)]);
  }
});

/**
 * DLPack's C exchange API: a table of C functions that the type of an array has
 * in the place of `__dlpack__`, without capsules and keywords.
 *
 * @module
 */

import { isHost } from "../../src/device.ts";
import { TENSOR, VERSIONED } from "../abi.ts";
import { libc } from "../libc.ts";
import { addressOf, addressOfArray, Scratch } from "../memory.ts";
import { Owner } from "../owner.ts";
import { EXCHANGE } from "./abi.ts";
import type { Interpreter } from "./interpreter.ts";
import { permanentText } from "./names.ts";

/** The functions of one type of arrays. */
export interface Exchange {
  /** Out of an object: an address. */
  readonly fromObject: bigint;
  /** Into one. */
  readonly toObject: bigint;
  /** The stream that the library works on. */
  readonly workStream: bigint;
}

/** The one major version whose table is known. */
const MAJOR = 1;

/** By the address of the type, to which a reference is kept. */
const known = new Map<bigint, Exchange | null>();
/** Types come and go in some programs: no more of them are kept. */
const MOST_TYPES = 256;

let attribute: Deno.PointerObject | undefined;
let capsuleName: bigint | undefined;

/** What a function puts where its last argument points. */
const out = new BigUint64Array(1);
let outAddress: bigint | undefined;
const table = new Scratch(EXCHANGE.size);
const tableView = new DataView(table.bytes.buffer);
const device = new Scratch(8);
const deviceView = new DataView(device.bytes.buffer);

/** The table of an object's type, if it has one. The lock is held. */
export function exchangeOf(
  interpreter: Interpreter,
  object: Deno.PointerObject,
): Exchange | null {
  const { py } = interpreter;
  const type = py.PyObject_Type(object)!;
  const found = exchangeOfType(interpreter, type);
  py.Py_DecRef(type);
  return found;
}

/** The table of a type, if it has one. The lock is held. */
export function exchangeOfType(
  interpreter: Interpreter,
  type: Deno.PointerObject,
): Exchange | null {
  const { py } = interpreter;
  const address = addressOf(type);
  let exchange = known.get(address);
  if (exchange !== undefined) return exchange;
  exchange = lookUp(interpreter, type);
  if (known.size < MOST_TYPES) {
    py.Py_IncRef(type);
    known.set(address, exchange);
  }
  return exchange;
}

function lookUp(
  interpreter: Interpreter,
  type: Deno.PointerObject,
): Exchange | null {
  const { py } = interpreter;
  attribute ??= interpreter.name("__dlpack_c_exchange_api__");
  capsuleName ??= permanentText("dlpack_exchange_api");
  if (py.PyObject_HasAttr(type, attribute) === 0) return null;
  const capsule = py.PyObject_GetAttr(type, attribute);
  if (capsule === null) {
    py.PyErr_Clear();
    return null;
  }
  const struct = py.PyCapsule_IsValid(capsule, capsuleName) === 0
    ? null
    : py.PyCapsule_GetPointer(capsule, capsuleName);
  // The type has the capsule, and we have the type.
  py.Py_DecRef(capsule);
  return struct === null ? null : readTable(addressOf(struct));
}

/** Reads the table, or the one of an older version that it refers to. */
function readTable(address: bigint): Exchange | null {
  while (address !== 0n) {
    table.readAddress(address, BigInt(EXCHANGE.size));
    const at = (offset: number): bigint => tableView.getBigUint64(offset, true);
    if (tableView.getUint32(EXCHANGE.major, true) === MAJOR) {
      return {
        fromObject: at(EXCHANGE.fromPyObject),
        toObject: at(EXCHANGE.toPyObject),
        workStream: at(EXCHANGE.currentWorkStream),
      };
    }
    address = at(EXCHANGE.previous);
  }
  return null;
}

/** A tensor, and the stream on which its memory is being written, if any. */
export interface Taken {
  readonly owner: Owner;
  readonly stream: bigint | null;
}

/** Takes a tensor out of an object. The lock is held. */
export function takeByExchange(
  interpreter: Interpreter,
  { fromObject, workStream }: Exchange,
  object: Deno.PointerObject,
): Taken {
  if (!callTwo(fromObject, object)) throw interpreter.error();
  const struct = out[0]!;
  const owner = new Owner(struct, "dltensor_versioned");
  const stream = streamOf(interpreter, workStream, struct);
  return { owner, stream };
}

/** Makes an object of a struct, which it takes over. The lock is held. */
export function giveByExchange(
  interpreter: Interpreter,
  { toObject }: Exchange,
  struct: Deno.PointerObject,
): Deno.PointerObject {
  if (!callTwo(toObject, struct)) throw interpreter.error();
  return Deno.UnsafePointer.create(out[0]!)!;
}

const twoArguments = {
  parameters: ["pointer", "buffer"],
  result: "i32",
} as const;

/** Calls a function that returns a status, and writes to {@linkcode out}. */
function callTwo(address: bigint, argument: Deno.PointerObject): boolean {
  out[0] = 0n;
  const c = libc();
  if (c !== null) {
    outAddress ??= addressOfArray(out);
    const key = addressOf(argument);
    return c.callAccessor(key, outAddress, 1n, 8n, address) !== 0n;
  }
  const pointer = Deno.UnsafePointer.create(address) as Deno.PointerObject<
    typeof twoArguments
  >;
  const callee = new Deno.UnsafeFnPointer(pointer, twoArguments);
  return callee.call(argument, out) === 0;
}

const threeArguments = {
  parameters: ["i32", "i32", "buffer"],
  result: "i32",
} as const;

/** The stream that a library works on, where the memory's device has streams. */
function streamOf(
  interpreter: Interpreter,
  workStream: bigint,
  struct: bigint,
): bigint | null {
  const at = BigInt(VERSIONED.tensor + TENSOR.deviceType);
  device.readAddress(struct + at, 8n);
  const type = deviceView.getInt32(0, true);
  if (isHost(type) || workStream === 0n) return null;
  const pointer = Deno.UnsafePointer.create(workStream) as Deno.PointerObject<
    typeof threeArguments
  >;
  const callee = new Deno.UnsafeFnPointer(pointer, threeArguments);
  if (callee.call(type, deviceView.getInt32(4, true), out) === 0) {
    return out[0]! === 0n ? null : out[0]!;
  }
  // Not to know the stream means to wait for all of them.
  interpreter.py.PyErr_Clear();
  return null;
}

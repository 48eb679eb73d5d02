/**
 * Metal: buffers in memory that the CPU shares with the GPU.
 *
 * @module
 */

import { bufferAt } from "../memory.ts";
import { deviceError, type DriverPlace, openDriver } from "./driver.ts";
import type { DeviceMemory, DeviceReader, DeviceRuntime } from "./runtime.ts";

const place: DriverPlace = {
  name: "the Objective-C runtime",
  variable: "DLPACK_METAL_LIBRARY",
  sonames: { darwin: ["/usr/lib/libobjc.A.dylib"] },
};

const symbols = {
  sel_registerName: {
    parameters: [
      "buffer", // const char *str
    ],
    result: "u64",
  },
  object_getClass: {
    parameters: [
      "u64", // id obj
    ],
    result: "u64",
  },
  objc_getClassList: {
    parameters: [
      "buffer", // Class *buffer
      "i32", // int bufferCount
    ],
    result: "i32",
  },
  class_respondsToSelector: {
    parameters: [
      "u64", // Class cls
      "u64", // SEL sel
    ],
    result: "u8",
  },
  objc_msgSend: {
    parameters: [
      "u64", // id self
      "u64", // SEL op
    ],
    result: "u64",
  },
  // Of the C library, which the runtime is linked to.
  malloc_size: {
    parameters: [
      "u64", // const void *ptr
    ],
    result: "usize",
  },
} as const satisfies Deno.ForeignLibraryInterface;

type Runtime = Deno.DynamicLibrary<typeof symbols>["symbols"];

/** `MTLStorageMode`: whether CPU, GPU or both have the memory. */
const storageModes = ["shared", "managed", "private", "memoryless"];

/** Copies what Metal's buffers share with the CPU. */
export const metal: DeviceRuntime = {
  name: place.name,
  open: (memory) => new MetalReader(memory),
};

/** Classes whose objects answer what is asked here. */
const bufferClasses = new Set<bigint>();

class MetalReader implements DeviceReader {
  readonly #objc: Runtime;
  readonly #buffer: bigint;
  /** Of the lowest element. */
  readonly #address: number;

  constructor(memory: DeviceMemory) {
    const { data, byteOffset, byteLength } = memory;
    this.#objc = openDriver(place, symbols, memory);
    this.#buffer = data;
    this.#checkObject(memory);
    const mode = storageModes[Number(this.#send("storageMode"))];
    if (mode !== "shared") {
      throw deviceError(
        memory,
        `its storage mode is ${mode ?? "unknown"}; have the library copy it ` +
          "to a buffer whose storage mode is shared",
      );
    }
    const length = Number(this.#send("length"));
    if (byteOffset < 0 || byteOffset + byteLength > length) {
      throw deviceError(
        memory,
        `it spans the bytes ${byteOffset} to ${byteOffset + byteLength} of a ` +
          `MTLBuffer of ${length} bytes; check the shape, strides and byte ` +
          "offset that the library gives",
      );
    }
    const contents = Number(this.#send("contents"));
    if (contents === 0) {
      throw deviceError(
        memory,
        "its MTLBuffer has no contents for the CPU; have the library copy it " +
          "to one whose storage mode is shared",
      );
    }
    this.#address = contents + byteOffset;
    this.#send("retain");
  }

  /**
   * There is nothing to wait on: a buffer does not know its commands. Whoever
   * hands it over must have waited until those that write it were completed.
   */
  synchronize(): void {}

  read(byteOffset: number, into: Uint8Array<ArrayBuffer>): void {
    const memory = bufferAt(this.#address + byteOffset, into.length);
    into.set(new Uint8Array(memory));
    memory.transfer(0);
  }

  [Symbol.dispose](): void {
    this.#send("release");
  }

  /**
   * Some libraries put the address of the contents in the place of the object,
   * and a message to that ends the process. Objects are blocks of malloc's;
   * contents are mostly whole pages, which malloc does not know.
   */
  #checkObject(memory: DeviceMemory): void {
    const { malloc_size, object_getClass } = this.#objc;
    if (
      malloc_size(this.#buffer) > 0n &&
      this.#isBufferClass(object_getClass(this.#buffer))
    ) return;
    throw deviceError(
      memory,
      `its data, 0x${this.#buffer.toString(16)}, is no MTLBuffer; if it is ` +
        "the address of shared memory, have the library say device cpu",
    );
  }

  /**
   * Any block has something where objects have their class, and asking that for
   * its methods ends the process as well unless it is a class.
   */
  #isBufferClass(type: bigint): boolean {
    if (bufferClasses.has(type)) return true;
    const { objc_getClassList, class_respondsToSelector } = this.#objc;
    const classes = new BigUint64Array(objc_getClassList(null, 0));
    objc_getClassList(classes, classes.length);
    if (!classes.includes(type)) return false;
    const isBuffer = ["contents", "length", "storageMode"].every((name) =>
      class_respondsToSelector(type, this.#selector(name)) !== 0
    );
    if (isBuffer) bufferClasses.add(type);
    return isBuffer;
  }

  #selector(name: string): bigint {
    const text = new TextEncoder().encode(`${name}\0`);
    return this.#objc.sel_registerName(text);
  }

  #send(message: string): bigint {
    return this.#objc.objc_msgSend(this.#buffer, this.#selector(message));
  }
}

/**
 * Reads memory that may not be there: a handle that a struct names can be
 * anything, and reading through it must not end the process.
 *
 * @module
 */

import { libc } from "../libc.ts";
import { addressOfArray, Scratch } from "../memory.ts";

const linux = {
  process_vm_readv: {
    parameters: [
      "i32", // pid_t pid
      "buffer", // const struct iovec *local_iov
      "usize", // unsigned long liovcnt
      "buffer", // const struct iovec *remote_iov
      "usize", // unsigned long riovcnt
      "usize", // unsigned long flags
    ],
    result: "isize",
  },
} as const satisfies Deno.ForeignLibraryInterface;

const windows = {
  ReadProcessMemory: {
    parameters: [
      "isize", // HANDLE hProcess
      "u64", // LPCVOID lpBaseAddress
      "buffer", // LPVOID lpBuffer
      "usize", // SIZE_T nSize
      "pointer", // SIZE_T *lpNumberOfBytesRead
    ],
    result: "i32",
  },
} as const satisfies Deno.ForeignLibraryInterface;

/** Copies memory, or says that it is not there. */
type Read = (address: bigint, into: Uint8Array<ArrayBuffer>) => boolean;

let cautious: Read | null | undefined;

/**
 * Reads memory that may not be there. Systems that cannot tell are believed to
 * have it: there a wrong address ends the process, unless it is a small number,
 * which is an address on no system.
 *
 * @param address Of the first byte.
 * @param length How many.
 * @returns The bytes, or `null` where there are none.
 */
export function readCautiously(
  address: bigint,
  length: number,
): DataView<ArrayBuffer> | null {
  if (address < 4096n) return null;
  if (cautious === undefined) cautious = open();
  if (cautious === null || libc() === null) {
    const scratch = new Scratch(length);
    scratch.readAddress(address, BigInt(length));
    return new DataView(scratch.bytes.buffer);
  }
  const bytes = new Uint8Array(new ArrayBuffer(length));
  return cautious(address, bytes) ? new DataView(bytes.buffer) : null;
}

function open(): Read | null {
  const made = openSystem();
  // A container may forbid it: then not even what is there can be read.
  const known = new Uint8Array(new ArrayBuffer(8));
  return made?.(addressOfArray(known), known.slice()) ? made : null;
}

function openSystem(): Read | null {
  try {
    switch (Deno.build.os) {
      case "linux":
        return openLinux();
      case "windows":
        return openWindows();
      default:
        return null;
    }
  } catch {
    // Another C library than it is looked for.
    return null;
  }
}

function openLinux(): Read {
  const { symbols } = Deno.dlopen("libc.so.6", linux);
  return (address, into) => {
    const length = BigInt(into.length);
    const local = new BigUint64Array([addressOfArray(into), length]);
    const remote = new BigUint64Array([address, length]);
    return symbols.process_vm_readv(Deno.pid, local, 1n, remote, 1n, 0n) ===
      length;
  };
}

function openWindows(): Read {
  const { symbols } = Deno.dlopen("kernel32.dll", windows);
  const thisProcess = -1n;
  return (address, into) =>
    symbols.ReadProcessMemory(
      thisProcess,
      address,
      into,
      BigInt(into.length),
      null,
    ) !== 0;
}

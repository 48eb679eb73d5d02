/**
 * Reads memory that may not be there: a handle that a struct names can be
 * anything, and reading through it must not end the process.
 *
 * @module
 */

import { addressOfArray } from "../memory.ts";

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

let read: Read | null | undefined;

/**
 * Reads memory without believing that it is there.
 *
 * @param address Of the first byte.
 * @param length How many.
 * @returns The bytes; `null` where there are none; `undefined` on systems that
 * cannot tell.
 */
export function readCautiously(
  address: bigint,
  length: number,
): DataView<ArrayBuffer> | null | undefined {
  if (read === undefined) read = open();
  if (read === null) return undefined;
  const bytes = new Uint8Array(new ArrayBuffer(length));
  return read(address, bytes) ? new DataView(bytes.buffer) : null;
}

function open(): Read | null {
  const made = Deno.build.os === "linux"
    ? openLinux()
    : Deno.build.os === "windows"
    ? openWindows()
    : null;
  // A container may forbid it: then not even what is there can be read.
  const known = new Uint8Array(new ArrayBuffer(8));
  return made?.(addressOfArray(known), known.slice()) ? made : null;
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

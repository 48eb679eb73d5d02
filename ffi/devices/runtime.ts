/**
 * What this module asks of the runtime of a device: the library through which
 * the host reaches that device's memory.
 *
 * @module
 */

import type { DeviceName } from "../../src/device.ts";

/**
 * The bytes of one tensor on a device, from its lowest to its highest element;
 * there is at least one.
 *
 * @category Devices
 */
export interface DeviceMemory {
  /** The kind of device that the struct names. */
  readonly type: DeviceName;
  /** Which of that kind, as the struct says. */
  readonly id: number;
  /**
   * `DLTensor.data`, exactly: an address or a handle. Of CUDA's managed memory
   * it is the address of the lowest element.
   */
  readonly data: bigint;
  /**
   * From `data` to the lowest element, in bytes: `DLTensor.byte_offset`, less
   * what negative strides reach below it. Add it to `data` only where that is
   * an address of the device.
   */
  readonly byteOffset: number;
  /** From the lowest element to the end of the highest, in bytes. */
  readonly byteLength: number;
  /**
   * The stream on which the memory is being written, as the capsule names it:
   * `null` when nobody said, -1 when nothing is to be waited for.
   */
  readonly stream: number | bigint | null;
  /** What is to be done with it: `"read"` by `fromDlpack`, `"write"` by `uploadTo`. */
  readonly access: "read" | "write";
}

/**
 * Equally long rows at equal distances in a {@linkcode DeviceMemory}.
 *
 * @category Devices
 */
export interface DeviceRows {
  /** From the lowest element to the first row, in bytes. */
  readonly byteOffset: number;
  /** From one row to the next, in bytes; at least `rowBytes`. */
  readonly pitch: number;
  /** The length of a row, in bytes. */
  readonly rowBytes: number;
  /** How many rows; at least 2. */
  readonly count: number;
}

/**
 * Reads the memory of one tensor, until it is disposed.
 *
 * Nothing may stay changed between two calls that other code of the thread
 * could notice, such as a current context or device.
 *
 * @category Devices
 */
export interface DeviceReader extends Disposable {
  /**
   * Waits for the work that writes the memory: on the memory's stream where it
   * names one, else for all that the device was given. Called once, before the
   * first read.
   */
  synchronize(): void;
  /**
   * The same without blocking the thread; without it
   * {@linkcode DeviceReader.synchronize} is called.
   */
  synchronizeAsync?(): Promise<void>;
  /**
   * Copies bytes to the host and returns when they are there.
   *
   * @param byteOffset From the lowest element to the first byte.
   * @param into Where to; its length is how many. It never reaches beyond the
   * memory.
   */
  read(byteOffset: number, into: Uint8Array<ArrayBuffer>): void;
  /**
   * The same without blocking the thread; without it
   * {@linkcode DeviceReader.read} is called. The next read begins when this
   * one has ended.
   */
  readAsync?(byteOffset: number, into: Uint8Array<ArrayBuffer>): Promise<void>;
  /**
   * Copies rows to the host, side by side; without it the bytes between them
   * are read as well.
   *
   * @param rows Which ones.
   * @param into Where to, `rows.count * rows.rowBytes` bytes.
   */
  readRows?(rows: DeviceRows, into: Uint8Array<ArrayBuffer>): void;
  /**
   * The same without blocking the thread; without it
   * {@linkcode DeviceReader.readRows} is called.
   */
  readRowsAsync?(
    rows: DeviceRows,
    into: Uint8Array<ArrayBuffer>,
  ): Promise<void>;
  /** Gives back what reading took. Called once, also after an error. */
  [Symbol.dispose](): void;
}

/**
 * Writes the memory of one tensor, until it is disposed: as a
 * {@linkcode DeviceReader}, the other way round.
 *
 * @category Devices
 */
export interface DeviceWriter extends Disposable {
  /**
   * Waits for the work that uses the memory, as of {@linkcode DeviceReader}.
   * Called once, before the first write.
   */
  synchronize(): void;
  /** The same without blocking the thread. */
  synchronizeAsync?(): Promise<void>;
  /**
   * Copies bytes to the device and returns when they are there.
   *
   * @param byteOffset From the lowest element to the first byte.
   * @param from Where from; its length is how many. It never reaches beyond the
   * memory.
   */
  write(byteOffset: number, from: Uint8Array<ArrayBuffer>): void;
  /** The same without blocking the thread. */
  writeAsync?(byteOffset: number, from: Uint8Array<ArrayBuffer>): Promise<void>;
  /**
   * Copies rows to the device, and leaves what is between them as it is;
   * without it each is a {@linkcode DeviceWriter.write} of its own.
   *
   * @param rows Which ones.
   * @param from Where from: side by side, `rows.count * rows.rowBytes` bytes.
   */
  writeRows?(rows: DeviceRows, from: Uint8Array<ArrayBuffer>): void;
  /** The same without blocking the thread. */
  writeRowsAsync?(
    rows: DeviceRows,
    from: Uint8Array<ArrayBuffer>,
  ): Promise<void>;
  /** Gives back what writing took. Called once, also after an error. */
  [Symbol.dispose](): void;
}

/**
 * Reaches the memory of one kind of device: what `registerDevice` takes.
 *
 * What it throws is thrown by `fromDlpack`, after the deleter has run:
 * preferably a `BufferError` with the code `"device"`, the runtime's own
 * message and the way out.
 *
 * @category Devices
 */
export interface DeviceRuntime {
  /** What it is, for messages: `"the CUDA driver"`. */
  readonly name: string;
  /**
   * Whether it is on this machine. Asked for CUDA's managed memory, which the
   * host reads without a runtime where there is none, and by `fromDlpackAsync`
   * whether it should leave a copy to the producer.
   */
  isHere?(): boolean;
  /**
   * Opens what is needed to read one tensor, and checks as far as can be that
   * the memory is there and has these bytes.
   */
  open(memory: DeviceMemory): DeviceReader;
  /**
   * The same to write one tensor; without it `uploadTo` refuses such memory.
   */
  openForWriting?(memory: DeviceMemory): DeviceWriter;
}

import type { DTypeInfo } from "../dtype/table.ts";
import type { Layout } from "../layout.ts";

/** What a struct says, checked. */
export interface Struct {
  /** The dtype. */
  readonly info: DTypeInfo;
  /** Whether elements of fewer than 8 bits share bytes. */
  readonly isPacked: boolean;
  /** Which elements, counted from the lowest; lanes are the last axis. */
  readonly layout: Layout;
  /** `DLDevice.device_type`. */
  readonly deviceType: number;
  /** `DLDevice.device_id`. */
  readonly deviceId: number;
  /** Whether the memory must not be written. */
  readonly readOnly: boolean;
  /** Whether the producer made a copy for this consumer alone. */
  readonly isCopied: boolean;
  /** `DLTensor.data`: of a device's memory exactly, 0 for the host's. */
  readonly data: bigint;
  /** Of the lowest element: an address of the host, else counted from `data`. */
  readonly start: number;
  /** Entries of the typed array from there to the highest element. */
  readonly length: number;
}

// A picture as a PNG file: https://www.w3.org/TR/png-3/

/** Pixels of 8 bits a channel, row by row, without gaps. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  /** 1: grey; 2: grey, alpha; 3: red, green, blue; 4: the same, alpha. */
  readonly channels: 1 | 2 | 3 | 4;
  /** `height * width * channels` bytes. */
  readonly data: Uint8Array | Uint8ClampedArray;
}

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
/** The colour type for each number of channels. */
const COLOUR_TYPES = [NaN, 0, 4, 2, 6] as const;
/** Each byte is stored less the one above it. */
const FILTER_UP = 2;

/** Encodes a picture with the `CompressionStream` of the runtime. */
export async function encodePng(
  { width, height, channels, data }: Pixels,
): Promise<Uint8Array<ArrayBuffer>> {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, COLOUR_TYPES[channels]], 8); // bits, colour type; 0 for the rest
  const row = width * channels;
  const filtered = new Uint8Array(height * (row + 1));
  for (let y = 0, from = 0, to = 0; y < height; y++) {
    filtered[to++] = FILTER_UP;
    for (let x = 0; x < row; x++, from++) {
      filtered[to++] = data[from]! - (y === 0 ? 0 : data[from - row]!);
    }
  }
  const stream = new Blob([filtered]).stream()
    .pipeThrough(new CompressionStream("deflate")); // zlib's format, as PNG has it
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const chunks = [
    Uint8Array.from(SIGNATURE),
    chunk("IHDR", header),
    chunk("IDAT", packed),
    chunk("IEND", new Uint8Array()),
  ];
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/** Length, type, data, and the CRC-32 of the latter two. */
function chunk(type: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) bytes[4 + i] = type.charCodeAt(i);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

/** CRC-32 of each byte. */
const crcs = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) {
    byte = byte & 1 ? byte >>> 1 ^ 0xedb88320 : byte >>> 1;
  }
  return byte;
});

function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) crc = crcs[(crc ^ byte) & 255]! ^ crc >>> 8;
  return ~crc;
}

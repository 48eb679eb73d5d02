/**
 * Finds the Python that somebody else has opened in this process.
 *
 * @module
 */

import { LOADED } from "./abi.ts";

/** `libpython3.11.so.1.0`; on macOS the `Python` of a framework, too. */
const libpython =
  /(^|\/)(libpython3\.\d+t?[^/]*|Python\.framework\/.*\/Python)$/;

/** The paths of the shared libraries of Python that are open in this process. */
export function loadedLibpythons(): string[] {
  const open = Deno.build.os === "darwin" ? imagesOnMac() : imagesByLoader();
  return [...new Set(open.filter((path) => libpython.test(path)))];
}

const visitor = {
  parameters: ["pointer", "usize", "pointer"],
  result: "i32",
} as const;

function imagesByLoader(): string[] {
  const paths: string[] = [];
  if (Deno.build.os === "windows") return paths;
  const library = Deno.dlopen("", {
    dl_iterate_phdr: {
      parameters: [
        "function", // int (*callback)(struct dl_phdr_info *, size_t, void *)
        "pointer", // void *data
      ],
      result: "i32",
    },
  });
  const visit = new Deno.UnsafeCallback(visitor, (info) => {
    const name = new Deno.UnsafePointerView(info!).getPointer(LOADED.name);
    if (name !== null) paths.push(Deno.UnsafePointerView.getCString(name));
    return 0;
  });
  library.symbols.dl_iterate_phdr(visit.pointer, null);
  visit.close();
  library.close();
  return paths;
}

function imagesOnMac(): string[] {
  const library = Deno.dlopen("/usr/lib/libSystem.B.dylib", {
    _dyld_image_count: { parameters: [], result: "u32" },
    _dyld_get_image_name: {
      parameters: [
        "u32", // uint32_t image_index
      ],
      result: "pointer",
    },
  });
  const paths: string[] = [];
  const { _dyld_image_count: count, _dyld_get_image_name: nameOf } =
    library.symbols;
  for (let index = 0; index < count(); index++) {
    const name = nameOf(index);
    if (name !== null) paths.push(Deno.UnsafePointerView.getCString(name));
  }
  library.close();
  return paths;
}

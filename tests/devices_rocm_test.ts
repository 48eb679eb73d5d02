import { skipped } from "./skipped.ts";

// The stand-in for ROCm's library needs mmap.
if (Deno.build.os === "windows") {
  skipped("the stand-in for ROCm", "run on Linux or macOS");
} else await import("./devices_rocm_cases.ts");

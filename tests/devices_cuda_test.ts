import { skipped } from "./skipped.ts";

// The stand-in for CUDA's library needs mmap.
if (Deno.build.os === "windows") {
  skipped("the stand-in for CUDA", "run on Linux or macOS");
} else await import("./devices_cuda_cases.ts");

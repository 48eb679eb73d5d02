// The stand-in for CUDA's library needs mmap.
if (Deno.build.os === "windows") {
  console.log("Skipped: the stand-in for CUDA runs on Linux and macOS");
} else await import("./devices_cuda_cases.ts");

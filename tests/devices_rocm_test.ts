// The stand-in for ROCm's library needs mmap.
if (Deno.build.os === "windows") {
  console.log("Skipped: the stand-in for ROCm runs on Linux and macOS");
} else await import("./devices_rocm_cases.ts");

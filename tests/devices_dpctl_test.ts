import { skipped } from "./skipped.ts";

// The stand-in for dpctl needs mmap.
if (Deno.build.os === "windows") {
  skipped("the stand-in for dpctl", "run on Linux or macOS");
} else await import("./devices_dpctl_cases.ts");

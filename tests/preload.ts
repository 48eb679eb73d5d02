/** What `deno test` of this version is to load first. */
export const preload: readonly string[] = Deno.version.deno.startsWith("2.7.")
  ? ["--preload=tests/old_deno.ts"]
  : [];

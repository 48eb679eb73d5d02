/** Compiles the module of nanobind's. */

/**
 * Compiles it for a Python, unless that was done before.
 *
 * @returns The folder that it is in.
 */
export function compileNanobind(python: string): string {
  const { includes, folder, version, suffix } = JSON.parse(ask(
    python,
    `
import json, nanobind, os, sys, sysconfig
print(json.dumps({
    "includes": [nanobind.include_dir(), sysconfig.get_path("include")],
    "folder": os.path.dirname(nanobind.__file__),
    "version": "%d.%d-%s" % (*sys.version_info[:2], nanobind.__version__),
    "suffix": sysconfig.get_config_var("EXT_SUFFIX"),
}))`,
  ));
  const build = new URL(
    `../../build/nanobind-${version}/`,
    import.meta.url,
  ).pathname;
  const module = `${build}nanobind_producer${suffix}`;
  const source = new URL("./nanobind_producer.cpp", import.meta.url).pathname;
  if (isNewer(module, source)) return build;
  Deno.mkdirSync(build, { recursive: true });
  const { success, stderr } = new Deno.Command(Deno.env.get("CXX") ?? "c++", {
    args: [
      ..."-O1 -std=c++17 -shared -fPIC -fvisibility=hidden".split(" "),
      "-fno-strict-aliasing",
      ...includes.map((path: string) => `-I${path}`),
      `-I${folder}/ext/robin_map/include`,
      source,
      `${folder}/src/nb_combined.cpp`,
      "-o",
      module,
    ],
  }).outputSync();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return build;
}

function ask(python: string, program: string): string {
  const { stdout } = new Deno.Command(python, { args: ["-c", program] })
    .outputSync();
  return new TextDecoder().decode(stdout);
}

function isNewer(file: string, source: string): boolean {
  try {
    return Deno.statSync(file).mtime! > Deno.statSync(source).mtime!;
  } catch {
    return false;
  }
}

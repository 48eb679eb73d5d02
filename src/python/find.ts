/**
 * Finds the Python that is meant, and what it is made of: Python itself is
 * asked, in a process of its own.
 *
 * @module
 */

/** Which Python is meant. */
export interface Wanted {
  /** Its program. */
  readonly executable?: string | undefined;
  /** Its shared library. */
  readonly library?: string | undefined;
}

/** A Python that can run in this process. */
export interface Found {
  /** Its program, as it calls itself. */
  readonly executable: string;
  /** Its shared library. */
  readonly library: string;
  /** Where its packages are: that of a virtual environment, if it is one. */
  readonly prefix: string;
}

/** What a Python says of itself. */
interface Answer {
  readonly executable: string;
  readonly prefix: string;
  readonly version: readonly [major: number, minor: number];
  readonly implementation: string;
  /** The shared libraries that it may have been built with, and those there. */
  readonly expected: readonly string[];
  readonly libraries: readonly string[];
  /** The resolved path of what was asked for, and of the libraries. */
  readonly resolved: readonly string[];
  readonly wanted: string;
}

const question = `
import json, os, sys
from sysconfig import get_config_var as get
major, minor = sys.version_info[:2]
base = sys.base_prefix
name = "python%d%d.dll" % (major, minor)
if os.name == "nt":
    expected = [os.path.join(base, name)]
else:
    names = [get("INSTSONAME"), get("LDLIBRARY")]
    folders = [get("LIBDIR"), get("LIBPL"), os.path.join(base, "lib")]
    framework = get("PYTHONFRAMEWORKPREFIX")
    if framework:
        folders.insert(0, framework)
    if get("LIBDIR") and get("MULTIARCH"):
        folders.append(os.path.join(get("LIBDIR"), get("MULTIARCH")))
    expected = [os.path.join(f, n) for f in folders if f for n in names if n]
    expected = [p for p in expected if not p.endswith(".a")]
libraries = [p for p in expected if os.path.isfile(p)]
print(json.dumps({
    "executable": sys.executable, "prefix": sys.prefix,
    "version": [major, minor], "implementation": sys.implementation.name,
    "expected": expected, "libraries": libraries,
    "resolved": [os.path.realpath(p) for p in libraries],
    "wanted": os.path.realpath(sys.argv[1]) if len(sys.argv) > 1 else "",
}))
`;

/** The oldest Python whose C API has all that is needed. */
const OLDEST = [3, 9] as const;

/** A place where Python may be. */
interface Place {
  /** What to run. */
  readonly program: string;
  /** Where that comes from, for the message. */
  readonly from: string;
  /** Whether somebody named it: then no other is taken instead. */
  readonly isNamed: boolean;
}

/** Why a place has no Python to offer. */
class NotHere extends Error {}

/**
 * Finds Python.
 *
 * @throws {Error} When there is none that can run here: with every place tried,
 * and what was said there.
 */
export function findPython(wanted: Wanted): Found {
  const { library, executable } = named(wanted);
  if (library !== undefined) return ofLibrary(library, executable);
  const failures: string[] = [];
  for (const place of placesOf(executable)) {
    try {
      const answer = ask(place.program);
      return { ...answer, library: answer.libraries[0] ?? noLibrary(answer) };
    } catch (error) {
      if (!(error instanceof NotHere)) throw error;
      const failure = `${place.from} (${error.message})`;
      // One that was named, or that runs but cannot be used, is the one.
      if (place.isNamed || error.cause !== undefined) {
        throw new Error(`Cannot open Python: tried ${failure}`);
      }
      failures.push(failure);
    }
  }
  throw new Error(
    `Cannot find Python: tried ${
      failures.join(", ")
    }. Install Python, or name ` +
      'one: Python.open({ executable: ".venv/bin/python" }), or its shared ' +
      "library in DENO_PYTHON_PATH",
  );
}

/** What is named explicitly, or by the environment. */
function named(wanted: Wanted): Wanted {
  if (wanted.library !== undefined || wanted.executable !== undefined) {
    return wanted;
  }
  const path = variable("DENO_PYTHON_PATH");
  if (path === undefined) return wanted;
  // The library is what @denosaurs/python takes there.
  return /(^|[\\/])python[\d.]*(\.exe)?$/.test(path)
    ? { executable: path }
    : { library: path };
}

/** Where Python may be, in this order. */
function* placesOf(executable: string | undefined): Generator<Place> {
  if (executable !== undefined) {
    yield { program: executable, from: executable, isNamed: true };
    return;
  }
  const isWindows = Deno.build.os === "windows";
  const inFolder = (folder: string): string =>
    isWindows ? `${folder}\\Scripts\\python.exe` : `${folder}/bin/python`;
  const venv = variable("VIRTUAL_ENV");
  if (venv !== undefined) {
    const program = inFolder(venv);
    yield { program, from: `VIRTUAL_ENV, ${program}`, isNamed: true };
  }
  const conda = variable("CONDA_PREFIX");
  if (conda !== undefined) {
    const program = isWindows ? `${conda}\\python.exe` : inFolder(conda);
    yield { program, from: `CONDA_PREFIX, ${program}`, isNamed: true };
  }
  for (const program of ["python3", "python"]) {
    yield { program, from: `${program} on PATH`, isNamed: false };
  }
  for (const program of usualPlaces()) {
    yield { program, from: program, isNamed: false };
  }
}

/** Where python.org's installers, package managers and conda put Python. */
function usualPlaces(): string[] {
  const home = variable(Deno.build.os === "windows" ? "USERPROFILE" : "HOME");
  const condas = ["miniforge3", "miniconda3", "anaconda3"];
  if (Deno.build.os === "windows") {
    const local = variable("LOCALAPPDATA");
    return [
      ...local === undefined
        ? []
        : [14, 13, 12, 11, 10, 9].map((minor) =>
          `${local}\\Programs\\Python\\Python3${minor}\\python.exe`
        ),
      ...condas.map((conda) => `${home}\\${conda}\\python.exe`),
    ];
  }
  const ofHome = home === undefined
    ? []
    : condas.map((conda) => `${home}/${conda}/bin/python`);
  const shared = ["/usr/local/bin/python3", "/opt/conda/bin/python"];
  return Deno.build.os === "darwin"
    ? [
      "/Library/Frameworks/Python.framework/Versions/Current/bin/python3",
      "/opt/homebrew/bin/python3",
      ...shared,
      ...ofHome,
    ]
    : ["/usr/bin/python3", ...shared, ...ofHome];
}

/** The Python that a shared library is of. */
function ofLibrary(library: string, executable: string | undefined): Found {
  const failures: string[] = [];
  const places = executable === undefined
    ? [...programsBeside(library), ...placesOf(undefined)]
    : [...placesOf(executable)];
  for (const { program, from } of places) {
    try {
      const answer = ask(program, library);
      if (answer.resolved.includes(answer.wanted)) {
        return { ...answer, library };
      }
      failures.push(`${from} (it is of ${answer.libraries[0] ?? "another"})`);
    } catch (error) {
      if (!(error instanceof NotHere)) throw error;
      failures.push(`${from} (${error.message})`);
    }
  }
  throw new Error(
    `Cannot tell which Python the library ${library} is of: tried ` +
      `${failures.join(", ")}. Pass its program as "executable", too`,
  );
}

/** The active environment first: it may be of that library. */
function programsBeside(library: string): Place[] {
  const active = [...placesOf(undefined)].filter(({ isNamed }) => isNamed);
  const folder = library.replace(/[\\/][^\\/]*$/, "");
  const version = /python(3\.\d+)/.exec(library)?.[1] ?? "3";
  const programs = Deno.build.os === "windows" ? [`${folder}\\python.exe`] : [
    `${folder}/../bin/python${version}`,
    `${folder}/../../bin/python${version}`,
  ];
  return [
    ...active,
    ...programs.map((program) => ({ program, from: program, isNamed: false })),
  ];
}

/** Asks a program what it is. */
function ask(program: string, ...args: readonly string[]): Answer {
  let output: Deno.CommandOutput;
  try {
    output = new Deno.Command(program, { args: ["-c", question, ...args] })
      .outputSync();
  } catch (error) {
    if (
      !(error instanceof Deno.errors.NotFound) &&
      !(error instanceof Deno.errors.PermissionDenied)
    ) throw error;
    throw new NotHere("it is not there");
  }
  const text = new TextDecoder();
  if (!output.success) throw new NotHere(reasonOf(text.decode(output.stderr)));
  const said = text.decode(output.stdout).trim().split("\n").at(-1)!;
  let answer: Answer;
  try {
    answer = JSON.parse(said);
  } catch {
    throw new NotHere(`it says ${JSON.stringify(said)}, which is no Python`);
  }
  check(answer);
  return answer;
}

/** The last line of what Python said, and what may be behind it. */
function reasonOf(said: string): string {
  // Of a Python that cannot even start, the last line is no error.
  const line = said.match(/^(\w*(Error|Exception)\b|Fatal).*/gm)?.at(-1) ??
    said.trim().split("\n").at(-1);
  const home = variable("PYTHONHOME");
  const hint = home === undefined
    ? ""
    : `; PYTHONHOME is ${home}: unset it, or name the home of this Python`;
  return (line || "it says nothing") + hint;
}

/** Checks that a Python which runs can run here. */
function check({ executable, version, implementation }: Answer): void {
  const [major, minor] = version;
  if (implementation !== "cpython") {
    throw unusable(`${executable} is ${implementation}, not CPython`);
  }
  if (major < OLDEST[0] || major === OLDEST[0] && minor < OLDEST[1]) {
    throw unusable(
      `${executable} is Python ${version.join(".")}: ${OLDEST.join(".")} or ` +
        "newer is needed",
    );
  }
}

function noLibrary({ executable, expected }: Answer): never {
  throw unusable(
    `${executable} has no shared library: there is no ` +
      `${[...new Set(expected)].join(" and no ") || "libpython"}; install a ` +
      "Python that has one (Debian: libpython3-dev; pyenv: " +
      "PYTHON_CONFIGURE_OPTS=--enable-shared)",
  );
}

/** It runs, so that no other should be taken instead. */
function unusable(message: string): NotHere {
  return new NotHere(message, { cause: "it runs" });
}

/**
 * Whether all text is UTF-8, as the locale says nothing: what Python's own program
 * does then, and Deno always.
 */
export function isUtf8(): boolean {
  const locale = variable("LC_ALL") ?? variable("LC_CTYPE") ?? variable("LANG");
  return variable("PYTHONUTF8") === undefined &&
    (locale === undefined || locale === "C" || locale === "POSIX");
}

/** An environment variable: absent, too, where it may not be read. */
function variable(name: string): string | undefined {
  try {
    return Deno.env.get(name) || undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) return undefined;
    throw error;
  }
}

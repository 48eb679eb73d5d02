/** A script of another runtime that answers a line of JSON for each it reads. */
export class ProcessPeer implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reader: ReadableStreamDefaultReader<string>;
  #rest = "";

  /** Starts a program. */
  constructor(program: string, args: string[]) {
    this.#child = new Deno.Command(program, {
      args,
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#reader = this.#child.stdout.pipeThrough(new TextDecoderStream())
      .getReader();
  }

  /** Sends a request and waits for its answer. */
  async ask<T>(request: unknown): Promise<T> {
    const line = JSON.stringify(request) + "\n";
    await this.#writer.write(new TextEncoder().encode(line));
    let end: number;
    while ((end = this.#rest.indexOf("\n")) === -1) {
      const { value, done } = await this.#reader.read();
      if (done) {
        const { code } = await this.#child.status;
        throw new Error(`The peer ended with exit status ${code}`);
      }
      this.#rest += value;
    }
    const answer = this.#rest.slice(0, end);
    this.#rest = this.#rest.slice(end + 1);
    return JSON.parse(answer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close();
    await this.#child.status;
  }
}

// A Stentor of one's own, and a link to it that can be stalled and cut.
import { spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import { createInterface } from "node:readline";
import { test as run } from "node:test";

/** A test that has failed once it has waited for so long. */
export const test = (name, body) => run(name, { timeout: 30_000 }, body);

/** Starts the program that STENTOR names; on a port of its own unless one is given. */
export async function serve(t, args = [], port = 0) {
  const child = spawn(process.env.STENTOR, ["--listen", `127.0.0.1:${port}`, "--workers", "1", "--pin", "none", ...args], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  const log = createInterface(child.stderr);
  for await (const text of log) {
    const found = /listening on http:\/\/127\.0\.0\.1:(\d+)\//.exec(text);
    if (found) {
      log.on("line", () => {}); // read on, or its log blocks it
      return { port: Number(found[1]), end: (signal) => end(child, signal) };
    }
  }
  throw new Error("it ended before it listened");
}

async function end(child, signal = "SIGKILL") {
  child.kill(signal);
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
}

/** Publishes over HTTP: not through what is tested. */
export async function publish(port, topic, data) {
  // A string is text/plain: what else it is has to be said.
  const answer = await fetch(`http://127.0.0.1:${port}/publish/${topic}?as=json`, { method: "POST", body: JSON.stringify(data) });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

/** A TCP link to a port, or to that which a function says of each connection. */
export async function link(t, to) {
  const pairs = new Set();
  let stalled = false;
  const server = net.createServer((near) => {
    const far = net.connect(typeof to === "function" ? to() : to, "127.0.0.1");
    const pair = [near, far];
    pairs.add(pair);
    for (const [one, other] of [pair, [far, near]]) {
      one.on("data", (bytes) => other.write(bytes));
      one.on("error", () => {});
      one.on("close", () => {
        pairs.delete(pair);
        other.destroy();
      });
    }
    if (stalled) pair.forEach((socket) => socket.pause());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = () => pairs.forEach((pair) => pair.forEach((socket) => socket.destroy()));
  t.after(() => {
    server.close();
    cut();
  });
  return {
    port: server.address().port,
    cut,
    stall(is) {
      stalled = is;
      pairs.forEach((pair) => pair.forEach((socket) => (is ? socket.pause() : socket.resume())));
    },
  };
}

/** What a client tells, one after the other: `next()` waits for the next, `until(found)` for the first that is found. */
export class Told {
  #all = [];
  #waiting = [];

  push(one) {
    this.#all.push(one);
    this.#waiting.shift()?.();
  }

  async next() {
    if (!this.#all.length) await new Promise((ok) => this.#waiting.push(ok));
    return this.#all.shift();
  }

  async until(found) {
    for (;;) {
      const one = await this.next();
      if (found(one)) return one;
    }
  }

  get size() {
    return this.#all.length;
  }
}

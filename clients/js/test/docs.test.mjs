// Each example of the documents, run as it stands, with a server that has the simulated market.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { test } from "node:test";

/** What examples that go on from others stand behind. */
const BEFORE = 'import { Stentor } from "stentor-client"; const client = new Stentor("ws://127.0.0.1:9001/ws"); await client.opened(); const show = console.log;\n';

async function serve(t) {
  const child = spawn(process.env.STENTOR, ["--listen", "127.0.0.1:0", "--workers", "1", "--pin", "none", "--demo", "--demo-rate", "5k/s"], { stdio: ["ignore", "ignore", "pipe"] });
  t.after(() => child.kill("SIGKILL"));
  const log = createInterface(child.stderr);
  for await (const text of log) {
    const found = /listening on http:\/\/127\.0\.0\.1:(\d+)\//.exec(text);
    if (!found) continue;
    log.on("line", () => {});
    return found[1];
  }
  throw new Error("it ended before it listened");
}

/** Runs it until it has said something. */
async function said(t, program) {
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], { stdio: ["ignore", "pipe", "pipe"] });
  t.after(() => child.kill("SIGKILL"));
  let wrong = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (wrong += text));
  const closed = once(child, "close");
  for await (const line of createInterface(child.stdout)) {
    child.kill();
    await closed;
    assert.equal(wrong, "", program);
    return line;
  }
  await closed;
  assert.fail(`it ended and said nothing but ${wrong}: ${program}`);
}

for (const name of ["clients/js/README.md", "docs/javascript.md"]) {
  const text = await readFile(`${process.env.SOURCE}/${name}`, "utf8");
  const examples = [...text.matchAll(/^```js\n([^]*?)^```/gm)].map(([, example]) => example);
  assert.ok(examples.length);
  for (const [nth, example] of examples.entries()) {
    test(`example ${nth + 1} of ${name} does what it says`, { timeout: 30_000 }, async (t) => {
      const port = await serve(t);
      const isWhole = example.includes("import {");
      const program = `${isWhole ? "" : BEFORE}${example}\nconsole.log("the end");`.replaceAll("127.0.0.1:9001", `127.0.0.1:${port}`).replace('"/stentor.js"', '"stentor-client"');
      const line = await said(t, program);
      if (/console\.log/.test(example)) assert.match(line, /demo|\d/);
      else assert.equal(line, "the end");
    });
  }
}

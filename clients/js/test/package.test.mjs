// What is in the package, and how it is found: by Node with `ws` and without, by a browser's bundler.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { cp, mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";

const folder = join(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "../node_modules/stentor-client");

test("everything that the package names is in it, and nothing else", async () => {
  const { exports, types } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const named = [types, ...Object.values(exports["."])];
  const found = (await readdir(folder, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  const files = found.map(({ parentPath, path, name }) => join(parentPath ?? path, name).slice(folder.length + 1));
  for (const one of named) assert.ok(files.includes(one.slice(2)), `${one} of ${files}`);
  assert.deepEqual(files.filter((file) => !/^(dist|examples)\//.test(file)).sort(), ["README.md", "node.js", "package.json"]);
});

test("a bundler for browsers gets the one file, which imports nothing", async () => {
  const { exports } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  assert.equal(Object.keys(exports["."])[1], "browser");
  assert.doesNotMatch(await readFile(join(folder, exports["."].browser), "utf8"), /^\s*import\b|\bimport\(/m);
});

test("without ws it is there all the same, and takes what Node has", async (t) => {
  const alone = await mkdtemp(join(tmpdir(), "stentor-package-"));
  t.after(() => rm(alone, { recursive: true, force: true }));
  await cp(folder, join(alone, "node_modules/stentor-client"), { recursive: true });
  const program = `const { Stentor } = await import("stentor-client"); const client = new Stentor("ws://127.0.0.1:1/ws", { transports: ["websocket", "events"], onState: (state, { transport }) => { console.log(state, transport); process.exit(); } });`;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", program], { cwd: alone });
  assert.equal(stdout.trim(), `connecting ${typeof WebSocket === "function" ? "websocket" : "events"}`);
});

test("compression is offered if one wants it", async (t) => {
  const { Stentor } = await import("stentor-client");
  for (const compression of [undefined, true]) {
    const server = createServer();
    t.after(() => server.close());
    await once(server.listen(0, "127.0.0.1"), "listening");
    const client = new Stentor(`ws://127.0.0.1:${server.address().port}/ws`, { compression, transports: ["websocket"] });
    const [request, socket] = await once(server, "upgrade");
    client.close();
    socket.destroy();
    assert.equal(request.headers["sec-websocket-extensions"]?.startsWith("permessage-deflate"), compression);
  }
});

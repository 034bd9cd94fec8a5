// The JavaScript client behind an nginx that breaks what others rely on: it knows no upgrade, and buffers what is streamed.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { follow, publishAll } from "./book.mjs";
import { link, serve, test } from "./server.mjs";

/** A port that nobody listens on now. */
async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** An nginx in front of a port; its own. */
async function proxy(t, back) {
  const here = await mkdtemp(join(tmpdir(), "stentor-nginx-"));
  const port = await freePort();
  const folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${here}/${name};`);
  await writeFile(
    join(here, "nginx.conf"),
    `pid ${here}/pid; error_log ${here}/error.log; events {}
     http {
       access_log off; ${folders.join(" ")}
       server {
         listen 127.0.0.1:${port};
         location / {
           proxy_pass http://127.0.0.1:${back}; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host localhost;
           proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;
         }
       }
     }`,
  );
  const nginx = spawn("nginx", ["-e", join(here, "error.log"), "-c", join(here, "nginx.conf"), "-g", "daemon off; master_process off;"], { stdio: "ignore" });
  t.after(async () => {
    nginx.kill("SIGKILL");
    await rm(here, { recursive: true, force: true, maxRetries: 5 });
  });
  for (;;) {
    assert.equal(nginx.exitCode, null, "nginx has ended");
    const socket = net.connect(port, "127.0.0.1");
    const isThere = await Promise.race([once(socket, "connect").then(() => true), once(socket, "error").then(() => false)]).catch(() => false);
    socket.destroy();
    if (isThere) return port;
    await new Promise((ok) => setTimeout(ok, 10));
  }
}

test("by polling alone, through buffers and cuts, every topic ends with exactly its sequence", async (t) => {
  const { port } = await serve(t);
  const wire = await link(t, await proxy(t, port));
  const topics = [...Array(100)].map((_, n) => `t.${n % 3}.${n}`);
  await publishAll(port, topics, 1);
  const { client, book, wrongs, heard } = follow(t, wire.port, topics, { transports: ["polling"] });
  await heard(1);
  const last = 60;
  for (let seq = 2; seq <= last; seq += 1) {
    await publishAll(port, topics, seq);
    // At any moment: before an answer, in the midst of one, behind it.
    if (seq % 2) wire.cut();
    if (seq % 10 === 0) await heard(seq);
  }
  await heard(last);
  const expected = [...Array(last)].map((_, n) => n + 1);
  for (const [topic, seqs] of book) assert.deepEqual(seqs, expected, topic);
  assert.deepEqual([wrongs, client.transport], [[], "polling"]);
});

test("it finds the way that passes by itself, comes back up once a WebSocket does, and tells everything once", async (t) => {
  const { port } = await serve(t);
  const bad = await proxy(t, port);
  let way = bad;
  const wire = await link(t, () => way);
  const topics = [...Array(20)].map((_, n) => `t.${n}`);
  await publishAll(port, topics, 1);
  const { states, book, wrongs, heard } = follow(t, wire.port, topics, { patienceMs: 1000, upgradeMs: 100 });
  // Of events, buffers let pass as much as fills them: on a busy feed they may do for a while.
  const opened = (isWebSocket) => states.until(({ state, transport }) => state === "open" && (transport === "websocket") === isWebSocket);
  let seq = 1;
  const more = async () => {
    for (let n = 0; n < 20; n += 1) await publishAll(port, topics, (seq += 1));
  };
  await opened(false);
  await heard(1);
  await more();
  way = port; // from now on nothing is in between
  await Promise.all([opened(true), more()]);
  await more();
  way = bad;
  wire.cut();
  await Promise.all([opened(false), more()]);
  await more();
  way = port;
  await Promise.all([opened(true), more()]);
  await heard(seq);
  const expected = [...Array(seq)].map((_, n) => n + 1);
  for (const [topic, seqs] of book) assert.deepEqual(seqs, expected, topic);
  assert.deepEqual(wrongs, []);
});

// Updates a second, CPU per update and memory of this client under Node, beside `ws` with JSON.parse by hand.
//
//     STENTOR=target/release/stentor node bench/rate.mjs [--updates 200000] [--rounds 3] [--raw FILE]
//
// Each round starts a server and a subscriber in a process of its own, publishes, and measures from the first update that comes to the last.
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Stentor } from "stentor-client";
import { WebSocket } from "ws";

const PAYLOAD = '{"bid":189.21,"ask":189.23,"bidsz":300,"asksz":1200,"venue":"XNAS","flags":["r","x"]}';
const LINES = 2000;
const flag = (name, other) => (process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : other);
const [updates, topics, rounds] = [Number(flag("--updates", 200_000)), Number(flag("--topics", 1000)), Number(flag("--rounds", 3))];

/** From the first update on. */
function clock(done) {
  let [left, began, cpu] = [updates, 0, undefined];
  return ({ bid }) => {
    if (!bid) throw new Error("no payload");
    if (left === updates) [began, cpu] = [performance.now(), process.cpuUsage()];
    left -= 1;
    if (left) return;
    const { user, system } = process.cpuUsage(cpu);
    done({ updates_per_s: updates / ((performance.now() - began) / 1000), cpu_us: (user + system) / updates, rss_mib: process.memoryUsage().rss / 2 ** 20 });
  };
}

const variants = {
  async callbacks(url, ready, done) {
    const tick = clock(done);
    const client = new Stentor(url);
    client.subscribe("b.*", { onUpdate: ({ data }) => tick(data) });
    await client.opened();
    await client.ping();
    ready();
  },
  async loop(url, ready, done) {
    const tick = clock(done);
    const client = new Stentor(url);
    const feed = client.events("b.*", { bufferBytes: 2 ** 30 });
    await client.opened();
    await client.ping();
    ready();
    for await (const event of feed) if (event.type === "update") tick(event.data);
  },
  ws(url, ready, done) {
    const tick = clock(done);
    const socket = new WebSocket(url);
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "hello") socket.send('{"op":"sub","topics":["b.*"]}');
      else if (message.type === "ack") ready();
      else if (message.type === "update") tick(message.data);
    };
  },
};

async function measure(variant) {
  const server = spawn(process.env.STENTOR, ["--listen", "127.0.0.1:0", "--workers", "1", "--retain", "512MiB"], { stdio: ["ignore", "ignore", "pipe"] });
  try {
    let port;
    for await (const text of createInterface(server.stderr)) if ((port = /listening on http:\/\/127\.0\.0\.1:(\d+)\//.exec(text)?.[1])) break;
    const child = spawn(process.execPath, [fileURLToPath(import.meta.url), "--subscriber", variant, "--url", `ws://127.0.0.1:${port}/ws`, "--updates", `${updates}`], { stdio: ["ignore", "pipe", "inherit"] });
    const said = createInterface(child.stdout)[Symbol.asyncIterator]();
    if ((await said.next()).value !== "ready") throw new Error(`${variant} did not subscribe`);
    for (let first = 0; first < updates; first += LINES) {
      const lines = [...Array(Math.min(LINES, updates - first))].map((_, n) => `{"topic":"b.${(first + n) % topics}","data":${PAYLOAD}}\n`);
      await (await fetch(`http://127.0.0.1:${port}/publish`, { method: "POST", body: lines.join("") })).text();
    }
    return JSON.parse((await said.next()).value);
  } finally {
    server.kill("SIGKILL");
  }
}

const variant = flag("--subscriber");
if (variant) {
  const done = (found) => {
    console.log(JSON.stringify(found));
    process.exit();
  };
  await variants[variant](flag("--url"), () => console.log("ready"), done);
} else {
  const found = Object.fromEntries(Object.keys(variants).map((name) => [name, []]));
  for (let round = 0; round < rounds; round += 1) for (const name of Object.keys(variants)) found[name].push(await measure(name));
  const median = (values) => values.sort((one, other) => one - other)[Math.floor(values.length / 2)];
  for (const [name, all] of Object.entries(found)) {
    const of = (field) => median(all.map((one) => one[field]));
    console.log(`${name.padEnd(12)} ${Math.round(of("updates_per_s"))} updates/s  ${of("cpu_us").toFixed(2)} us CPU each  ${Math.round(of("rss_mib"))} MiB`);
  }
  if (flag("--raw")) writeFileSync(flag("--raw"), JSON.stringify({ node: process.version, updates, topics, rounds: found }, null, 1));
}

// A program that takes updates through this client, or through `ws` with JSON.parse by hand, and looks at a field of each payload: what `scripts/drivers` measures.
//
//     node subscriber.mjs VARIANT URL COUNT…
//
// It writes `ready` when it has subscribed, and `done` behind as many updates as each count says.
import { writeSync } from "node:fs";
import { Stentor } from "stentor-client";
import { WebSocket } from "ws";

const [variant, url, ...counts] = process.argv.slice(2);
const say = (word) => writeSync(1, `${word}\n`);
let left = Number(counts.shift());

function tick({ bid }) {
  if (!bid) throw new Error("no payload");
  left -= 1;
  if (left) return;
  say("done");
  left = counts.length ? Number(counts.shift()) : Infinity;
}

const variants = {
  async callbacks() {
    const client = new Stentor(url);
    client.subscribe("b.*", { onUpdate: ({ data }) => tick(data) });
    await client.opened();
    await client.ping();
    say("ready");
  },
  async loop() {
    const client = new Stentor(url);
    const feed = client.events("b.*", { bufferBytes: 2 ** 30 });
    await client.opened();
    await client.ping();
    say("ready");
    for await (const event of feed) if (event.type === "update") tick(event.data);
  },
  ws() {
    const socket = new WebSocket(url, { perMessageDeflate: false });
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "hello") socket.send('{"op":"sub","topics":["b.*"]}');
      else if (message.type === "ack") say("ready");
      else if (message.type === "update") tick(message.data);
    };
  },
};
process.stdin.resume().on("end", () => process.exit());
await variants[variant]();

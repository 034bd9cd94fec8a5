// How many bytes Centrifugo sends a subscriber of a recording's topics, as they are and as deltas (Fossil). Prints one line: publications, bytes of the one
// and of the other, those of WebSocket's frames included. Only bytes are counted: what they come to is for its own clients to know.
// Usage: node deltas.js PORT RECORDING [LINES]
const fs = require("node:fs");
const WebSocket = require("ws");

const [, , port, file, most] = process.argv;
const lines = fs.readFileSync(file, "utf8").split("\n").slice(0, Number(most ?? 5000));
// As it stands in the recording: numbers keep their zeros.
const publications = lines.flatMap((line) => {
  const at = line.indexOf(',"data":');
  return at < 0 ? [] : [{ channel: JSON.parse(line).topic, data: line.slice(at + 8, line.lastIndexOf("}")) }];
});
const channels = [...new Set(publications.map(({ channel }) => channel))];

// A client whose commands are answered in order.
async function client() {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/connection/websocket`, { perMessageDeflate: false });
  await new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject));
  const waiting = new Map();
  const self = { socket, pushed: 0, deltas: 0, told: () => {} };
  socket.on("message", (text) => {
    for (const line of text.toString().split("\n").filter(Boolean)) {
      const message = JSON.parse(line);
      if (line === "{}") socket.send("{}");
      if (message.push?.pub) {
        self.pushed += 1;
        self.deltas += message.push.pub.delta ? 1 : 0;
        self.told();
      }
      if (message.error) throw new Error(line);
      waiting.get(message.id)?.();
    }
  });
  let asked = 0;
  self.ask = (what) => {
    const id = ++asked;
    const answered = new Promise((resolve) => { waiting.set(id, resolve); });
    socket.send(what.replace("{", `{"id":${id},`));
    return answered;
  };
  await self.ask('{"connect":{}}');
  return self;
}

async function main() {
  const [publisher, clear, delta] = [await client(), await client(), await client()];
  for (const channel of channels) {
    const name = JSON.stringify(channel);
    await clear.ask(`{"subscribe":{"channel":${name}}}`);
    await delta.ask(`{"subscribe":{"channel":${name},"delta":"fossil"}}`);
  }
  const before = [clear, delta].map(({ socket }) => socket._socket.bytesRead);
  const all = Promise.all([clear, delta].map((self) => new Promise((resolve) => {
    self.told = () => { if (self.pushed === publications.length) resolve(); };
  })));
  // Each once the one before was taken.
  for (const { channel, data } of publications) {
    await publisher.ask(`{"publish":{"channel":${JSON.stringify(channel)},"data":${data}}}`);
  }
  await all;
  const bytes = [clear, delta].map(({ socket }, n) => socket._socket.bytesRead - before[n]);
  if (delta.deltas === 0) throw new Error("no deltas came");
  console.log(publications.length, ...bytes);
  process.exit(0);
}

setTimeout(() => { throw new Error("it takes too long"); }, 60_000).unref();
main();

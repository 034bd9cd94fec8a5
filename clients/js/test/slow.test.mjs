// What waits for a loop under Node, where a few bytes of the network are many of memory.
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { WebSocketServer } from "ws";
import { Stentor } from "stentor-client";

const COUNT = 600;
const DATA = "x".repeat(50_000);

/** A server that sends updates of a topic, of which each comes to a thousand times its bytes on the wire, and then one of another. */
async function bombs(t) {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1", perMessageDeflate: { threshold: 0 } });
  t.after(() => server.close());
  server.on("connection", (socket) => {
    const say = (message) => socket.send(JSON.stringify(message));
    say({ type: "hello", version: 1, server: "test", conn: "1", ts: 1, heartbeat: 0, limits: { topics: 1024, message: 65536 } });
    socket.on("message", (text) => {
      const { op, id, topics } = JSON.parse(text);
      if (op !== "sub") return;
      say({ type: "ack", id, topics: topics.map((topic) => ({ topic, mode: "all", epoch: "k", seq: 0 })) });
      if (!topics.includes("a")) return;
      for (let seq = 1; seq <= COUNT; seq += 1) say({ type: "update", topic: "a", epoch: "k", seq, ts: seq, data: DATA });
      say({ type: "update", topic: "end", epoch: "k", seq: 1, ts: 1, data: socket._socket.bytesWritten });
    });
  });
  await once(server, "listening");
  return `ws://127.0.0.1:${server.address().port}/ws`;
}

for (const whenSlow of ["latest", "error"]) {
  test(`messages that inflate a thousand times are held by what they come to: ${whenSlow}`, async (t) => {
    const client = new Stentor(await bombs(t), { compression: true, transports: ["websocket"] });
    t.after(() => client.close());
    await client.opened();
    const end = new Promise((ok) => client.subscribe("end", { onUpdate: ok }));
    const bufferBytes = 2_000_000;
    const feed = client.events("a", { bufferBytes, whenSlow });
    let most = 0;
    const put = feed.put.bind(feed);
    feed.put = (event) => {
      put(event);
      most = Math.max(most, feed.bytes);
    };
    await end;
    assert.ok(most <= bufferBytes + 500 + 8 * (DATA.length + 2), `it has held ${most} bytes`);
    const told = [];
    try {
      for await (const event of feed) {
        told.push(event.type === "skip" ? [event.from, event.to] : event.seq);
        if (event.type === "update") assert.equal(event.data, DATA);
        if (event.seq === COUNT) break;
      }
      assert.equal(whenSlow, "latest");
      assert.equal(told.flat().at(-1), COUNT);
      assert.equal(told[0][0], 1, "what was left out is told first");
    } catch (error) {
      assert.equal(error.code, whenSlow === "error" && "too_slow", error);
    }
  });
}

// The JavaScript client in a loop: what waits for a program that is slow, and what ends the loop. And what it does with tokens, and with what is gone.
import assert from "node:assert/strict";
import { Feed, Stentor } from "../../src/control/console/stentor.js";
import { Told, test } from "./server.mjs";

/** A world with a WebSocket whose server is the test. */
function world(t, options = {}) {
  const [sockets, states, errors] = [new Told(), new Told(), new Told()];
  class FakeSocket {
    sent = new Told();
    constructor() {
      sockets.push(this);
    }
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close() {}
    says(message) {
      this.onmessage({ data: JSON.stringify(message) });
    }
    hello() {
      this.says({ type: "hello", version: 1, server: "test", conn: "1", ts: 1, heartbeat: 0, limits: { topics: 1024, message: 65536 } });
    }
    ends(code, reason = "") {
      this.onclose({ code, reason });
    }
    async takes() {
      const command = await this.sent.until(({ op }) => op === "sub");
      const topics = command.topics.map((topic) => ({ topic, mode: "all", ...(!/[*>]/.test(topic) && { epoch: "k", seq: 0 }) }));
      this.says({ type: "ack", id: command.id, topics });
      return command;
    }
    async pongs() {
      this.says({ type: "pong", id: (await this.sent.until(({ op }) => op === "ping")).id, ts: 1 });
    }
  }
  const client = new Stentor("ws://test/ws", {
    WebSocket: FakeSocket,
    backoffMs: [1, 4],
    transports: ["websocket"],
    onState: (state, detail) => states.push({ state, ...detail }),
    onError: (error) => errors.push(error),
    ...options,
  });
  t.after(() => client.close());
  return { client, sockets, states, errors };
}

const update = (topic, seq, more = {}) => ({ type: "update", topic, seq, ts: seq, ...more, data: seq, json: `${seq}` });
const lines = (events) => events.map((event) => (event.type === "skip" ? `${event.topic} without ${event.from} to ${event.to}: ${event.why}` : `${event.type} ${event.topic ?? event.code} ${event.seq ?? ""}`.trim()));

/** All that a feed holds, and then its end. */
async function rest(feed) {
  feed.end();
  const events = [];
  for await (const event of feed) events.push(event);
  return events;
}

/** A feed that holds some events of a byte or so. */
const small = (events, whenSlow = "latest") => new Feed(events * 520, whenSlow, () => {});

test("a loop is told everything in order, and leaving it ends the subscription", async (t) => {
  const { client, sockets } = world(t);
  const feed = client.events("a");
  const socket = await sockets.next();
  socket.hello();
  await socket.takes();
  for (const seq of [1, 2]) socket.says(update("a", seq));
  socket.says({ type: "skip", topic: "a", from: 3, to: 5, why: "slow" });
  socket.says({ type: "status", code: "stale", topics: ["a"] });
  socket.says(update("a", 6));
  const told = [];
  for await (const event of feed) {
    told.push(event);
    if (told.length === 5) break;
  }
  assert.deepEqual(lines(told), ["update a 1", "update a 2", "a without 3 to 5: slow", "status stale", "update a 6"]);
  assert.deepEqual((await socket.sent.until(({ op }) => op === "unsub")).topics, ["a"]);
  assert.deepEqual(await feed.next(), { value: undefined, done: true });
});

test("a loop ends with its client, and throws what the server refuses", async (t) => {
  const { client, sockets } = world(t);
  const [closed, refused] = [client.events("a"), client.events("a..b")];
  const waiting = closed.next();
  const socket = await sockets.next();
  socket.hello();
  await socket.takes();
  const { id } = await socket.sent.until(({ op }) => op === "sub");
  socket.says({ type: "error", id, code: "bad_topic", message: "a..b is no name" });
  await assert.rejects(refused.next(), { code: "bad_topic" });
  client.close();
  assert.deepEqual(await waiting, { value: undefined, done: true });
});

test("of what waits too long only the newest value of each topic stays, behind what it replaces", async () => {
  const feed = small(20);
  for (let seq = 1; seq <= 100; seq += 1) for (const topic of ["a", "b"]) feed.put(update(topic, seq));
  const events = await rest(feed);
  assert.ok(events.length <= 22, `${events.length}`);
  for (const topic of ["a", "b"]) {
    let next = 1;
    for (const event of events.filter((event) => event.topic === topic)) {
      assert.equal(event.type === "skip" ? event.from : event.seq, next);
      next = (event.type === "skip" ? event.to : event.seq) + 1;
    }
    assert.equal(next, 101);
  }
});

test("resets and what is told to be missing stay in their places", async () => {
  const feed = small(5);
  feed.put(update("a", 5));
  feed.put({ type: "reset", topic: "a", epoch: "k2", seq: 0, why: "cursor" });
  feed.put(update("a", 1));
  feed.put({ type: "skip", topic: "a", from: 2, to: 4, why: "too_large" });
  feed.put(update("b", 1));
  feed.put({ type: "status", code: "stale", topics: ["b"] });
  assert.deepEqual(lines(await rest(feed)), ["reset a 0", "update a 1", "update b 1", "status stale", "a without 2 to 4: too_large"]);
});

test("of a topic with keyframes what came since the newest stays", async () => {
  const feed = small(8);
  for (let seq = 1; seq <= 9; seq += 1) feed.put(update("a", seq, { key: seq === 2 || seq === 7 }));
  assert.deepEqual(lines(await rest(feed)), ["a without 1 to 6: slow", "update a 7", "update a 8", "update a 9"]);
});

test("very many topics are no more than twice their newest values", async () => {
  const feed = small(10);
  for (let seq = 1; seq <= 30; seq += 1) for (let n = 0; n < 1000; n += 1) feed.put(update(`t.${n}`, seq));
  const events = await rest(feed);
  assert.equal(events.filter(({ type, seq }) => type === "update" && seq === 30).length, 1000);
  assert.ok(events.length <= 5000, `${events.length}`);
});

test("who wants to be told that it is slow is, behind what had come", async () => {
  const feed = small(3, "error");
  for (let seq = 1; seq <= 9; seq += 1) feed.put(update("a", seq));
  const seqs = [];
  const loop = (async () => {
    for await (const { seq } of feed) seqs.push(seq);
  })();
  await assert.rejects(loop, { code: "too_slow" });
  assert.deepEqual(seqs, [1, 2, 3, 4]);
});

test("a function is asked for a token at each connecting, and when one expires", async (t) => {
  let asked = 0;
  const { sockets, states } = world(t, { token: async () => `T${(asked += 1)}` });
  const first = await sockets.next();
  first.hello();
  assert.equal((await first.sent.next()).token, "T1");
  first.says({ type: "status", code: "token_expiring", in: 1 });
  assert.equal((await first.sent.until(({ op }) => op === "auth")).token, "T2");
  for (const token of ["T3", "T4"]) {
    (token === "T3" ? first : await sockets.next()).ends(4001, "expired");
    if (token === "T4") continue;
    assert.equal((await states.until(({ state }) => state === "waiting")).code, 4001);
  }
  const third = await sockets.next();
  third.hello();
  assert.equal((await third.sent.next()).token, "T4");
  third.ends(4001, "wrong");
  assert.equal((await states.until(({ state }) => state === "refused")).why, "wrong");
});

test("a function that has no token is asked again later", async (t) => {
  let asked = 0;
  const token = async () => {
    if ((asked += 1) === 1) throw new Error("not now");
    return "T";
  };
  const { sockets, states } = world(t, { token });
  assert.match((await states.until(({ state }) => state === "waiting")).why, /no token: not now/);
  const socket = await sockets.next();
  socket.hello();
  assert.equal((await socket.sent.next()).token, "T");
});

test("after a loss a topic that is gone is told, once the last values have come", async (t) => {
  const { client, sockets } = world(t);
  const told = [];
  client.subscribe("p.*", { onSnapshot: ({ topic }) => told.push(topic), onReset: ({ topic, why }) => told.push(`${topic} anew: ${why}`) });
  const snapshot = (topic) => ({ type: "snapshot", topic, epoch: "k", seq: 4, ts: 1, data: 1 });
  const first = await sockets.next();
  first.hello();
  await first.takes();
  for (const topic of ["p.a", "p.b"]) first.says(snapshot(topic));
  first.ends(1006);
  const second = await sockets.next();
  second.hello();
  // Named to be resumed; then it isn't there.
  const { from } = await second.takes();
  assert.deepEqual(from, { "p.a": ["k", 4], "p.b": ["k", 4] });
  await second.pongs();
  assert.deepEqual(told, ["p.a", "p.b"]);
  second.says({ type: "reset", topic: "p.b", epoch: "k2", seq: 0, why: "epoch" });
  second.ends(1006);
  const third = await sockets.next();
  third.hello();
  await third.takes();
  third.says({ ...snapshot("p.a"), seq: 5 });
  await third.pongs();
  assert.deepEqual(told.slice(2), ["p.b anew: epoch", "p.a"]);
});

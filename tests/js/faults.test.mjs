// The JavaScript client with a server that does what servers must not, and what they seldom do.
import assert from "node:assert/strict";
import { Stentor, matches } from "../../src/control/console/stentor.js";
import { Told, test } from "./server.mjs";

/** A world with a WebSocket whose server is the test. */
function world(t, options = {}) {
  const sockets = new Told();
  const states = new Told();
  const errors = new Told();
  class FakeSocket {
    sent = new Told();
    constructor(url, protocol) {
      Object.assign(this, { url, protocol });
      sockets.push(this);
    }
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close() {}
    says(message) {
      this.writes(JSON.stringify(message));
    }
    writes(text) {
      this.onmessage({ data: text });
    }
    hello(limits = { topics: 1024, message: 65536 }) {
      this.says({ type: "hello", version: 1, server: "test", conn: "1", ts: 1, heartbeat: 0, limits });
    }
    ends(code, reason = "") {
      this.onclose({ code, reason });
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

/** Acknowledges a sub. */
async function ack(socket, epoch, seq) {
  const command = await socket.sent.until(({ op }) => op === "sub");
  const topics = command.topics.map((topic) => ({ topic, mode: "all", ...(!/[*>]/.test(topic) && { epoch, seq }) }));
  socket.says({ type: "ack", id: command.id, topics });
  return command;
}

const update = (topic, seq) => ({ type: "update", topic, seq, ts: seq, data: seq });

test("a gap is an error, and what is missing is asked for on another connection", async (t) => {
  const { client, sockets, errors } = world(t);
  const seqs = [];
  client.subscribe("a", { onUpdate: ({ seq }) => seqs.push(seq) });
  const first = await sockets.next();
  first.hello();
  await ack(first, "k", 4);
  for (const seq of [5, 6, 9]) first.says(update("a", seq));
  const error = await errors.next();
  assert.deepEqual([error.code, error.topic, error.from, error.to], ["gap", "a", 7, 8]);
  const second = await sockets.next();
  second.hello();
  assert.deepEqual((await ack(second, "k", 9)).from, { a: ["k", 6] });
  for (const seq of [7, 8, 9]) second.says(update("a", seq));
  assert.deepEqual(seqs, [5, 6, 7, 8, 9]);
});

test("a payload's own text is found behind whatever else a server says", async (t) => {
  const { client, sockets } = world(t);
  const got = [];
  client.subscribe("a", { onUpdate: ({ json }) => got.push(json) });
  const socket = await sockets.next();
  socket.hello();
  await ack(socket, "k", 4);
  socket.writes('{"type":"update","topic":"a","seq":5,"ts":1,"note":{"data":[1,"\\"data\\":2"]},"kind":"data","data" : 0.10 }');
  socket.writes('{"type":"update","topic":"a","seq":6,"ts":1,"data":{"}":"{"}}');
  socket.writes('{"type":"update","topic":"a","seq":7,"ts":1,"data": 1.50 }');
  socket.writes('{"type":"update","topic":"a","seq":8,"ts":1,"json":"no","data":8}');
  socket.writes('{"json":"no","type":"update","topic":"\\u0061","seq":9,"ts":1,"data":"\\u0061"}');
  assert.deepEqual(got, ["0.10", '{"}":"{"}', "1.50", "8", '"\\u0061"']);
});

test("what comes twice is told once", async (t) => {
  const { client, sockets } = world(t);
  const seqs = [];
  client.subscribe("a", { onUpdate: ({ seq }) => seqs.push(seq) });
  const socket = await sockets.next();
  socket.hello();
  await ack(socket, "k", 4);
  for (const seq of [5, 5, 4, 6]) socket.says(update("a", seq));
  assert.deepEqual(seqs, [5, 6]);
});

test("holes are expected in mode latest", async (t) => {
  const { client, sockets, errors } = world(t);
  const seqs = [];
  client.subscribe("a", { mode: "latest", onUpdate: ({ seq }) => seqs.push(seq) });
  const socket = await sockets.next();
  socket.hello();
  await ack(socket, "k", 4);
  for (const seq of [5, 9, 20]) socket.says(update("a", seq));
  assert.deepEqual(seqs, [5, 9, 20]);
  assert.equal(errors.size, 0);
});

test("a snapshot goes to the subscription that asked for it", async (t) => {
  const { client, sockets } = world(t);
  const got = [];
  client.subscribe(">", { onSnapshot: () => got.push("all") });
  client.subscribe("a", { onSnapshot: () => got.push("one") });
  const socket = await sockets.next();
  socket.hello();
  const snapshot = { type: "snapshot", topic: "a", epoch: "k", seq: 4, ts: 1, data: 1 };
  for (const _ of [1, 2]) {
    await ack(socket, "k", 4);
    socket.says(snapshot);
  }
  assert.deepEqual(got, ["all", "one"]);
});

test("a publication that was too large is told in its place, is no gap, and is where a topic is resumed", async (t) => {
  const { client, sockets } = world(t);
  const [got, errors] = [[], []];
  client.subscribe("a.>", {
    onUpdate: ({ seq }) => got.push(seq),
    onSkip: ({ from, to, why }) => got.push(`${from} to ${to} ${why}`),
    onError: (error) => errors.push(error),
  });
  const first = await sockets.next();
  first.hello();
  await ack(first);
  const left = (seq, epoch) => ({ type: "skip", topic: "a.b", ...(epoch && { epoch }), from: seq, to: seq, why: "too_large" });
  first.says(left(5, "k"));
  first.says(update("a.b", 6));
  first.says(left(7));
  first.says(update("a.b", 8));
  first.says(left(9));
  assert.deepEqual(got.splice(0), ["5 to 5 too_large", 6, "7 to 7 too_large", 8, "9 to 9 too_large"]);
  first.ends(4100, "lagged");
  const second = await sockets.next();
  second.hello();
  const { from } = await ack(second, "k", 9);
  assert.deepEqual(from, { "a.b": ["k", 9] });
  second.says(left(10));
  second.says(update("a.b", 12));
  assert.deepEqual(got, ["10 to 10 too_large"]);
  assert.deepEqual(errors.map(({ code, from, to }) => [code, from, to]), [["gap", 11, 11]]);
});

test("a first publication says in which epoch its topic has begun, whatever was expected before", async (t) => {
  const { client, sockets, errors } = world(t);
  const told = [];
  client.subscribe("a", { onUpdate: ({ seq }) => told.push(seq), onReset: (reset) => told.push(reset) });
  const first = await sockets.next();
  first.hello();
  await ack(first, "k", 0); // others were forgotten since, so that topics begin in another
  first.says({ ...update("a", 1), epoch: "k2" });
  first.says(update("a", 2));
  assert.deepEqual([told, client.place("a"), errors.size], [[1, 2], ["k2", 2], 0]);
  first.ends(1006);
  const second = await sockets.next();
  second.hello();
  assert.deepEqual((await ack(second, "k2", 3)).from, { a: ["k2", 2] });
});

test("a first publication that was too large is told to everybody who has subscribed, and says the epoch", async (t) => {
  const { client, sockets } = world(t);
  const got = [];
  const onSkip = (name) => ({ to, why }) => got.push(`${name} ${to} ${why}`);
  client.subscribe("a.>", { onSkip: onSkip("pattern") });
  client.subscribe("a.b", { onSkip: onSkip("exact") });
  const first = await sockets.next();
  first.hello();
  for (const _ of [1, 2]) await ack(first, "k", 0);
  const skip = { type: "skip", topic: "a.b", epoch: "k", from: 1, to: 1, why: "too_large" };
  first.says(skip);
  assert.deepEqual(got.splice(0), ["pattern 1 too_large", "exact 1 too_large"]);
  assert.deepEqual(client.place("a.b"), ["k", 1]);
  // Behind an ack it is in the place of a snapshot, and for whom it is.
  client.subscribe("a.*", { onSkip: onSkip("third") });
  await ack(first);
  first.says(skip);
  assert.deepEqual(got, ["third 1 too_large"]);
});

test("topics that were there before a loss in the midst of the last values are not taken for new", async (t) => {
  const { client, sockets } = world(t);
  const skips = [];
  client.subscribe(">", { onSkip: (skip) => skips.push(skip) });
  const snapshot = (topic) => ({ type: "snapshot", topic, epoch: "k", seq: 5, ts: 1, data: 1 });
  const first = await sockets.next();
  first.hello();
  await ack(first);
  first.says(snapshot("a"));
  first.ends(1006);
  const second = await sockets.next();
  second.hello();
  await ack(second, "k", 5);
  for (const topic of ["a", "b"]) second.says(snapshot(topic));
  second.says({ type: "heartbeat", ts: 1 });
  assert.deepEqual(skips, []);
  second.ends(1006);
  const third = await sockets.next();
  third.hello();
  await ack(third, "k", 5);
  third.says(snapshot("c"));
  assert.deepEqual(skips, [{ topic: "c", from: 1, to: 4, why: "reconnect" }]);
});

test("a subscription hears nothing before the server has taken it, though another brings its topic", async (t) => {
  const { client, sockets } = world(t);
  const [first, second] = [[], []];
  client.subscribe(">", { onUpdate: ({ seq }) => first.push(seq) });
  const socket = await sockets.next();
  socket.hello();
  await ack(socket);
  client.subscribe("a", { onUpdate: ({ seq }) => second.push(seq), from: { a: ["k", 2] } });
  socket.says(update("a", 4));
  await ack(socket, "k", 2);
  for (const seq of [3, 4, 5]) socket.says(update("a", seq));
  assert.deepEqual([first, second], [[4, 5], [3, 4, 5]]);
});

test("a pattern's topics are resumed as many as the server's limits allow, the others tell what is missing", async (t) => {
  const { client, sockets } = world(t);
  const skips = [];
  client.subscribe("p.>", { onSkip: (skip) => skips.push(skip) });
  const first = await sockets.next();
  first.hello();
  await ack(first);
  for (let n = 0; n < 100; n += 1) first.says({ type: "snapshot", topic: `p.${n}`, epoch: "k", seq: 5, ts: 1, data: 1 });
  first.ends(4100, "lagged");
  const second = await sockets.next();
  const limits = { topics: 10, message: 512 };
  second.hello(limits);
  const resumed = [];
  for (let asked = true; asked; ) {
    const command = await ack(second, "k", 7);
    assert.ok(JSON.stringify(command).length <= limits.message);
    resumed.push(...Object.keys(command.from ?? {}));
    asked = !command.topics.includes("p.>");
  }
  assert.equal(resumed.length, 9);
  const [inside, outside] = [resumed[0], "p.99"];
  second.says(update(inside, 6));
  second.says({ type: "snapshot", topic: outside, epoch: "k", seq: 8, ts: 1, data: 1 });
  assert.deepEqual(skips, [{ topic: outside, from: 6, to: 7, why: "reconnect" }]);
  assert.deepEqual((await second.sent.until(({ op }) => op === "unsub")).topics, resumed);
});

test("many names go in several commands; if one is refused, none stays", async (t) => {
  const { client, sockets, errors } = world(t);
  const socket = await sockets.next();
  const limits = { topics: 1024, message: 512 };
  socket.hello(limits);
  const names = [...Array(100)].map((_, n) => `topic.number.${n}`);
  client.subscribe(names);
  const commands = [];
  while (commands.flatMap(({ topics }) => topics).length < names.length) commands.push(await socket.sent.next());
  assert.ok(commands.length > 1 && commands.every((command) => JSON.stringify(command).length <= limits.message));
  socket.says({ type: "error", id: commands[1].id, code: "server_full", message: "full" });
  assert.equal((await errors.next()).code, "server_full");
  const ended = [];
  while (ended.length < names.length) ended.push(...(await socket.sent.until(({ op }) => op === "unsub")).topics);
  assert.deepEqual(ended, names);
});

test("no more topics are remembered than topicsMax, and all are delivered", async (t) => {
  const { client, sockets } = world(t, { topicsMax: 10 });
  let updates = 0;
  client.subscribe(">", { onUpdate: () => (updates += 1), onSnapshot: () => (updates += 1) });
  const first = await sockets.next();
  first.hello();
  await ack(first);
  for (let n = 0; n < 1000; n += 1) first.says({ type: "snapshot", topic: `p.${n}`, epoch: "k", seq: 5, ts: 1, data: 1 });
  assert.equal(updates, 1000);
  first.ends(1006);
  const second = await sockets.next();
  second.hello();
  assert.equal(Object.keys((await ack(second, "k", 5)).from).length, 10);
});

test("delays are random below a bound that doubles, and begin small again after a good connection only", async (t) => {
  t.mock.method(Math, "random", () => 0.5);
  const { sockets, states } = world(t, { backoffMs: [2, 14] });
  for (const expected of [1, 2, 4, 7, 7]) {
    const socket = await sockets.next();
    socket.hello(); // a greeting alone is no good connection
    socket.ends(1006);
    assert.equal((await states.until(({ state }) => state === "waiting")).retryMs, expected);
  }
});

test("a window that the server named is kept to, once", async (t) => {
  t.mock.method(Math, "random", () => 0.5);
  const { sockets, states } = world(t);
  const first = await sockets.next();
  first.hello();
  first.says({ type: "status", code: "draining", retry_ms: [10, 30] });
  first.ends(1001);
  assert.equal((await states.until(({ state }) => state === "waiting")).retryMs, 20);
  (await sockets.next()).ends(1006);
  assert.equal((await states.until(({ state }) => state === "waiting")).retryMs, 1);
});

test("after 4003 and 1013 it stays away for long; after 4001 for good", async (t) => {
  t.mock.method(Math, "random", () => 0);
  const { client, sockets, states } = world(t, { backoffMs: [1, 40] });
  for (const code of [4003, 1013]) {
    (await sockets.next()).ends(code);
    assert.equal((await states.until(({ state }) => state === "waiting")).retryMs, 20);
  }
  const opened = client.opened();
  (await sockets.next()).ends(4001, "no");
  assert.equal((await states.until(({ state }) => state === "refused")).why, "no");
  await assert.rejects(opened, { code: "unauthorized" });
});

test("publications without an answer are told so, and are bounded", async (t) => {
  const { client, sockets } = world(t, { publishesMax: 2 });
  const socket = await sockets.next();
  socket.hello();
  const waiting = [client.publish("a", 1), client.publish("a", 2)];
  await assert.rejects(client.publish("a", 3), { code: "busy" });
  socket.ends(1006);
  for (const one of waiting) await assert.rejects(one, { code: "disconnected" });
});

test("nothing is sent on a connection that is closing, and who asks is told when it has closed", async (t) => {
  const { client, sockets } = world(t);
  const socket = await sockets.next();
  socket.hello();
  socket.readyState = 2;
  const asked = [client.ping(), client.publish("a", 1)];
  assert.equal(socket.sent.size, 0);
  socket.ends(4100, "lagged");
  for (const one of asked) await assert.rejects(one, { code: "disconnected" });
});

test("a callback that throws is reported, and stops nothing", async (t) => {
  const thrown = new Told();
  const listeners = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.once("uncaughtException", (error) => thrown.push(error));
  t.after(() => listeners.forEach((listener) => process.on("uncaughtException", listener)));
  const { client, sockets } = world(t);
  const seqs = [];
  client.subscribe("a", {
    onUpdate({ seq }) {
      seqs.push(seq);
      if (seq === 5) throw new Error("mine");
    },
  });
  const socket = await sockets.next();
  socket.hello();
  await ack(socket, "k", 4);
  for (const seq of [5, 6]) socket.says(update("a", seq));
  assert.equal((await thrown.next()).message, "mine");
  assert.deepEqual(seqs, [5, 6]);
});

test("what is not JSON ends the connection, which is made anew", async (t) => {
  const { sockets, states } = world(t);
  const socket = await sockets.next();
  socket.onmessage({ data: "<html>" });
  assert.match((await states.until(({ state }) => state === "waiting")).why, /not JSON/);
  await sockets.next();
});

test("a publication with something behind it is not JSON either", async (t) => {
  const { client, sockets, states } = world(t);
  client.subscribe("a");
  const socket = await sockets.next();
  socket.hello();
  await ack(socket, "k", 4);
  socket.writes('{"type":"update","topic":"a","seq":5,"ts":1,"data":5}}');
  assert.match((await states.until(({ state }) => state === "waiting")).why, /not JSON/);
});

test("names match as the server has it", () => {
  for (const [name, topic, expected] of [
    ["a.b", "a.b", true],
    ["a.b", "a.c", false],
    ["a.*", "a.b", true],
    ["a.*", "a", false],
    ["a.*", "a.b.c", false],
    ["*.b", "a.b", true],
    ["a.>", "a.b.c", true],
    ["a.>", "a", false],
    ["a.>", "b.a", false],
    ["*.>", "a.b", true],
    ["*.>", "a", false],
    [">", "a", true],
    ["*", "a.b", false],
  ]) {
    assert.equal(matches(name, topic), expected, `${name} ${topic}`);
  }
});

// The JavaScript client's cursor, and its ways to a server: with one that is the test, over a WebSocket, events and polls.
import assert from "node:assert/strict";
import { Stentor } from "../../src/control/console/stentor.js";
import { Told, test } from "./server.mjs";

/** A request that the client has made. */
class Request {
  #settle;
  #stream;
  isAborted = false;

  constructor(url, { headers, signal, method = "GET", body } = {}) {
    Object.assign(this, { url: new URL(url), headers, method, body });
    this.answered = new Promise((ok, fail) => (this.#settle = { ok, fail }));
    signal?.addEventListener("abort", () => {
      this.isAborted = true;
      this.fails();
    });
  }

  get path() {
    return this.url.pathname;
  }

  /** What the address asks for. */
  get query() {
    return Object.fromEntries(this.url.searchParams);
  }

  answers(status, body = "", headers = {}) {
    this.#settle.ok(new Response(body, { status, headers }));
  }

  /** A poll's answer. */
  polls(cursor, ...messages) {
    const texts = messages.map((message) => (typeof message === "string" ? message : JSON.stringify(message)));
    this.answers(200, `{"cursor":"${cursor}","messages":[${texts.join(",")}]}`);
  }

  /** Begins a stream of events. */
  streams() {
    const begin = (controller) => (this.#stream = controller);
    this.answers(200, new ReadableStream({ start: begin }), { "Content-Type": "text/event-stream" });
  }

  writes(text) {
    this.#stream.enqueue(new TextEncoder().encode(text));
  }

  says(message, id) {
    this.writes(`${id ? `id: ${id}\n` : ""}data: ${JSON.stringify(message)}\n\n`);
  }

  ends() {
    this.#stream.close();
  }

  fails() {
    this.#settle.fail(new TypeError("fetch failed"));
    try {
      this.#stream?.error(new TypeError("terminated"));
    } catch {
      // it had ended
    }
  }
}

/** A world whose server is the test. */
function world(t, options = {}) {
  const [sockets, requests, states, errors] = [new Told(), new Told(), new Told(), new Told()];
  class FakeSocket {
    sent = new Told();
    isClosed = false;
    constructor() {
      sockets.push(this);
    }
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close() {
      this.isClosed = true;
    }
    says(message) {
      this.onmessage({ data: JSON.stringify(message) });
    }
    hello() {
      this.says({ ...HELLO, limits: { topics: 1024, message: 65536 } });
    }
    fails() {
      this.onerror();
    }
    ends(code, reason = "") {
      this.onclose({ code, reason });
    }
  }
  const client = new Stentor("ws://test/feeds/ws", {
    WebSocket: FakeSocket,
    fetch: (url, how) => {
      const request = new Request(url, how);
      requests.push(request);
      return request.answered;
    },
    backoffMs: [1, 4],
    onState: (state, detail) => states.push({ state, ...detail }),
    onError: (error) => errors.push(error),
    ...options,
  });
  t.after(() => client.close());
  return { client, sockets, requests, states, errors };
}

/** What a subscription is told, in a few letters. */
function hear(client, names, options = {}) {
  const told = new Told();
  const one = client.subscribe(names, {
    onUpdate: ({ topic, seq }) => told.push(`${topic} ${seq}`),
    onSnapshot: ({ topic, seq }) => told.push(`${topic} is ${seq}`),
    onSkip: ({ topic, from, to, why }) => told.push(`${topic} without ${from} to ${to}: ${why}`),
    onReset: ({ topic, seq, why }) => told.push(`${topic} anew behind ${seq}: ${why}`),
    onError: ({ code }) => told.push(`error ${code}`),
    ...options,
  });
  return { one, told };
}

async function expect(told, ...expected) {
  const found = [];
  while (found.length < expected.length) found.push(await told.next());
  assert.deepEqual(found, expected);
}

const HELLO = { type: "hello", version: 1, server: "test", conn: "1", ts: 1, heartbeat: 0 };
const CURRENT = { type: "status", code: "current" };
const update = (topic, seq, epoch) => ({ type: "update", topic, ...(epoch && { epoch }), seq, ts: seq, data: seq });
const snapshot = (topic, seq, epoch = "k") => ({ type: "snapshot", topic, epoch, seq, ts: seq, data: seq });
const cursor = (n) => `cursor-${String(n).padStart(4, "0")}`;

/** Acknowledges a sub, as a server with cursors does: exact names with what they have, and the cursor that was asked for. */
function take(socket, { id, topics, from }, epoch, seq, at = typeof from === "string" ? from : cursor(0)) {
  const taken = topics.map((topic) => ({ topic, mode: "all", ...(!/[*>]/.test(topic) && { epoch, seq }) }));
  socket.says({ type: "ack", id, cursor: at, topics: taken });
}

const nextOf = (socket, wanted) => socket.sent.until(({ op }) => op === wanted);

/** Answers the ping that asks for the place. */
async function place(socket, at) {
  const { id } = await nextOf(socket, "ping");
  socket.says({ type: "pong", id, ts: 1, cursor: at });
}

test("by a cursor all names are resumed in one command, and what comes twice is told once", async (t) => {
  const { client, sockets } = world(t);
  const { one, told } = hear(client, ["a", "p.>"]);
  const first = await sockets.next();
  first.hello();
  const sub = await nextOf(first, "sub");
  assert.equal(sub.from, undefined);
  take(first, sub, "k", 1);
  for (const topic of ["a", "p.x", "p.y"]) first.says(snapshot(topic, 1));
  await place(first, cursor(3));
  for (const [topic, seq] of [["a", 2], ["p.x", 2], ["p.x", 3]]) first.says(update(topic, seq));
  await expect(told, "a is 1", "p.x is 1", "p.y is 1", "a 2", "p.x 2", "p.x 3");
  assert.equal(one.cursor, cursor(3));
  first.ends(1006);
  const second = await sockets.next();
  second.hello();
  const again = await nextOf(second, "sub");
  assert.deepEqual([again.topics, again.from], [["a", "p.>"], cursor(3)]);
  take(second, again, "k", 2, cursor(3));
  for (const [topic, seq] of [["a", 2], ["p.x", 2], ["p.x", 3], ["p.y", 2], ["p.x", 4]]) second.says(update(topic, seq));
  second.says(update("p.new", 1, "k"));
  await expect(told, "p.y 2", "p.x 4", "p.new 1");
  assert.equal(told.size, 0);
});

test("of what is left out behind a cursor, what had come is not told to be missing", async (t) => {
  const { client, sockets } = world(t);
  const { told } = hear(client, "p.*", { mode: "latest" });
  const first = await sockets.next();
  first.hello();
  take(first, await nextOf(first, "sub"), "k", 0);
  first.says(snapshot("p.a", 4));
  first.says(snapshot("p.b", 4));
  for (const seq of [5, 6]) first.says(update("p.a", seq));
  first.ends(1006);
  const second = await sockets.next();
  second.hello();
  const sub = await nextOf(second, "sub");
  assert.equal(sub.from, cursor(0));
  take(second, sub, "k", 0);
  for (const [topic, from, to] of [["p.a", 5, 8], ["p.b", 5, 8]]) second.says({ type: "skip", topic, from, to, why: "slow" });
  for (const topic of ["p.a", "p.b"]) second.says(snapshot(topic, 9));
  await expect(told, "p.a is 4", "p.b is 4", "p.a 5", "p.a 6", "p.a without 7 to 8: slow", "p.b without 5 to 8: slow", "p.a is 9", "p.b is 9");
});

test("the cursor of a heartbeat counts only once all last values have come", async (t) => {
  const { client, sockets } = world(t);
  const { one } = hear(client, ">");
  const socket = await sockets.next();
  socket.hello();
  take(socket, await nextOf(socket, "sub"));
  socket.says(snapshot("a", 5));
  socket.says({ type: "heartbeat", ts: 1, cursor: cursor(7) });
  assert.equal(one.cursor, cursor(0), "where it began");
  await place(socket, cursor(8));
  assert.equal(one.cursor, cursor(8));
  socket.says({ type: "heartbeat", ts: 1, cursor: cursor(9) });
  assert.equal(one.cursor, cursor(9));
});

test("of a server that sends much the place is asked now and then, and not of one that sends nothing", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  const { client, sockets } = world(t);
  const { one } = hear(client, ">");
  const socket = await sockets.next();
  socket.hello();
  take(socket, await nextOf(socket, "sub"));
  await place(socket, cursor(1));
  t.mock.timers.tick(60_000);
  assert.equal(socket.sent.size, 0);
  socket.says(update("a", 1, "k"));
  t.mock.timers.tick(6_000);
  await place(socket, cursor(2));
  assert.deepEqual([one.cursor, socket.sent.size], [cursor(2), 0]);
});

test("a cursor that is good no more begins every topic anew, once", async (t) => {
  const { client, sockets } = world(t);
  const { told } = hear(client, ["a", "b", "p.*"]);
  const first = await sockets.next();
  first.hello();
  take(first, await nextOf(first, "sub"), "k", 4);
  for (const topic of ["a", "b", "p.x"]) first.says(snapshot(topic, 4));
  await place(first, cursor(1));
  await expect(told, "a is 4", "b is 4", "p.x is 4");
  first.ends(1006);
  const second = await sockets.next();
  second.hello();
  const { id } = await nextOf(second, "sub");
  // Another server's life: of `b` there is nothing yet.
  const topics = [{ topic: "a", epoch: "k2", seq: 9, mode: "all" }, { topic: "b", epoch: "k2", seq: 0, mode: "all" }, { topic: "p.*", mode: "all" }];
  second.says({ type: "ack", id, cursor: cursor(9), topics });
  for (const [topic, seq] of [["a", 9], ["b", 0], ["p.x", 2]]) second.says({ type: "reset", topic, epoch: "k2", seq, why: "cursor" });
  second.says(snapshot("a", 9, "k2"));
  second.says(snapshot("p.x", 2, "k2"));
  second.says(update("a", 10));
  second.says(update("b", 1, "k2"));
  await expect(told, "a anew behind 9: cursor", "b anew behind 0: cursor", "p.x anew behind 2: cursor", "a is 9", "p.x is 2", "a 10", "b 1");
  assert.equal(told.size, 0);
});

test("who is cut among the last values comes back to where they began, and is told each once", async (t) => {
  const { client, sockets } = world(t);
  const { told } = hear(client, ["a", "b", "p.*"]);
  const first = await sockets.next();
  first.hello();
  take(first, await nextOf(first, "sub"), "k", 4, cursor(5));
  for (const topic of ["a", "p.x"]) first.says(snapshot(topic, 4));
  await expect(told, "a is 4", "p.x is 4");
  first.ends(1006);
  const second = await sockets.next();
  second.hello();
  const sub = await nextOf(second, "sub");
  assert.equal(sub.from, cursor(5));
  take(second, sub, "k", 4);
  // What has not changed comes as it came, and of what has, what followed.
  for (const topic of ["a", "b", "p.y"]) second.says(snapshot(topic, 4));
  second.says(update("p.x", 5));
  second.says(update("a", 5));
  await expect(told, "b is 4", "p.y is 4", "p.x 5", "a 5");
  assert.equal(told.size, 0);
});

test("who is cut while everything begins anew shows the word that it was answered with, and begins anew again", async (t) => {
  const { client, sockets } = world(t);
  const { told } = hear(client, ["p.*", "q.*"]);
  const first = await sockets.next();
  first.hello();
  take(first, await nextOf(first, "sub"));
  for (const topic of ["p.x", "q.gone"]) first.says(snapshot(topic, 4));
  await place(first, cursor(1));
  first.ends(1006);
  await expect(told, "p.x is 4", "q.gone is 4");
  const second = await sockets.next();
  second.hello();
  take(second, await nextOf(second, "sub"), "k2", 0, cursor(9999));
  second.ends(1006);
  const third = await sockets.next();
  third.hello();
  const sub = await nextOf(third, "sub");
  assert.equal(sub.from, cursor(9999));
  take(third, sub);
  third.says({ type: "reset", topic: "p.x", epoch: "k2", seq: 2, why: "cursor" });
  third.says(snapshot("p.x", 2, "k2"));
  // Of the other there was nothing in this life of the server's.
  third.says(update("q.gone", 1, "k2"));
  await place(third, cursor(3));
  await expect(told, "p.x anew behind 2: cursor", "p.x is 2", "q.gone anew behind 0: reconnect", "q.gone 1");
  third.ends(1006);
  const fourth = await sockets.next();
  fourth.hello();
  assert.equal((await nextOf(fourth, "sub")).from, cursor(3));
});

test("who finds a full server when it comes back asks again, from where it was left", async (t) => {
  const { client, sockets } = world(t);
  const { one, told } = hear(client, "p.*");
  const first = await sockets.next();
  first.hello();
  take(first, await nextOf(first, "sub"));
  first.says(snapshot("p.x", 4));
  await place(first, cursor(1));
  first.ends(1006);
  await expect(told, "p.x is 4");
  const second = await sockets.next();
  second.hello();
  for (const code of ["server_full", "address_full"]) {
    const { id, from } = await nextOf(second, "sub");
    assert.equal(from, cursor(1));
    second.says({ type: "error", id, code, message: "full" });
    // What isn't subscribed to has no part in what the connection is told.
    second.says({ type: "heartbeat", ts: 1, cursor: cursor(8) });
    await expect(told, `error ${code}`);
  }
  const sub = await nextOf(second, "sub");
  assert.deepEqual([sub.topics, sub.from], [["p.*"], cursor(1)]);
  take(second, sub);
  second.says(update("p.x", 5));
  await place(second, cursor(9));
  await expect(told, "p.x 5");
  assert.deepEqual([one.cursor, told.size], [cursor(9), 0]);
});

test("a subscription that is ended while it waits for a full server is not asked for again", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { client, sockets } = world(t);
  const { one } = hear(client, "p.*");
  const first = await sockets.next();
  first.hello();
  take(first, await nextOf(first, "sub"));
  await place(first, cursor(1));
  first.ends(1006);
  t.mock.timers.tick(100);
  const second = await sockets.next();
  second.hello();
  const { id } = await nextOf(second, "sub");
  second.says({ type: "error", id, code: "server_full", message: "full" });
  one.unsubscribe();
  t.mock.timers.tick(1000);
  await client.opened();
  assert.equal(await second.sent.next().then(({ op }) => op), "unsub");
  assert.equal(second.sent.size, 0);
});

test("a topic that has begun anew meanwhile says so, whatever numbers it had", async (t) => {
  const { client, sockets } = world(t);
  const { told } = hear(client, "p.*");
  const first = await sockets.next();
  first.hello();
  take(first, await nextOf(first, "sub"));
  first.says(snapshot("p.x", 4));
  await place(first, cursor(1));
  await expect(told, "p.x is 4");
  first.ends(1006);
  const second = await sockets.next();
  second.hello();
  take(second, await nextOf(second, "sub"));
  for (const seq of [1, 2]) second.says(update("p.x", seq, seq === 1 ? "k2" : undefined));
  await expect(told, "p.x anew behind 0: reconnect", "p.x 1", "p.x 2");
});

test("last values in place of what a cursor was to bring say what is missing", async (t) => {
  const { client, sockets } = world(t);
  const { told } = hear(client, "a");
  const first = await sockets.next();
  first.hello();
  take(first, await nextOf(first, "sub"), "k", 4);
  first.says(snapshot("a", 4));
  await place(first, cursor(1));
  first.ends(1006);
  const second = await sockets.next();
  second.hello();
  take(second, await nextOf(second, "sub"), "k", 9);
  second.says(snapshot("a", 9));
  await expect(told, "a is 4", "a without 5 to 8: reconnect", "a is 9");
});

test("a server that knows no cursors is asked by topic", async (t) => {
  const { client, sockets } = world(t);
  const { told } = hear(client, "a");
  const first = await sockets.next();
  first.hello();
  take(first, await nextOf(first, "sub"), "k", 4);
  first.says(snapshot("a", 4));
  await place(first, cursor(1));
  first.ends(1006);
  const second = await sockets.next();
  second.hello();
  const { id, from } = await nextOf(second, "sub");
  assert.equal(from, cursor(1));
  second.says({ type: "error", id, code: "bad_command", message: "from is an object" });
  assert.deepEqual((await nextOf(second, "sub")).from, { a: ["k", 4] });
  await expect(told, "a is 4");
  assert.equal(told.size, 0);
});

test("after a gap the topic's own number is asked for, whatever the server believes to have sent", async (t) => {
  const { client, sockets } = world(t);
  const { told } = hear(client, "a");
  const first = await sockets.next();
  first.hello();
  take(first, await nextOf(first, "sub"), "k", 4);
  await place(first, cursor(1));
  for (const seq of [5, 7]) first.says(update("a", seq));
  await expect(told, "a 5", "error gap");
  const second = await sockets.next();
  second.hello();
  assert.deepEqual((await nextOf(second, "sub")).from, { a: ["k", 5] });
});

test("a subscription goes on from another program's cursor", async (t) => {
  const { client, sockets } = world(t);
  const { one, told } = hear(client, "p.*", { from: cursor(5) });
  const socket = await sockets.next();
  socket.hello();
  const sub = await nextOf(socket, "sub");
  assert.equal(sub.from, cursor(5));
  take(socket, sub);
  for (const seq of [7, 8]) socket.says(update("p.x", seq));
  await expect(told, "p.x 7", "p.x 8");
  assert.equal(one.cursor, cursor(5));
});

test("where no WebSocket can be had it takes events, and goes on behind the last of them", async (t) => {
  const { client, sockets, requests, states } = world(t);
  const { one, told } = hear(client, ["a", "p.*"]);
  (await sockets.next()).fails();
  const first = await requests.next();
  assert.deepEqual([first.path, first.query], ["/feeds/sse", { topics: "a,p.*" }]);
  first.streams();
  first.says(HELLO, cursor(0));
  const { transport, hello } = await states.until(({ state }) => state === "open");
  assert.deepEqual([transport, client.transport, hello.server], ["events", "events", "test"]);
  first.says({ type: "ack", topics: [{ topic: "a", epoch: "k", seq: 1, mode: "all" }, { topic: "p.*", mode: "all" }] }, cursor(0));
  first.says(snapshot("a", 1));
  first.says(snapshot("p.x", 1), cursor(1));
  first.says(CURRENT, cursor(1));
  // In pieces, as it comes.
  const text = `id: ${cursor(2)}\r\ndata: {"type":"update","topic":"a","seq":2,\r\ndata: "ts":1,"data": 1.50 }\r\n\r\n: a comment\n`;
  for (let at = 0; at < text.length; at += 7) first.writes(text.slice(at, at + 7));
  await expect(told, "a is 1", "p.x is 1", "a 2");
  assert.equal(one.cursor, cursor(2));
  first.ends();
  const second = await requests.next();
  assert.deepEqual([second.path, second.headers["Last-Event-ID"], second.query.snapshot], ["/feeds/sse", cursor(2), undefined]);
  second.streams();
  second.says(HELLO, cursor(2));
  second.says({ type: "ack", topics: [{ topic: "a", epoch: "k", seq: 2, mode: "all" }, { topic: "p.*", mode: "all" }] }, cursor(2));
  second.says(update("p.x", 2), cursor(3));
  second.says(update("a", 3), cursor(4));
  await expect(told, "p.x 2", "a 3");
});

test("a stream whose token expires is made anew with the next one, from where it is, and nothing is told twice", async (t) => {
  let asked = 0;
  const { client, requests, states } = world(t, { transports: ["events", "polling"], token: async () => `T${(asked += 1)}` });
  const { told } = hear(client, "a");
  const first = await requests.next();
  assert.equal(first.headers.Authorization, "Bearer T1");
  first.streams();
  first.says(HELLO, cursor(0));
  first.says({ type: "ack", topics: [{ topic: "a", epoch: "k", seq: 1, mode: "all" }] }, cursor(0));
  first.says(snapshot("a", 1), cursor(1));
  first.says(CURRENT, cursor(1));
  first.says(update("a", 2), cursor(2));
  await expect(told, "a is 1", "a 2");
  await states.until(({ state }) => state === "open");
  first.says({ type: "status", code: "token_expiring", in: 1 });
  const second = await requests.next();
  assert.deepEqual([second.path, second.headers.Authorization, second.headers["Last-Event-ID"]], ["/feeds/sse", "Bearer T2", cursor(2)]);
  assert.ok(first.isAborted);
  second.streams();
  second.says(HELLO, cursor(2));
  second.says({ type: "ack", topics: [{ topic: "a", epoch: "k", seq: 2, mode: "all" }] }, cursor(2));
  second.says(update("a", 3), cursor(3));
  await expect(told, "a 3");
  assert.deepEqual([states.size, client.state], [0, "open"], "its page doesn't notice");
});

test("events that are held back by something in between are given up for polls", async (t) => {
  for (const how of ["no greeting", "silence", "another page"]) {
    const { client, sockets, requests, states } = world(t, { patienceMs: 50 });
    const { told } = hear(client, "a");
    (await sockets.next()).fails();
    const stream = await requests.next();
    if (how === "another page") {
      stream.answers(200, "<html>", { "Content-Type": "text/html" });
    } else {
      stream.streams();
      if (how === "silence") stream.says({ ...HELLO, heartbeat: 0.02 }, cursor(0));
    }
    const first = await requests.next();
    assert.deepEqual([first.path, first.query.topics, first.query.wait], ["/feeds/poll", "a", "0"], how);
    assert.ok(stream.isAborted || how === "another page");
    first.polls(cursor(1), snapshot("a", 4), CURRENT);
    assert.equal((await states.until(({ state, transport }) => state === "open" && transport === "polling")).transport, "polling");
    await expect(told, "a is 4");
    client.close();
  }
});

test("events that begin well and fall silent again and again are not tried any more", async (t) => {
  const { client, requests, states } = world(t, { transports: ["events", "polling"], upgradeMs: 2 });
  const { told } = hear(client, "a");
  for (const nth of [1, 2]) {
    const stream = await requests.until(({ path }) => path === "/feeds/sse");
    stream.streams();
    stream.says({ ...HELLO, heartbeat: 0.02 }, cursor(nth));
    await states.until(({ state, transport }) => state === "open" && transport === "events");
    const poll = await requests.until(({ path }) => path === "/feeds/poll");
    poll.polls(cursor(nth), update("a", nth));
    await expect(told, `a ${nth}`);
  }
  for (const nth of [3, 4]) {
    const poll = await requests.next();
    assert.equal(poll.path, "/feeds/poll");
    await new Promise((ok) => setTimeout(ok, 10)); // time in which it would look for a better way
    poll.polls(cursor(nth), update("a", nth));
  }
  await expect(told, "a 3", "a 4");
});

test("a poll follows the other, from cursor to cursor, and payloads keep their text", async (t) => {
  const { client, requests } = world(t, { transports: ["polling"] });
  const told = new Told();
  const one = client.subscribe("a", { onUpdate: ({ type, seq, json, base64 }) => told.push([type, seq, json ?? base64]) });
  const first = await requests.next();
  assert.deepEqual(first.query, { topics: "a", wait: "0" });
  first.polls(cursor(1), '{"type":"snapshot","topic":"a","epoch":"k","seq":4,"ts":1,"data":{"px":1.50,"s":"}]{\\"data\\":1}"}}', CURRENT);
  assert.deepEqual(await told.next(), ["snapshot", 4, '{"px":1.50,"s":"}]{\\"data\\":1}"}']);
  const second = await requests.next();
  assert.deepEqual(second.query, { topics: "a", cursor: cursor(1), wait: "25" });
  second.polls(cursor(2), '{"type":"update","topic":"a","seq":5,"ts":1,"data":[[1.0],{}]}', { type: "update", topic: "a", seq: 6, ts: 1, base64: "/wA=" });
  assert.deepEqual([await told.next(), await told.next()], [["update", 5, "[[1.0],{}]"], ["update", 6, "/wA="]]);
  assert.equal((await requests.next()).query.cursor, cursor(2));
  assert.equal(one.cursor, cursor(2));
});

test("polls that are interrupted go on where they were, and a cursor that is good no more begins anew", async (t) => {
  const { client, requests, states } = world(t, { transports: ["polling"] });
  const { told } = hear(client, ">");
  (await requests.next()).polls(cursor(1), snapshot("a", 4), CURRENT);
  await expect(told, "a is 4");
  (await requests.next()).fails();
  await states.until(({ state }) => state === "waiting");
  const again = await requests.next();
  assert.deepEqual([again.query.cursor, again.query.wait], [cursor(1), "0"]);
  again.polls(cursor(2), update("a", 5), update("b", 1, "k"));
  await expect(told, "a 5", "b 1");
  const third = await requests.next();
  third.polls(cursor(7), { type: "reset", topic: "a", epoch: "k2", seq: 3, why: "cursor" }, snapshot("a", 3, "k2"), CURRENT);
  await expect(told, "a anew behind 3: cursor", "a is 3");
});

test("over plain HTTP too, a topic that is gone is told once all that there is has come", async (t) => {
  const anew = { type: "reset", topic: "p.x", epoch: "k2", seq: 1, why: "cursor" };
  const events = world(t, { transports: ["events"] });
  const heard = hear(events.client, ["a", "p.*"]);
  const acknowledged = (epoch, seq, cursor) => ({ type: "ack", topics: [{ topic: "a", epoch, seq, mode: "all" }, { topic: "p.*", mode: "all" }], cursor });
  const first = await events.requests.next();
  first.streams();
  first.says(HELLO);
  first.says(acknowledged("k", 4, cursor(0)), cursor(0));
  for (const topic of ["a", "p.x", "p.y"]) first.says(snapshot(topic, 4));
  first.says(CURRENT, cursor(1));
  await expect(heard.told, "a is 4", "p.x is 4", "p.y is 4");
  first.ends();
  const second = await events.requests.next();
  second.streams();
  second.says(HELLO);
  // The cursor is good no more; of `a` and `p.y` there is nothing any more.
  second.says(acknowledged("k2", 0, cursor(7)), cursor(7));
  second.says(anew);
  second.says(snapshot("p.x", 1, "k2"));
  second.says(CURRENT, cursor(8));
  const found = [await heard.told.next(), await heard.told.next(), await heard.told.next(), await heard.told.next()];
  assert.deepEqual(found.sort(), ["a anew behind 0: reconnect", "p.x anew behind 1: cursor", "p.x is 1", "p.y anew behind 0: reconnect"]);
  second.says(update("p.x", 2), cursor(9));
  await expect(heard.told, "p.x 2");

  const polls = world(t, { transports: ["polling"] });
  const { told } = hear(polls.client, ["a", "p.*"]);
  (await polls.requests.next()).polls(cursor(1), snapshot("a", 4), snapshot("p.x", 4), snapshot("p.y", 4), CURRENT);
  await expect(told, "a is 4", "p.x is 4", "p.y is 4");
  (await polls.requests.next()).polls(cursor(7), anew, snapshot("p.x", 1, "k2"), CURRENT);
  await expect(told, "p.x anew behind 1: cursor", "p.x is 1", "a anew behind 0: reconnect", "p.y anew behind 0: reconnect");
  // What a cursor brings is not all that there is.
  (await polls.requests.next()).polls(cursor(8), update("p.x", 2));
  await expect(told, "p.x 2");
});

test("it comes back up as soon as a better way works, and nothing is lost or told twice over the change", async (t) => {
  const { client, sockets, requests, states } = world(t, { upgradeMs: 2 });
  const { told } = hear(client, "a");
  const broken = await sockets.next();
  broken.fails();
  (await requests.next()).answers(404, "There is no such path.");
  (await requests.next()).polls(cursor(1), snapshot("a", 4), CURRENT);
  await expect(told, "a is 4");
  const poll = await requests.until(({ path }) => path === "/feeds/poll");
  // What is tried in the meantime, and fails, changes nothing.
  (await sockets.next()).fails();
  const stream = await requests.until(({ path }) => path === "/feeds/sse");
  assert.deepEqual([stream.headers["Last-Event-ID"], client.transport], [cursor(1), "polling"]);
  stream.answers(502);
  poll.polls(cursor(2), update("a", 5));
  await expect(told, "a 5");
  const last = await requests.until(({ path }) => path === "/feeds/poll");
  const socket = await sockets.next();
  socket.hello();
  assert.equal((await states.until(({ state, transport }) => state === "open" && transport === "websocket")).transport, "websocket");
  assert.ok(last.isAborted);
  const sub = await nextOf(socket, "sub");
  assert.equal(sub.from, cursor(2));
  take(socket, sub, "k", 5, cursor(2));
  for (const seq of [6, 7]) socket.says(update("a", seq));
  await expect(told, "a 6", "a 7");
  // And down again, from what the socket had last.
  await place(socket, cursor(9));
  socket.ends(1006);
  (await sockets.next()).hello();
  assert.equal(told.size, 0);
});

test("from polls to events, what both bring is told once", async (t) => {
  const { client, requests } = world(t, { transports: ["events", "polling"], upgradeMs: 2 });
  const { told } = hear(client, "a");
  (await requests.next()).answers(404);
  (await requests.next()).polls(cursor(1), snapshot("a", 4), CURRENT);
  const [one, other] = [await requests.next(), await requests.next()];
  const [poll, stream] = one.path === "/feeds/poll" ? [one, other] : [other, one];
  stream.streams();
  poll.polls(cursor(2), update("a", 5));
  await expect(told, "a is 4", "a 5");
  stream.says(HELLO, cursor(1));
  stream.says({ type: "ack", topics: [{ topic: "a", epoch: "k", seq: 4, mode: "all" }] }, cursor(1));
  for (const seq of [5, 6]) stream.says(update("a", seq), cursor(seq));
  await expect(told, "a 6");
  assert.deepEqual([client.transport, told.size], ["events", 0]);
});

test("a way that has worked is given up only after it has failed several times, since servers are started again, too", async (t) => {
  const { sockets, requests, states } = world(t);
  const first = await sockets.next();
  first.hello();
  first.ends(1006);
  for (const _ of [1, 2]) (await sockets.next()).fails();
  assert.equal(requests.size, 0);
  (await sockets.next()).fails();
  const probe = await requests.next();
  assert.equal(probe.path, "/feeds/healthz"); // nothing is subscribed to
  probe.fails();
  (await requests.next()).fails();
  await states.until(({ state, code }) => state === "waiting" && code === 1006);
  (await sockets.next()).hello();
});

test("a server's own word is no reason for another way", async (t) => {
  const { sockets, requests, states } = world(t);
  (await sockets.next()).ends(1013, "full");
  assert.equal((await states.until(({ state }) => state === "waiting")).code, 1013);
  await sockets.next();
  assert.equal(requests.size, 0);
});

test("what is delivered alike shares a request, what isn't has its own, and what comes later too", async (t) => {
  const { client, requests } = world(t, { transports: ["polling"] });
  const [a, b] = [hear(client, "a"), hear(client, "b")];
  const latest = hear(client, "c", { mode: "latest", rate: 4 });
  const [shared, own] = [await requests.next(), await requests.next()];
  assert.deepEqual([shared.query.topics, own.query], ["a,b", { topics: "c", mode: "latest", wait: "0" }]);
  shared.polls(cursor(1), snapshot("a", 1), snapshot("b", 1), CURRENT);
  own.polls(cursor(1), snapshot("c", 1), CURRENT);
  await expect(a.told, "a is 1");
  await expect(b.told, "b is 1");
  await expect(latest.told, "c is 1");
  const [polls] = [[await requests.next(), await requests.next()]];
  const every = hear(client, ">");
  const third = await requests.next();
  assert.deepEqual(third.query, { topics: ">", wait: "0" });
  third.polls(cursor(3), snapshot("a", 2), snapshot("b", 1), CURRENT);
  await expect(every.told, "a is 2", "b is 1");
  // Each hears what its own request brings.
  polls.find(({ query }) => query.topics === "a,b").polls(cursor(2), update("a", 2));
  await expect(a.told, "a 2");
  assert.deepEqual([every.told.size, b.told.size, latest.told.size], [0, 0, 0]);
  latest.one.unsubscribe();
  assert.ok(polls.find(({ query }) => query.topics === "c").isAborted);
  a.one.unsubscribe();
  const under = await requests.until(({ query }) => query.cursor === cursor(2));
  under.polls(cursor(4), update("a", 3), update("b", 2));
  await expect(b.told, "b 2");
  assert.deepEqual([(await requests.until(({ query }) => query.cursor === cursor(4))).query.topics, a.told.size], ["b", 0]);
});

test("at a rate it polls so often, and at once where nothing limits it", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { client, requests } = world(t, { transports: ["polling"] });
  const { told } = hear(client, "a", { mode: "latest", rate: 0.5 });
  (await requests.next()).polls(cursor(1), snapshot("a", 1), CURRENT);
  await expect(told, "a is 1");
  await new Promise(setImmediate);
  t.mock.timers.tick(1500);
  await new Promise(setImmediate);
  assert.equal(requests.size, 0);
  t.mock.timers.tick(600);
  assert.equal((await requests.next()).query.cursor, cursor(1));
});

test("a change of mode goes on where it was, and what is refused stays as it was", async (t) => {
  const { client, requests } = world(t, { transports: ["polling"] });
  const { one, told } = hear(client, "a");
  (await requests.next()).polls(cursor(1), snapshot("a", 1), CURRENT);
  await expect(told, "a is 1");
  const before = await requests.next();
  one.change({ mode: "first" });
  assert.ok(before.isAborted);
  const refused = await requests.next();
  assert.deepEqual([refused.query.mode, refused.query.cursor], ["first", cursor(1)]);
  refused.answers(400, "In the address: mode is one of all, latest.");
  await expect(told, "error bad_command");
  const after = await requests.next();
  assert.deepEqual([one.mode, after.query.mode, after.query.cursor], ["all", undefined, cursor(1)]);
  after.polls(cursor(2), update("a", 2));
  await expect(told, "a 2");
  one.change({ mode: "latest", rate: 2 });
  const changed = await requests.until(({ query }) => query.mode === "latest");
  changed.polls(cursor(9), update("a", 9));
  await expect(told, "a 9");
  assert.deepEqual(await client.list(), [{ topic: "a", mode: "latest", rate: 2 }]);
});

test("a bad name is refused to who has it, and to nobody who shares its request", async (t) => {
  const { client, requests } = world(t, { transports: ["polling"] });
  const [good, bad] = [hear(client, "a"), hear(client, "b..c")];
  (await requests.next()).answers(400, "In the address: b..c has an empty segment.");
  const [one, other] = [await requests.next(), await requests.next()];
  assert.deepEqual([one.query.topics, other.query.topics], ["a", "b..c"]);
  other.answers(400, "In the address: b..c has an empty segment.");
  one.polls(cursor(1), snapshot("a", 1), CURRENT);
  await expect(bad.told, "error bad_command");
  await expect(good.told, "a is 1");
});

test("names that don't fit into one address go in several, and too many streams become polls that take turns", async (t) => {
  const { client, requests } = world(t, { transports: ["events", "polling"] });
  const names = [...Array(1000)].map((_, n) => `topic.number.${n}`);
  const { told } = hear(client, names);
  const asked = [];
  const polls = [];
  while (polls.length < 4) polls.push(await requests.next());
  assert.ok(polls.every(({ url, path }) => url.href.length < 8000 && path === "/feeds/poll"));
  for (let nth = 0; asked.length < names.length; nth += 1) {
    const poll = polls[nth] ?? (await requests.until(({ query }) => query.cursor === undefined));
    asked.push(...poll.query.topics.split(","));
    poll.polls(cursor(nth), snapshot(poll.query.topics.split(",")[0], 1), CURRENT);
  }
  assert.deepEqual(asked, names);
  assert.equal(await told.next(), "topic.number.0 is 1");
  assert.equal((await requests.until(({ query }) => query.cursor !== undefined)).query.wait, "1");
});

test("publishing and pings go over HTTP as well, with the token", async (t) => {
  const { client, requests } = world(t, { transports: ["polling"], token: "secret" });
  const probe = await requests.next();
  assert.equal(probe.path, "/feeds/healthz");
  probe.answers(200, "ok\n");
  await client.opened();
  const [published, refused, lost] = [client.publish("fx:EUR", { px: 1.5 }), client.publishJson("a", "1.50"), client.publish("b", 1)];
  const first = await requests.next();
  assert.deepEqual(
    [first.method, first.path, first.query.as, first.body, first.headers.Authorization],
    ["POST", "/feeds/publish/fx%3AEUR", "json", '{"px":1.5}', "Bearer secret"],
  );
  first.answers(200, '{"topic":"fx:EUR","seq":7,"ts":1}');
  assert.deepEqual(await published, { topic: "fx:EUR", seq: 7, ts: 1 });
  const second = await requests.next();
  assert.equal(second.body, "1.50");
  second.answers(403, "You may not publish.");
  await assert.rejects(refused, { code: "forbidden", message: "You may not publish." });
  (await requests.next()).fails();
  await assert.rejects(lost, { code: "disconnected" });
  const ping = client.ping();
  (await requests.next()).answers(200, "ok\n");
  assert.ok((await ping) >= 0);
});

test("a wrong token ends polls, and a full server is left alone for as long as it says", async (t) => {
  const { client, requests, states } = world(t, { transports: ["polling"], token: "wrong" });
  hear(client, "a");
  (await requests.next()).answers(401, "The token is wrong.");
  assert.deepEqual((await states.until(({ state }) => state === "refused")).why, "The token is wrong.");
  const opened = client.authenticate("right");
  const poll = await requests.next();
  assert.equal(poll.headers.Authorization, "Bearer right");
  poll.answers(503, "There is no room.", { "Retry-After": "3600" });
  const { code, retryMs } = await states.until(({ state }) => state === "waiting");
  assert.deepEqual([code, retryMs], [1013, 3_600_000]);
  client.close();
  await assert.rejects(opened, { code: "closed" });
});

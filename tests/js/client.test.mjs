// The JavaScript client with a real server, real restarts and a link that stalls.
import assert from "node:assert/strict";
import { Stentor } from "../../src/control/console/stentor.js";
import { Told, link, publish, serve, test } from "./server.mjs";

const SOON = { backoffMs: [10, 50] };

/** A client, and what its connection goes through. */
function connect(t, port, options = {}) {
  const states = new Told();
  const client = new Stentor(`http://127.0.0.1:${port}/ws`, {
    ...SOON,
    onState: (state, detail) => states.push({ state, ...detail }),
    ...options,
  });
  t.after(() => client.close());
  return { client, states };
}

/** A subscription, and what it is told. */
function subscribe(client, names, options = {}) {
  const told = new Told();
  const hear = (kind) => (what) => told.push({ kind, ...what, code: what.code });
  const subscription = client.subscribe(names, {
    onUpdate: hear("update"),
    onSnapshot: hear("snapshot"),
    onSkip: hear("skip"),
    onReset: hear("reset"),
    onError: hear("error"),
    onAck: (topics) => told.push({ kind: "ack", topics }),
    ...options,
  });
  return { subscription, told };
}

test("a subscription begins with the last value and goes on without a gap", async (t) => {
  const { port } = await serve(t);
  await publish(port, "q.a", { px: 1 });
  const { client } = connect(t, port);
  const { told } = subscribe(client, "q.*");
  assert.equal((await told.next()).kind, "ack");
  const first = await told.next();
  assert.deepEqual([first.kind, first.topic, first.seq, first.data], ["snapshot", "q.a", 1, { px: 1 }]);
  const answer = await client.publish("q.a", { px: 2 });
  assert.deepEqual([answer.topic, answer.seq], ["q.a", 2]);
  const second = await told.next();
  assert.deepEqual([second.kind, second.seq, second.data], ["update", 2, { px: 2 }]);
});

test("what was published as text arrives as that text", async (t) => {
  const { port } = await serve(t);
  const { client } = connect(t, port);
  await client.opened();
  await client.publishJson("a", "1.50");
  assert.match(await (await fetch(`http://127.0.0.1:${port}/topics/a`)).text(), /"data":1\.50\b/);
});

test("refusals say why, and leave the connection as it was", async (t) => {
  const { port } = await serve(t);
  const { client } = connect(t, port);
  await assert.rejects(client.publish("a", 1), { code: "not_connected" });
  await client.opened();
  await assert.rejects(client.publish("a..b", 1), { code: "bad_topic" });
  const { told } = subscribe(client, "a..b");
  assert.equal((await told.next()).code, "bad_topic");
  assert.throws(() => subscribe(client, ["c", "c"]) && subscribe(client, "c"), { code: "subscribed" });
  assert.deepEqual((await client.list()).map(({ topic }) => topic), ["c"]);
  assert.ok((await client.ping()) >= 0);
});

test("unsubscribing ends it for the server too", async (t) => {
  const { port } = await serve(t);
  const { client } = connect(t, port);
  const one = subscribe(client, "a");
  const other = subscribe(client, "b");
  await client.opened();
  one.subscription.unsubscribe();
  assert.deepEqual((await client.list()).map(({ topic }) => topic), ["b"]);
  await client.publish("a", 1);
  await client.publish("b", 2);
  assert.equal((await other.told.until(({ kind }) => kind === "update")).data, 2);
  assert.ok(![...Array(one.told.size)].some(() => one.told.next().kind === "update"));
});

test("a server that was killed and started again is found again, and the topic begins anew", async (t) => {
  const first = await serve(t);
  const { client, states } = connect(t, first.port);
  const { told } = subscribe(client, "a");
  await client.opened();
  await client.publish("a", "before");
  await told.until(({ kind }) => kind === "update");
  await first.end();
  assert.equal((await states.until(({ state }) => state === "waiting")).code, 1006);
  await serve(t, [], first.port);
  await states.until(({ state }) => state === "open");
  const reset = await told.until(({ kind }) => kind === "reset");
  assert.equal(reset.topic, "a");
  await client.publish("a", "after");
  const update = await told.until(({ kind }) => kind === "update" || kind === "snapshot");
  assert.deepEqual([update.seq, update.data], [1, "after"]);
});

test("a server that stops says when to come back", async (t) => {
  const server = await serve(t);
  const { client, states } = connect(t, server.port);
  await client.opened();
  server.end("SIGTERM");
  const { code, retryMs } = await states.until(({ state }) => state === "waiting");
  assert.equal(code, 1001);
  assert.ok(retryMs >= 0 && retryMs <= 8000, `${retryMs}`);
});

test("after a loss, what was published meanwhile is caught up on, for topics and patterns", async (t) => {
  const { port } = await serve(t);
  for (const topic of ["a", "p.x", "p.y"]) await publish(port, topic, 1);
  const wire = await link(t, port);
  const { client, states } = connect(t, wire.port);
  const one = subscribe(client, "a");
  const many = subscribe(client, "p.*");
  await one.told.until(({ kind }) => kind === "snapshot");
  await many.told.until(({ topic }) => topic === "p.y");
  wire.stall(true);
  wire.cut();
  await states.until(({ state }) => state === "waiting");
  for (const topic of ["a", "p.x"]) for (const data of [2, 3]) await publish(port, topic, data);
  wire.stall(false);
  for (const [{ told }, topic] of [[one, "a"], [many, "p.x"]]) {
    for (const seq of [2, 3]) {
      const update = await told.until(({ kind }) => kind !== "ack");
      assert.deepEqual([update.kind, update.topic, update.seq, update.data], ["update", topic, seq, seq]);
    }
  }
  await client.publish("p.y", 2);
  const next = await many.told.until(({ topic }) => topic === "p.y");
  assert.deepEqual([next.kind, next.seq], ["update", 2]);
  // What was named to be resumed is no subscription of its own any more.
  assert.deepEqual((await client.list()).map(({ topic }) => topic), ["a", "p.*"]);
});

test("a topic whose first publication came after the subscription is caught up on too", async (t) => {
  const { port } = await serve(t);
  const wire = await link(t, port);
  const { client, states } = connect(t, wire.port);
  const many = subscribe(client, "p.*");
  const one = subscribe(client, "a");
  await client.opened();
  await client.list(); // both are taken
  for (const topic of ["p.new", "a"]) await publish(port, topic, 1);
  for (const { told } of [many, one]) assert.equal((await told.until(({ kind }) => kind === "update")).seq, 1);
  const places = ["p.new", "a"].map((topic) => client.place(topic));
  wire.stall(true);
  wire.cut();
  await states.until(({ state }) => state === "waiting");
  for (const topic of ["p.new", "a"]) for (const data of [2, 3]) await publish(port, topic, data);
  wire.stall(false);
  for (const [{ told }, topic] of [[many, "p.new"], [one, "a"]]) {
    for (const seq of [2, 3]) {
      const update = await told.until(({ kind }) => kind !== "ack");
      assert.deepEqual([update.kind, update.topic, update.seq, update.data], ["update", topic, seq, seq]);
    }
  }
  assert.deepEqual((await client.list()).map(({ topic }) => topic), ["a", "p.*"]);
  // What a client of another day is told.
  for (const [nth, topic] of ["p.new", "a"].entries()) {
    const { told } = subscribe(connect(t, port).client, topic, { from: { [topic]: places[nth] } });
    assert.deepEqual((await told.until(({ kind }) => kind !== "ack")).seq, 2);
  }
});

test("topics that began meanwhile, and those whose epoch nobody told, are caught up on as well", async (t) => {
  const { port } = await serve(t);
  for (const data of [1, 2]) await publish(port, "s.old", data);
  const wire = await link(t, port);
  const { client, states } = connect(t, wire.port);
  const many = subscribe(client, "p.*");
  const quiet = subscribe(client, "s.*", { snapshot: false });
  await client.opened();
  await client.list();
  await publish(port, "s.old", 3);
  assert.equal((await quiet.told.until(({ kind }) => kind === "update")).seq, 3);
  await client.ping(); // behind the one that asks for the cursor
  wire.stall(true);
  wire.cut();
  await states.until(({ state }) => state === "waiting");
  for (const data of [1, 2, 3]) await publish(port, "p.meanwhile", data);
  for (const data of [4, 5]) await publish(port, "s.old", data);
  wire.stall(false);
  for (const [{ told }, seqs] of [[many, [1, 2, 3]], [quiet, [4, 5]]]) {
    for (const seq of seqs) {
      const next = await told.until(({ kind }) => kind !== "ack");
      assert.deepEqual([next.kind, next.seq], ["update", seq]);
    }
  }
});

test("topics may be called what every object has: they are resumed, and begin anew, like any other", async (t) => {
  const names = ["__proto__", "constructor", "toString", "hasOwnProperty"];
  const first = await serve(t);
  for (const topic of names) await publish(first.port, topic, 1);
  const wire = await link(t, first.port);
  const { client, states } = connect(t, wire.port);
  const exact = subscribe(client, names);
  const pattern = subscribe(client, "*");
  for (const { told } of [exact, pattern]) for (const _ of names) await told.until(({ kind }) => kind === "snapshot");
  wire.stall(true);
  wire.cut();
  await states.until(({ state }) => state === "waiting");
  for (const topic of names) for (const data of [2, 3]) await publish(first.port, topic, data);
  wire.stall(false);
  const missed = [];
  for (const _ of [...names, ...names]) missed.push(await exact.told.until(({ kind }) => kind !== "ack"));
  assert.deepEqual(missed.map(({ kind, topic, seq }) => `${kind} ${topic} ${seq}`).sort(), names.flatMap((name) => [`update ${name} 2`, `update ${name} 3`]).sort());
  // Named by a client of another day.
  const { client: other } = connect(t, first.port);
  const places = new Map(names.map((name) => [name, [client.place(name)[0], 2]]));
  for (const from of [places, Object.fromEntries(places)]) {
    const { subscription, told } = subscribe(other, names, { from });
    const seen = [];
    for (const _ of names) seen.push(await told.until(({ kind }) => kind !== "ack"));
    assert.deepEqual(seen.map(({ kind, topic, seq }) => `${kind} ${topic} ${seq}`), names.map((name) => `update ${name} 3`));
    subscription.unsubscribe();
  }
});

test("a server that was started again says so of every topic, whatever it is called", async (t) => {
  const names = ["__proto__", "constructor"];
  const first = await serve(t);
  for (const topic of names) await publish(first.port, topic, 1);
  const { client, states } = connect(t, first.port);
  const { told } = subscribe(client, names);
  for (const _ of names) await told.until(({ kind }) => kind === "snapshot");
  await first.end();
  await serve(t, [], first.port);
  await states.until(({ state }) => state === "waiting");
  const resets = [];
  for (const _ of names) resets.push((await told.until(({ kind }) => kind === "reset")).topic);
  assert.deepEqual(resets.sort(), names);
});

test("a payload's own text is there, digit by digit", async (t) => {
  const { port } = await serve(t);
  const { client } = connect(t, port);
  const { told } = subscribe(client, "a");
  await client.opened();
  const texts = ['{"id":8389766145050669870,"px":100.10,"big":1e400}', "1.50", '"a } \\" {\\"data\\":1}"', '{"data":{"data":-0}}', "[[1.0],{}]", "null"];
  for (const text of texts) await client.publishJson("a", text);
  for (const text of texts) {
    const { json, data } = await told.until(({ kind }) => kind === "update");
    assert.equal(json, text);
    assert.deepEqual(data, JSON.parse(text));
  }
  const late = subscribe(connect(t, port).client, "*");
  assert.equal((await late.told.until(({ kind }) => kind === "snapshot")).json, texts.at(-1));
  await fetch(`http://127.0.0.1:${port}/publish/a`, { method: "POST", headers: { "content-type": "application/octet-stream" }, body: new Uint8Array([255, 0]) });
  const { base64, json } = await told.until(({ kind }) => kind === "update");
  assert.deepEqual([base64, json], ["/wA=", undefined]);
});

test("a subscription can begin in the past, and others hear nothing twice", async (t) => {
  const { port } = await serve(t);
  for (const data of [1, 2, 3]) await publish(port, "a", data);
  const { client } = connect(t, port);
  const every = subscribe(client, ">");
  await every.told.until(({ kind }) => kind === "snapshot");
  const [epoch, seq] = client.place("a");
  assert.equal(seq, 3);
  const one = subscribe(client, "a", { from: { a: [epoch, 1] } });
  await client.opened();
  for (const data of [4, 5]) await publish(port, "a", data);
  for (const seq of [2, 3, 4, 5]) assert.equal((await one.told.until(({ kind }) => kind === "update")).seq, seq);
  for (const seq of [4, 5]) assert.equal((await every.told.next()).seq, seq);
});

test("what is too long ago begins anew, and says so", async (t) => {
  const { port } = await serve(t);
  await publish(port, "a", 1);
  const { client } = connect(t, port);
  const { told } = subscribe(client, "a", { from: { a: ["elsewhere", 1] } });
  assert.equal((await told.until(({ kind }) => kind === "reset")).why, "epoch");
  assert.deepEqual((await told.next()).data, 1);
  assert.equal((await client.publish("a", 2)).seq, 2);
  assert.equal((await told.next()).seq, 2);
});

test("modes and rates can be changed while it runs", async (t) => {
  const { port } = await serve(t);
  const { client } = connect(t, port);
  const { subscription, told } = subscribe(client, "a", { mode: "latest", rate: 4 });
  assert.deepEqual((await told.next()).topics.map(({ mode, rate }) => [mode, rate]), [["latest", 4]]);
  subscription.change({ mode: "all" });
  assert.deepEqual((await told.until(({ kind }) => kind === "ack")).topics[0].mode, "all");
  for (const data of [1, 2, 3]) client.publish("a", data);
  for (const seq of [1, 2, 3]) assert.equal((await told.until(({ kind }) => kind === "update")).seq, seq);
  subscription.change({ mode: "latest", rate: -1 });
  assert.equal((await told.until(({ kind }) => kind === "error")).code, "bad_command");
  assert.equal(subscription.mode, "all");
});

test("a link that falls silent is given up, and another one tried", async (t) => {
  const { port } = await serve(t, ["--heartbeat", "1s"]);
  const wire = await link(t, port);
  const { client, states } = connect(t, wire.port);
  await client.opened();
  wire.stall(true);
  const { why } = await states.until(({ state }) => state === "waiting");
  assert.match(why, /nothing was heard for 2 s/);
  wire.stall(false);
  await states.until(({ state }) => state === "open");
});

test("a wrong token is not shown again and again; the right one goes on", async (t) => {
  const { port } = await serve(t, ["--publish-token", "right"]);
  const errors = new Told();
  const { client, states } = connect(t, port, { token: "wrong", onError: (error) => errors.push(error) });
  assert.equal((await states.until(({ state }) => state === "refused")).code, 4001);
  assert.equal((await errors.next()).code, "unauthorized");
  await client.authenticate("right");
  assert.equal((await client.publish("a", 1)).seq, 1);
});

test("a client that was closed stays away", async (t) => {
  const { port } = await serve(t);
  const { client, states } = connect(t, port);
  await client.opened();
  client.close();
  await states.until(({ state }) => state === "closed");
  await assert.rejects(client.publish("a", 1), { code: "not_connected" });
  await assert.rejects(client.opened(), { code: "closed" });
});

// The React example with React itself, in jsdom, and with a real server.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { JSDOM } from "jsdom";
import { Stentor } from "stentor-client";

const { window } = new JSDOM("<main></main>", { pretendToBeVisual: true });
// Frames are the test's: none comes before it is asked for.
const frames = [];
// Node from version 21 on has one of its own.
globalThis.navigator ??= window.navigator;
Object.assign(globalThis, {
  window,
  document: window.document,
  requestAnimationFrame: (draw) => frames.push(draw),
  cancelAnimationFrame: (nth) => delete frames[nth - 1],
  IS_REACT_ACT_ENVIRONMENT: true,
});
const { act, createElement } = await import("react");
const { createRoot } = await import("react-dom/client");
const { useTopic, useTopics } = await import("../node_modules/stentor-client/examples/react/use-topic.js");

async function serve(t) {
  const child = spawn(process.env.STENTOR, ["--listen", "127.0.0.1:0", "--workers", "1", "--pin", "none"], { stdio: ["ignore", "ignore", "pipe"] });
  t.after(() => child.kill("SIGKILL"));
  for await (const text of createInterface(child.stderr)) {
    const found = /listening on (http:\/\/127\.0\.0\.1:\d+)\//.exec(text);
    if (found) return found[1];
  }
  throw new Error("it ended before it listened");
}

test("components show the newest value, once a frame, and share a subscription", { timeout: 30_000 }, async (t) => {
  const client = new Stentor(`${await serve(t)}/ws`);
  t.after(() => client.close());
  let drawn = 0;
  function Quote() {
    drawn += 1;
    return createElement("b", null, useTopic(client, "q.a")?.data ?? "none");
  }
  const Quotes = () => createElement("i", null, [...useTopics(client, "q.>")].map(([topic, { data }]) => `${topic} ${data}`).join());
  const main = window.document.querySelector("main");
  const root = createRoot(main);
  await act(() => root.render([createElement(Quote, { key: 1 }), createElement(Quote, { key: 2 }), createElement(Quotes, { key: 3 })]));
  await client.opened();
  await client.ping();
  assert.deepEqual((await client.list()).map(({ topic }) => topic).sort(), ["q.>", "q.a"]);
  assert.equal(main.innerHTML, "<b>none</b><b>none</b><i></i>");
  const last = new Promise((onUpdate) => client.subscribe("*.b", { onUpdate }));
  await client.ping();
  drawn = 0;
  for (let n = 1; n <= 100; n += 1) await client.publish("q.a", n);
  await client.publish("q.b", 7);
  await last; // one message for all who want it, behind the others
  assert.equal(drawn, 0);
  assert.equal(frames.length, 2);
  await act(() => frames.splice(0).forEach((draw) => draw?.()));
  assert.equal(main.innerHTML, "<b>100</b><b>100</b><i>q.a 100,q.b 7</i>");
  assert.equal(drawn, 2);
  await act(() => root.unmount());
  assert.deepEqual((await client.list()).map(({ topic }) => topic), ["*.b"]);
});

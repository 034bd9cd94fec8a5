// Whatever happens to the link and the server: in the end what a program has made of what the JavaScript client told it is what the server has.
import assert from "node:assert/strict";
import { Stentor } from "../../src/control/console/stentor.js";
import { Told, link, serve, test } from "./server.mjs";

/** A small memory, so that who is slow lags soon. */
const SETTINGS = ["--retain", "1MiB", "--lag-limit", "256KiB"];

/** Numbers of chance that are the same each time (mulberry32). */
function chanceOf(seed) {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** What a program knows of a feed: values, as far as they are good. It holds what is told to what is promised: in mode "all" each number, else never an older one. */
class Book {
  values = new Map();
  news = new Told();
  wrongs = [];
  #at = new Map();
  #isGapless;

  constructor(isGapless) {
    this.#isGapless = isGapless;
  }

  get callbacks() {
    return {
      onUpdate: ({ topic, seq, json }) => {
        this.#follows(topic, seq, seq);
        this.values.set(topic, json);
        this.news.push(topic);
      },
      onSkip: ({ topic, from, to }) => {
        this.#follows(topic, from, to);
        this.values.delete(topic);
      },
      onReset: ({ topic }) => {
        this.#at.delete(topic);
        this.values.delete(topic);
        this.news.push(topic);
      },
      onError: (error) => this.wrongs.push(error),
    };
  }

  #follows(topic, first, last) {
    const before = this.#at.get(topic);
    if (before !== undefined && first !== before + 1 && (first <= before || this.#isGapless)) this.wrongs.push(`${topic}: ${first} behind ${before}`);
    this.#at.set(topic, last);
  }
}

async function post(port, publications) {
  const body = publications.map(([topic, data]) => JSON.stringify({ topic, data })).join("\n");
  const answer = await fetch(`http://127.0.0.1:${port}/publish`, { method: "POST", body });
  assert.equal(answer.status, 200, await answer.text());
}

/** What the server has, topic by topic. */
async function valuesOf(port) {
  const get = async (path) => (await fetch(`http://127.0.0.1:${port}${path}`)).json();
  const { topics } = await get("/topics");
  return new Map(await Promise.all(topics.map(async ({ topic }) => [topic, JSON.stringify((await get(`/topics/${topic}`)).data)])));
}

const isSame = (one, other) => one.size === other.size && [...one].every(([topic, value]) => other.get(topic) === value);

for (const transport of ["websocket", "events", "polling"]) {
  for (let seed = 0; seed < Number(process.env.SEEDS ?? 2); seed += 1) {
    test(`over ${transport}, after any faults the book is the publisher's, seed ${seed}`, async (t) => {
      const chance = chanceOf(seed * 3 + transport.length);
      let server = await serve(t, SETTINGS);
      const { port } = server;
      const wire = await link(t, port);
      const mode = ["all", "all", "latest"][chance(3)];
      const book = new Book(mode === "all");
      const topics = [3, 40][chance(2)];
      const some = () => `t.${chance(topics)}`;
      const client = new Stentor(`ws://127.0.0.1:${wire.port}/ws`, { transports: [transport], backoffMs: [10, 50] });
      t.after(() => client.close());
      client.subscribe(["t.*", "end"], { mode, ...book.callbacks });
      let counted = 0;
      const publish = () => post(port, [...Array(1 + chance(10))].map(() => [some(), (counted += 1)]));
      for (let step = 0; step < 25; step += 1) {
        switch (chance(7)) {
          case 0:
          case 1:
          case 2:
            await publish();
            break;
          case 3:
            await post(port, [...Array(1500)].map(() => [some(), "x".repeat(900)]));
            break;
          case 4:
            wire.cut();
            break;
          case 5:
            wire.stall(true);
            await publish();
            if (chance(2)) wire.cut();
            wire.stall(false);
            break;
          default:
            if (chance(2)) break;
            await server.end();
            server = await serve(t, SETTINGS, port);
        }
      }
      await post(port, [...[...Array((topics >> 1) + 1)].map((_, n) => [`t.${n}`, `${n} ${seed}`]), ["end", seed]]);
      const expected = await valuesOf(port);
      while (!isSame(book.values, expected)) await book.news.next();
      assert.deepEqual(book.wrongs, []);
    });
  }
}

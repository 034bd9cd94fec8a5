// Everything that is published, and a client that writes down what it hears of it.
import assert from "node:assert/strict";
import { Stentor } from "../../src/control/console/stentor.js";
import { Told } from "./server.mjs";

/** Publishes the next number on each of so many topics. */
export async function publishAll(port, topics, seq) {
  const body = topics.map((topic) => JSON.stringify({ topic, data: seq })).join("\n");
  const answer = await fetch(`http://127.0.0.1:${port}/publish`, { method: "POST", body });
  assert.equal(answer.status, 200, await answer.text());
}

/** A client of everything, and for each topic what it has heard in order; `heard(seq)` waits until all of them, or these, have come so far. */
export function follow(t, port, topics, options) {
  const book = new Map(topics.map((topic) => [topic, []]));
  const [wrongs, news, states] = [[], new Told(), new Told()];
  const client = new Stentor(`ws://127.0.0.1:${port}/ws`, {
    backoffMs: [5, 20],
    onState: (state, detail) => states.push({ state, ...detail }),
    ...options,
  });
  t.after(() => client.close());
  const wrong = (what) => wrongs.push(what);
  client.subscribe(">", {
    onUpdate: ({ topic, seq, data }) => {
      if (seq !== data) wrong({ topic, seq, data });
      book.get(topic).push(seq);
      news.push(seq);
    },
    onSkip: wrong,
    onReset: wrong,
    onError: wrong,
  });
  const heard = async (last, some = topics) => {
    while (!some.every((topic) => book.get(topic).at(-1) === last)) await news.next();
  };
  return { client, states, book, wrongs, heard };
}

// The JavaScript client on a link that is cut again and again: more topics than can be named, and each ends with exactly its sequence.
import assert from "node:assert/strict";
import { follow, publishAll } from "./book.mjs";
import { link, serve, test } from "./server.mjs";

for (const transport of ["websocket", "events", "polling"]) {
  test(`over ${transport}, cut at any moment, every topic of a pattern ends with exactly its sequence`, async (t) => {
    const { port } = await serve(t);
    const wire = await link(t, port);
    const topics = [...Array(2000)].map((_, n) => `t.${n % 7}.${n}`);
    const late = [...Array(100)].map((_, n) => `late.${n}`);
    await publishAll(port, topics, 1);
    const { book, wrongs, heard } = follow(t, wire.port, topics, { transports: [transport] });
    await heard(1);
    for (const topic of late) book.set(topic, []);
    const [last, begins] = [25, 10];
    for (let seq = 2; seq <= last; seq += 1) {
      wire.cut();
      await publishAll(port, topics, seq);
      if (seq >= begins) await publishAll(port, late, seq - begins + 1);
      if (seq % 3 === 0) await heard(seq); // else it is still coming when the next cut does
    }
    await heard(last);
    await heard(last - begins + 1, late);
    const upTo = (most) => [...Array(most)].map((_, n) => n + 1);
    for (const topic of topics) assert.deepEqual(book.get(topic), upTo(last), topic);
    for (const topic of late) assert.deepEqual(book.get(topic), upTo(last - begins + 1), topic);
    assert.deepEqual(wrongs, []);
  });
}

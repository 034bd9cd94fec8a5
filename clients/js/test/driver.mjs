// This client as the conformance script drives it (clients/conformance/README.md): a line on standard input starts a client or ends it, each thing that it tells is
// a line on standard output. Tells by callbacks, or with --events by `for await`.
import { createInterface } from "node:readline";
import { Stentor } from "stentor-client";

const isLooped = process.argv.includes("--events");
/** @type {Map<number, () => void>} */
const ends = new Map();

/** What ends a client. */
const ENDS = ["unauthorized", "replaced"];

/** One word, or a function that has another each time. */
function tokenOf(words = []) {
  if (words.length < 2) return words[0];
  const left = words.values();
  return () => left.next().value;
}

function start({ id, url, subscribe, publish = [], token }) {
  const tell = (line) => process.stdout.write(`${JSON.stringify({ id, ...line })}\n`);
  const update = ({ type, topic, seq, data, key, stale }) =>
    tell({ update: topic, seq, data, ...(type === "snapshot" && { snapshot: true }), ...(key && { key }), ...(stale && { stale }) });
  const skip = ({ topic, from, to, why }) => tell({ gap: topic, first: from, last: to, why });
  const reset = ({ topic, why }) => tell({ reset: topic, why });
  const client = new Stentor(url, {
    backoffMs: [10, 50],
    compression: true,
    token: tokenOf(token),
    onState: (state, { code }) => state === "refused" && tell({ error: code === 4002 ? "replaced" : "unauthorized" }),
    onStatus: ({ code, topics = [] }) => isLooped || tell({ status: code, topics }),
    // That a token is wrong, or another connection has come, is told by the state as well; what else answers nothing, is a status.
    onError: ({ code }) => isLooped || ENDS.includes(code) || tell({ status: code }),
  });
  for (const { topics, ...options } of subscribe) {
    const onError = (error) => tell(error.code === "gap" ? { status: "gap", topics: [error.topic] } : { error: error.code, topics: error.topic ? [error.topic] : topics });
    if (isLooped) follow(client.events(topics, options), topics);
    else client.subscribe(topics, { ...options, onUpdate: update, onSkip: skip, onReset: reset, onError });
  }
  async function follow(feed, topics) {
    try {
      for await (const event of feed) {
        if (event.type === "skip") skip(event);
        else if (event.type === "reset") reset(event);
        else if (event.code === "forbidden") tell({ error: event.code, topics: event.topics });
        else if (event.type === "status") tell({ status: event.code, topics: event.topics ?? [] });
        else if (event.type === "gap") tell({ status: "gap", topics: [event.topic] });
        else update(event);
      }
    } catch (error) {
      if (!ENDS.includes(error.code)) tell({ error: error.code, topics });
    }
  }
  client.opened().then(
    () => publish.forEach(({ topic, data }) => client.publish(topic, data).catch(({ code }) => tell({ error: code }))),
    () => {},
  );
  ends.set(id, () => {
    client.close();
    setImmediate(() => tell({ end: true }));
  });
}

const lines = createInterface(process.stdin);
lines.on("line", (line) => {
  const order = JSON.parse(line);
  if (order.end) ends.get(order.id)?.();
  else start(order);
});
lines.on("close", () => process.exit(0));

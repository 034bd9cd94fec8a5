// What a program in TypeScript relies on: it compiles, or the types have changed.
import { Stentor, StentorError, type FeedEvent, type Update } from "stentor-client";

const client = new Stentor("wss://md.example/ws", { token: async () => "T", onStatus: ({ code, topics = [] }) => console.log(code.length + topics.length) });
const subscription = client.subscribe(["q.us.*"], { mode: "latest", rate: 4, onUpdate: (update: Update) => console.log(update.seq + 1, update.json?.length) });
subscription.change({ mode: "all" });
const seq: Promise<number> = client.publish("a", { px: 1 }).then((receipt) => receipt.seq);

export async function follow(): Promise<FeedEvent | undefined> {
  try {
    for await (const event of client.events("q.us.*", { whenSlow: "error" })) {
      if (event.type === "skip") console.log(event.to - event.from);
      else if (event.type === "reset") console.log(event.topic, event.epoch?.length);
      else if (event.type === "status") console.log(event.code);
      else if (event.type === "gap") console.log(event.topic);
      else if (event.seq > (await seq)) return event;
    }
  } catch (error) {
    if (error instanceof StentorError) console.log(error.code);
  }
  // @ts-expect-error: there is no such mode
  client.subscribe("a", { mode: "some" });
  return undefined;
}

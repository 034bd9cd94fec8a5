/**
 * Follows one topic closely: every message of it, beginning with those of the last minutes, which the server still has. The
 * table meanwhile may have no more than the latest value now and then; where names overlap, the server sends what is most.
 */

/** Seconds of history wanted, and messages at most. */
const [SECONDS, MESSAGES_MAX] = [120, 2000];

/** Milliseconds until a topic is followed: who runs through the table with the arrow keys means none of those between. */
const PATIENCE_MS = 150;

/** @typedef {import("./stentor.js").Stentor} Stentor @typedef {import("./topics.js").Topic} Topic */

export class Follow {
  /** @type {import("./stentor.js").Subscription | undefined} */ #one;
  /** @type {any} */ #timer;
  /** @type {{name: string, back: number} | undefined} */ #wanted;

  /**
   * @param {Stentor} client
   * @param {{begin: () => void, update: (update: import("./stentor.js").Update) => void, reset: (reset: import("./stentor.js").Reset) => void}} act
   */
  constructor(client, act) {
    this.client = client;
    this.act = act;
  }

  /** Follows this one from now on. @param {Topic} topic */
  topic(topic) {
    this.#one?.unsubscribe();
    this.#one = undefined;
    clearTimeout(this.#timer);
    const back = Math.min(MESSAGES_MAX, Math.ceil(topic.rate * SECONDS) + 10);
    this.#wanted = { name: topic.name, back };
    this.#timer = setTimeout(() => this.#ask(topic.name, back), PATIENCE_MS);
  }

  /** There is a connection again: asks for what could not be asked for meanwhile. What was followed goes on by itself. */
  again() {
    if (this.#wanted && !this.#one) this.#ask(this.#wanted.name, this.#wanted.back);
  }

  /** @param {string} name @param {number} back how many messages ago to begin */
  async #ask(name, back) {
    const timer = this.#timer;
    let at;
    try {
      const answer = await fetch(`topics/${encodeURIComponent(name)}`);
      at = answer.ok ? await answer.json() : undefined;
    } catch {
      return; // the state of the connection says it
    }
    if (!at || timer !== this.#timer) return;
    try {
      this.#one = this.client.subscribe(name, {
        mode: "all",
        snapshot: false,
        from: { [name]: [at.epoch, Math.max(0, at.seq - back)] },
        onAck: () => this.act.begin(), // what comes from here on is without a gap
        onUpdate: (update) => this.act.update(update),
        onReset: (reset) => this.#reset(back, reset),
        onError: () => {}, // the chart shows what the table gets
      });
    } catch {
      // it is in the table's own subscription by name, which sees to it
    }
  }

  /** So much is not there any more, or it begins anew. @param {number} back @param {import("./stentor.js").Reset} reset */
  #reset(back, reset) {
    if (reset.why !== "history") return this.act.reset(reset);
    this.act.begin();
    if (back < 4) return;
    this.#one?.unsubscribe();
    this.#one = undefined;
    this.#ask(reset.topic, back >> 2);
  }
}

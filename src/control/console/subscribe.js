/** The subscription that the table shows, and the form that changes it. */

/** @typedef {import("./stentor.js").Stentor} Stentor */

export class Subscribing {
  /** @type {import("./stentor.js").Subscription | undefined} */ #one;
  #left = 0;
  /** Publications that the server left out because this page was slow. */
  skipped = 0;

  /**
   * @param {(id: string) => any} at
   * @param {Stentor} client
   * @param {import("./topics.js").Topics} topics
   * @param {{update: (update: import("./stentor.js").Update) => void, event: (text: string) => void}} act
   */
  constructor(at, client, topics, act) {
    this.at = at;
    this.client = client;
    this.topics = topics;
    this.act = act;
    at("subscribe").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.apply();
    });
    at("mode").addEventListener("change", () => this.#showRate());
    this.#showRate();
  }

  #showRate() {
    this.at("rate-label").hidden = this.at("mode").value !== "latest";
  }

  get isSubscribed() {
    return this.#one !== undefined;
  }

  /** Does what the form says. */
  apply() {
    this.at("problem").textContent = "";
    const names = this.at("names").value.split(/[\s,]+/).filter(Boolean);
    const mode = this.at("mode").value;
    const rate = mode === "latest" && this.at("rate").value ? Number(this.at("rate").value) : undefined;
    if (this.#one && String(this.#one.names) === String(names)) return this.#one.change({ mode, rate });
    this.#one?.unsubscribe();
    this.#one = undefined;
    this.topics.begin();
    this.topics.sweep();
    if (!names.length) return;
    this.#one = this.client.subscribe(names, {
      mode,
      rate,
      onUpdate: (update) => this.act.update(update),
      onAck: (taken) => this.#taken(taken),
      onSkip: (skip) => this.#skip(skip.to - skip.from + 1),
      onReset: ({ topic, why }) => why !== "reconnect" && this.act.event(`${topic} begins anew: ${why}`),
      onError: (error) => this.#refused(error),
    });
  }

  /** After a loss, what isn't heard of until the server has answered everything is no more: it was started anew. */
  lost() {
    this.topics.begin();
  }

  /** @param {import("./stentor.js").Taken[]} taken */
  async #taken(taken) {
    for (const { topic, seq } of taken) if (seq) this.topics.touch(topic);
    const { mode, rate } = this.#one ?? {};
    if (mode && mode !== this.at("mode").value) this.at("mode").value = mode;
    const how = mode === "all" ? "every message" : rate ? `the latest, at most ${rate} a second of each topic` : "the latest";
    this.act.event(`Subscribed to ${this.#one?.names.join(", ")}: ${how}`);
    try {
      await this.client.ping(); // answered after the snapshots
      this.topics.sweep();
    } catch {
      // lost again
    }
  }

  /** @param {number} count */
  #skip(count) {
    this.skipped += count;
    this.#left += count;
  }

  /** Once a second: says what was left out, in one line however much it was. */
  tick() {
    if (this.#left) this.act.event(`${this.#left.toLocaleString()} messages left out, since this page was not fast enough`);
    this.#left = 0;
  }

  /** @param {import("./stentor.js").StentorError} error */
  #refused(error) {
    if (!this.#one?.agreed) this.#one = undefined;
    this.at("problem").textContent = `${error.message} (${error.code})`;
    this.act.event(`Not subscribed: ${error.code}`);
  }
}

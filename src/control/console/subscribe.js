/**
 * The subscription that the table shows, and the form that changes it. Each name is a subscription of its own, so that a change adds
 * and ends single ones: nothing of the old view ends before the server has taken all of the new one.
 */
import { named } from "./format.js";
import { matches } from "./stentor.js";

/** @typedef {import("./stentor.js").Stentor} Stentor @typedef {import("./stentor.js").Subscription} Subscription @typedef {import("./stentor.js").Mode} Mode */

export class Subscribing {
  /** What is shown, by name. @type {Map<string, Subscription>} */ #shown = new Map();
  /** What the form asks for, and those of its names that the server hasn't answered yet. @type {{names: string[], mode: Mode, rate?: number, added: Map<string, Subscription>, waiting: Set<string>} | undefined} */
  #wanted;
  #left = 0;
  /** Publications that were too large for anybody, since the last second. */
  #tooLarge = 0;
  /** Publications that the server left out because this page was slow. */
  skipped = 0;

  /**
   * @param {(id: string) => any} at
   * @param {Stentor} client
   * @param {import("./topics.js").Topics} topics
   * @param {{update: (update: import("./stentor.js").Update) => void, reset: (reset: import("./stentor.js").Reset) => void, swept: () => void, event: (text: string) => void}} act
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

  /** Whether there is nothing that isn't asked for. */
  get isAll() {
    return this.#shown.has(">");
  }

  get isSubscribed() {
    return this.#shown.size > 0 || this.#wanted !== undefined;
  }

  /** Does what the form says. */
  apply() {
    this.#drop();
    this.at("problem").textContent = "";
    const names = [...new Set(/** @type {string[]} */ (this.at("names").value.split(/[\s,]+/).filter(Boolean)))];
    const mode = this.at("mode").value;
    const rate = mode === "latest" && this.at("rate").value ? Number(this.at("rate").value) : undefined;
    const added = names.filter((name) => !this.#shown.has(name));
    const wanted = { names, mode, rate, added: new Map(), waiting: new Set(added) };
    this.#wanted = wanted;
    for (const name of added) {
      try {
        wanted.added.set(name, this.#subscribe(name, mode, rate));
      } catch (error) {
        return this.#refused(name, /** @type {import("./stentor.js").StentorError} */ (error));
      }
    }
    if (!added.length) this.#turn();
  }

  /** @param {string} name @param {Mode} mode @param {number | undefined} rate */
  #subscribe(name, mode, rate) {
    return this.client.subscribe(name, {
      mode,
      rate,
      onUpdate: (update) => this.act.update(update),
      onAck: (taken) => this.#taken(name, taken),
      onSkip: (skip) => this.#skip(skip),
      onReset: (reset) => this.act.reset(reset),
      onError: (error) => this.#refused(name, error),
    });
  }

  /** After a loss, what isn't heard of until the server has answered everything is no more: it was started anew. */
  lost() {
    this.topics.begin();
    if (!this.#shown.size || this.#wanted) return;
    const [one] = this.#shown.values();
    this.#wanted = { names: [...this.#shown.keys()], mode: one.mode, rate: one.rate, added: new Map(), waiting: new Set(this.#shown.keys()) };
  }

  /** @param {string} name @param {import("./stentor.js").Taken[]} taken */
  #taken(name, taken) {
    for (const { topic, seq } of taken) if (seq) this.topics.touch(topic);
    const wanted = this.#wanted;
    if (!wanted?.waiting.delete(name) || wanted.waiting.size) return;
    if (this.#isChanged(wanted)) this.#turn();
    else this.#say();
  }

  /** @param {{names: string[], added: Map<string, Subscription>}} wanted */
  #isChanged(wanted) {
    return wanted.added.size > 0 || String(wanted.names) !== String([...this.#shown.keys()]);
  }

  /** The server has taken all that is new: what isn't wanted any more ends, and the others change their way. */
  #turn() {
    const wanted = this.#wanted;
    if (!wanted) return;
    const { names, mode, rate } = wanted;
    const before = this.#shown;
    this.#shown = new Map(names.map((name) => [name, /** @type {Subscription} */ (wanted.added.get(name) ?? before.get(name))]));
    wanted.added = new Map();
    for (const [name, one] of before) if (!this.#shown.has(name)) one.unsubscribe();
    this.topics.forget((topic) => !names.some((name) => matches(name, topic)));
    const changing = [...this.#shown].filter(([, one]) => one.mode !== mode || one.rate !== rate);
    wanted.waiting = new Set(changing.map(([name]) => name));
    for (const [, one] of changing) one.change({ mode, rate });
    if (!changing.length) this.#say();
  }

  /** Says what is in force. */
  async #say() {
    this.#wanted = undefined;
    const [one] = this.#shown.values();
    if (!one) return this.act.event("Subscribed to nothing");
    const { mode, rate } = one;
    if (mode !== this.at("mode").value) this.at("mode").value = mode;
    const how = mode === "all" ? "every message" : rate ? `the latest, at most ${rate} a second of each topic` : "the latest";
    this.act.event(`Subscribed to ${this.#names()}: ${how}`);
    try {
      await this.client.ping(); // answered after the snapshots
      if (this.#wanted) return;
      this.topics.sweep();
      this.act.swept();
    } catch {
      // lost again
    }
  }

  #names() {
    return [...this.#shown.keys()].join(", ");
  }

  /** @param {import("./stentor.js").Skip} skip */
  #skip({ from, to, why }) {
    const count = to - from + 1;
    if (why === "too_large") {
      this.#tooLarge += count;
      return;
    }
    this.skipped += count;
    this.#left += count;
  }

  /** Once a second: says what was left out, in one line however much it was. */
  tick() {
    if (this.#left) this.act.event(`${this.#left.toLocaleString()} ${named(this.#left, "message")} left out, since this page was not fast enough`);
    if (this.#tooLarge) this.act.event(`${this.#tooLarge.toLocaleString()} ${this.#tooLarge === 1 ? "message was" : "messages were"} too large or too deep for anybody (--max-replay-message)`);
    this.#left = 0;
    this.#tooLarge = 0;
  }

  /** Ends what was begun; what is shown stays. */
  #drop() {
    const added = this.#wanted?.added ?? new Map();
    this.#wanted = undefined;
    for (const one of added.values()) one.unsubscribe();
  }

  /** @param {string} name @param {import("./stentor.js").StentorError} error */
  #refused(name, error) {
    const one = this.#shown.get(name);
    if (one && !one.agreed) this.#shown.delete(name); // not taken again after a loss
    const isNew = this.#wanted?.added.has(name) || !one;
    this.#drop();
    const rest = this.#shown.size ? ` Still subscribed to ${this.#names()}.` : "";
    // The server names it too.
    const what = error.message.replace(`topic "${name}": `, "");
    this.at("problem").textContent = `${isNew ? `${name}: ` : ""}${what} (${error.code}).${rest}`;
    this.act.event(`Not subscribed${isNew ? ` to ${name}` : ""}: ${error.code}`);
  }
}

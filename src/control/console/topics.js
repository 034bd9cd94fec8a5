/**
 * What the page knows of each topic: its last value and how fast it moves. Messages only change this; what is shown of it is
 * the table's business, once a frame, so that a fast feed costs the page little more than a slow one.
 */
import { matches } from "./stentor.js";

/** Topics remembered; further ones are counted and not kept. */
const TOPICS_MAX = 70_000;

/** @typedef {{name: string, json: string, seq: number, ts: number, rate: number, from: number, round: number}} Topic */

export class Topics {
  /** @type {Map<string, Topic>} */ #all = new Map();
  #round = 0;
  #counted = performance.now();
  /** The list has to be made anew. */
  stale = true;
  /** Updates of topics that are not kept. */
  unkept = 0;
  search = "";
  /** @type {"name" | "rate"} */ order = "name";

  get size() {
    return this.#all.size;
  }

  /** @param {string} name */
  get(name) {
    return this.#all.get(name);
  }

  /** @param {import("./stentor.js").Update} update */
  keep(update) {
    let topic = this.#all.get(update.topic);
    if (!topic) {
      if (this.#all.size >= TOPICS_MAX) {
        this.unkept += 1;
        return;
      }
      const { seq, ts } = update;
      topic = { name: update.topic, json: "", seq, ts, rate: 0, from: seq - (update.type === "snapshot" ? 0 : 1), round: 0 };
      this.#all.set(topic.name, topic);
      this.stale = true;
    }
    if (update.seq < topic.from) topic.from = update.seq; // its numbering began anew
    topic.json = update.json ?? JSON.stringify({ base64: update.base64 });
    topic.seq = update.seq;
    topic.ts = update.ts;
    topic.round = this.#round;
  }

  /** @param {string} name */
  touch(name) {
    const topic = this.#all.get(name);
    if (topic) topic.round = this.#round;
  }

  /** From here on it counts who is heard of. */
  begin() {
    this.#round += 1;
  }

  /** Forgets the topics that were not heard of since {@link begin}. */
  sweep() {
    for (const topic of this.#all.values()) if (topic.round !== this.#round) this.#all.delete(topic.name);
    this.stale = true;
  }

  /** Forgets the topics that are such. @param {(name: string) => boolean} is */
  forget(is) {
    for (const name of this.#all.keys()) if (is(name)) this.#all.delete(name);
    this.stale = true;
  }

  /** Takes the pace of every topic, by its seq: what was published, however much of it came here. Returns the sum. */
  measure() {
    const now = performance.now();
    const seconds = (now - this.#counted) / 1000;
    this.#counted = now;
    let sum = 0;
    for (const topic of this.#all.values()) {
      const rate = (topic.seq - topic.from) / seconds;
      // Half of the second before is kept in mind, so that figures can be read.
      topic.rate = topic.rate ? (topic.rate + rate) / 2 : rate;
      if (topic.rate < 0.05) topic.rate = 0;
      topic.from = topic.seq;
      sum += rate;
    }
    if (this.order === "rate") this.stale = true;
    return sum;
  }

  /** The one that moves most. @returns {Topic | undefined} */
  busiest() {
    let most;
    for (const topic of this.#all.values()) if (topic.rate > (most?.rate ?? 0)) most = topic;
    return most;
  }

  /** The topics that pass the search, in order. */
  list() {
    this.stale = false;
    const search = this.search.trim();
    const isPattern = /[*>]/.test(search);
    const part = search.toLowerCase();
    const passes = (/** @type {Topic} */ { name }) => (isPattern ? matches(search, name) : name.toLowerCase().includes(part));
    const list = [...this.#all.values()].filter(passes);
    const byName = (/** @type {Topic} */ a, /** @type {Topic} */ b) => (a.name < b.name ? -1 : 1);
    return list.sort(this.order === "name" ? byName : (a, b) => b.rate - a.rate || byName(a, b));
  }
}

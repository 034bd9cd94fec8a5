/** Topics that begin anew, told together: after a restart all of them do, and a line for each would leave room for nothing else. */

/** Milliseconds that others are waited for. */
const PATIENCE_MS = 300;

/** What was the matter, by the reason that the server gives. @type {Record<string, string>} */
const REASONS = {
  epoch: "the server was started again, or had forgotten",
  history: "the server keeps no more of what was before",
};

export class Anew {
  /** By reason. @type {Map<string, Set<string>>} */ #topics = new Map();
  /** @type {any} */ #timer;

  /** @param {(text: string) => void} say */
  constructor(say) {
    this.say = say;
  }

  /** @param {string} topic @param {string} why */
  note(topic, why) {
    if (why === "reconnect") return; // the connection was lost, which was said
    const topics = this.#topics.get(why) ?? new Set();
    this.#topics.set(why, topics.add(topic));
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#tell(), PATIENCE_MS);
  }

  #tell() {
    for (const [why, topics] of this.#topics) {
      const [first] = topics;
      const which = topics.size === 1 ? `${first} begins` : `${topics.size} topics begin`;
      this.say(`${which} anew: ${Object.hasOwn(REASONS, why) ? REASONS[why] : why}${why === "epoch" ? (topics.size === 1 ? " it" : " them") : ""}`);
    }
    this.#topics.clear();
  }
}

/** The text of `/metrics`, read: sums over labels, and percentiles of what a histogram counted between two scrapes. */

export class Scrape {
  /** Sums by name. @type {Map<string, number>} */ #sums = new Map();
  /** Upper ends of buckets to counts, by name. @type {Map<string, Map<number, number>>} */ #buckets = new Map();

  /** @param {string} text @param {number} at when it was taken, in milliseconds */
  constructor(text, at) {
    this.at = at;
    for (const line of text.split("\n")) {
      const found = /^([a-z_0-9]+)(?:\{(.*)\})? (\S+)/.exec(line);
      if (!found) continue;
      const [, name, labels, value] = found;
      this.#sums.set(name, (this.#sums.get(name) ?? 0) + Number(value));
      const le = name.endsWith("_bucket") && /(?:^|,)le="([^"]+)"/.exec(labels ?? "");
      if (!le) continue;
      const buckets = this.#buckets.get(name) ?? new Map();
      const end = le[1] === "+Inf" ? Infinity : Number(le[1]);
      buckets.set(end, (buckets.get(end) ?? 0) + Number(value));
      this.#buckets.set(name, buckets);
    }
  }

  /** The sum over all labels; undefined where the server has no such figure. @param {string} name */
  get(name) {
    return this.#sums.get(`stentor_${name}`);
  }

  /** How much a counter grew each second since an earlier scrape. @param {string} name @param {Scrape} earlier */
  rate(name, earlier) {
    const [now, then] = [this.get(name), earlier.get(name)];
    return now === undefined || then === undefined ? undefined : Math.max(0, now - then) / ((this.at - earlier.at) / 1000);
  }

  /**
   * A percentile of what was counted since an earlier scrape, taken to be spread evenly within its bucket; undefined if
   * nothing was.
   * @param {string} name @param {number} quantile @param {Scrape} earlier
   */
  quantile(name, quantile, earlier) {
    const [now, then] = [this, earlier].map((scrape) => scrape.#buckets.get(`stentor_${name}_bucket`));
    if (!now || !then) return undefined;
    const counts = [...now].map(([end, count]) => [end, count - (then.get(end) ?? 0)]).sort((a, b) => a[0] - b[0]);
    const wanted = quantile * counts[counts.length - 1][1];
    if (!(wanted > 0)) return undefined;
    let [low, below] = [0, 0];
    for (const [end, count] of counts) {
      if (count >= wanted) return end === Infinity ? low : low + ((end - low) * (wanted - below)) / (count - below);
      [low, below] = [end, count];
    }
    return undefined;
  }
}

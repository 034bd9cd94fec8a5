/**
 * How far the server is: the least of the last ten answers to a ping. A page is busy with other things now and then, and then an answer
 * waits for the page; the least of several is the way alone. Each ping that counts comes right behind another: the first wakes whoever has
 * gone to sleep on the way, in the browser as well.
 */

/** Answers that the least is taken of. */
const OF = 10;

/** @typedef {import("./stentor.js").Stentor} Stentor */

export class Distance {
  /** @type {number[]} */ #last = [];

  /** In milliseconds; undefined until it is known. */
  get leastMs() {
    return this.#last.length < OF ? undefined : Math.min(...this.#last);
  }

  /** A new connection: measures often enough to know it at once. @param {Stentor} client */
  async begin(client) {
    this.#last = [];
    for (let nth = 0; nth < OF; nth += 1) await this.measure(client);
  }

  /** @param {Stentor} client */
  async measure(client) {
    try {
      await client.ping();
      this.#last.push(await client.ping());
      if (this.#last.length > OF) this.#last.shift();
    } catch {
      // lost: the next connection begins anew
    }
  }
}

/** The subscribers that are behind, worst first, from `/debug/slow`. */
import { bytes, count, duration } from "./format.js";

/** Rows shown. */
const ROWS_MAX = 20;

export class Slow {
  #asking = false;

  /**
   * @param {HTMLElement} help what is said in place of a table
   * @param {HTMLElement} rows
   * @param {() => string} token what to show to the server
   */
  constructor(help, rows, token) {
    this.help = help;
    this.rows = rows;
    this.token = token;
  }

  /** Looks once. */
  async look() {
    if (this.#asking) return;
    this.#asking = true;
    try {
      const token = this.token();
      const headers = token ? { Authorization: `Bearer ${token}` } : undefined;
      const answer = await fetch("/debug/slow", { headers, signal: AbortSignal.timeout(5000) });
      if (answer.ok) this.#show((await answer.json()).connections);
      else this.#say(`The server doesn't tell: ${(await answer.text()).trim()}`);
    } catch {
      // the state of the connection says it
    } finally {
      this.#asking = false;
    }
  }

  /** @param {string} text */
  #say(text) {
    this.help.textContent = text;
    this.help.hidden = !text;
    /** @type {HTMLElement} */ (this.rows.closest(".scroll")).hidden = Boolean(text);
  }

  /** @param {any[]} connections */
  #show(connections) {
    const behind = connections.filter((one) => one.lag_bytes > 0 || one.unsent_bytes > 0 || one.skips > 0).slice(0, ROWS_MAX);
    if (!behind.length) {
      return this.#say("Nobody is behind. Whoever can't keep up is listed here: it delays nobody else, and takes no memory.");
    }
    this.#say("");
    this.rows.replaceChildren(...behind.map(row));
  }
}

/** @param {any} one */
function row(one) {
  const element = document.createElement("tr");
  const subscriptions = (one.subscriptions ?? []).join(", ") + (one.more ? ` and ${one.more} more` : "");
  const rtt = one.rtt_us ? `${duration(one.rtt_us / 1e6)} away` : "";
  element.append(
    cell(one.conn, [one.address, rtt].filter(Boolean).join(", ")),
    cell(duration((one.lag_ms ?? 0) / 1000), bytes(one.lag_bytes ?? 0), "number"),
    cell(bytes((one.unsent_bytes ?? 0) + (one.unacked_bytes ?? 0)), "", "number"),
    cell(count(one.skips ?? 0), "", "number"),
    cell(subscriptions, ""),
  );
  return element;
}

/** @param {string} text @param {string} below @param {string} [kind] */
function cell(text, below, kind) {
  const element = document.createElement("td");
  element.append(String(text));
  if (kind) element.className = kind;
  if (below) element.append(Object.assign(document.createElement("small"), { textContent: below }));
  return element;
}

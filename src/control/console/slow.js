/** The subscribers that are behind, worst first, from `/debug/slow`. */
import { bytes, count, duration } from "./format.js";

/** Rows shown. */
const ROWS_MAX = 20;

export class Slow {
  /** Whether asking makes sense: a server that refused once would refuse every second. */
  #asks = true;
  #token = "";
  #isAsking = false;

  /**
   * @param {HTMLElement} help what is said in place of a table
   * @param {HTMLElement} rows
   * @param {HTMLElement} operator where a token is given, once the server has refused
   */
  constructor(help, rows, operator) {
    this.help = help;
    this.rows = rows;
    this.operator = operator;
  }

  /** Asks from now on: another token was given, or another server may be there. @param {string} [token] */
  ask(token) {
    this.#token = token ?? this.#token;
    this.#asks = true;
    this.look();
  }

  /** Looks once. */
  async look() {
    if (!this.#asks || this.#isAsking) return;
    this.#isAsking = true;
    try {
      const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : undefined;
      const answer = await fetch("debug/slow", { headers, signal: AbortSignal.timeout(5000) });
      this.operator.hidden &&= answer.ok;
      if (answer.ok) this.#show((await answer.json()).connections);
      else {
        this.#asks = false;
        this.#say(`The server doesn't tell: ${(await answer.text()).trim()}`);
      }
    } catch {
      // the state of the connection says it
    } finally {
      this.#isAsking = false;
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
    this.#say(
      connections.length
        ? ""
        : "Nobody is behind. Whoever can't keep up is listed here: it delays nobody else, and takes no memory.",
    );
    this.rows.replaceChildren(...connections.slice(0, ROWS_MAX).map(row));
  }
}

/** @param {any} one what the kernel doesn't tell is null */
function row(one) {
  const element = document.createElement("tr");
  const rtt = one.rtt_us === null ? "" : `${duration(one.rtt_us / 1e6)} away`;
  const names = one.subscriptions.join(", ") + (one.more ? ` and ${one.more} more` : "");
  element.append(
    cell("", one.conn, [one.address, rtt].filter(Boolean).join(", "), `${names} (${one.mode})`),
    cell("number", duration(one.lag_ms / 1000), bytes(one.lag_bytes)),
    cell("number", one.unsent_bytes === null ? "–" : bytes(one.unsent_bytes + one.unacked_bytes)),
    cell("number", count(one.skips)),
  );
  return element;
}

/** @param {string} kind @param {string} text @param {string[]} below */
function cell(kind, text, ...below) {
  const element = document.createElement("td");
  element.className = kind;
  element.append(text, ...below.map((textContent) => Object.assign(document.createElement("small"), { textContent, title: textContent })));
  return element;
}

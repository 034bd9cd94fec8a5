/** The server's own figures, from `/metrics`, once a second; with what each means, and its last minute as a line. */
import { bytes, count, counted, duration, named } from "./format.js";
import { line, runs, sheet } from "./plot.js";
import { Scrape } from "./prometheus.js";

/** Scrapes that a rate or percentile looks back over: single seconds are too restless to read. */
const LOOK_BACK = 5;

/** Seconds in the lines. */
const HISTORY = 60;

/**
 * @typedef {object} Gauge
 * @property {string} title
 * @property {(now: Scrape, then: Scrape) => number | undefined} read undefined where there is nothing to say
 * @property {(value: number) => string} show
 * @property {(now: Scrape, then: Scrape) => string} note
 * @property {(value: number) => boolean} [hot] whether somebody should look into it
 */

/** @type {Gauge[]} */
const GAUGES = [
  {
    title: "Subscribers",
    read: (now) => now.get("websocket_connections"),
    show: count,
    note: (now) => `connected, with ${counted(now.get("subscriptions") ?? 0, "subscription")}`,
  },
  {
    title: "Published",
    read: (now, then) => now.rate("publications_total", then),
    show: count,
    note: (now, then) =>
      `${named(now.rate("publications_total", then) ?? 0, "message")} a second, on ${counted(now.get("topics") ?? 0, "topic")}`,
  },
  {
    title: "Delivered",
    read: (now, then) => now.rate("deliveries_total", then),
    show: count,
    note: (now, then) => {
      const deliveries = now.rate("deliveries_total", then);
      const each = quotient(deliveries, now.rate("sends_total", then));
      return `${named(deliveries ?? 0, "message")} a second, to all subscribers${each ? `, ${count(each)} per send` : ""}`;
    },
  },
  {
    title: "Sent",
    read: (now, then) => now.rate("sent_bytes_total", then),
    show: (value) => `${bytes(value)}/s`,
    note: (now, then) => `${bytes(now.rate("received_bytes_total", then) ?? 0)}/s received`,
  },
  {
    title: "Compression saves",
    // As `stentor top` has it.
    read: (now, then) => {
      const [sent, saved] = [now.rate("sent_bytes_total", then), now.rate("compression_saved_bytes_total", then)];
      return saved && percentage(saved, (sent ?? 0) + saved);
    },
    show: (value) => `${Math.round(value)} %`,
    note: (now, then) => {
      const [packed, streams, members, waiting] = [
        "compressed_connections",
        "shared_streams",
        "shared_stream_members",
        "shared_stream_waiting",
      ].map((name) => now.get(name) ?? 0);
      if (!packed) return "nobody is sent anything compressed";
      const saved = now.rate("compression_saved_bytes_total", then) ?? NaN;
      const rate = Number.isFinite(saved) ? `${bytes(saved)}/s; ` : "";
      const shared = `${count(members)} on ${counted(streams, "shared stream")}, ${count(waiting)} waiting`;
      return `${rate}${count(packed)} compressed${streams ? `, ${shared}` : ""}`;
    },
  },
  {
    title: "Publish to send",
    read: (now, then) => now.quantile("publish_to_send_seconds", 0.5, then),
    show: duration,
    note: (now, then) => {
      const p99 = now.quantile("publish_to_send_seconds", 0.99, then);
      if (p99 !== undefined) return `median; 99 % within ${duration(p99)}`;
      if (now === then) return "";
      // It is measured for subscribers of every message, and of newest values that wait for nothing.
      return now.rate("deliveries_total", then) ? "all is sent at a rate, so nothing at once" : "nobody to send to";
    },
  },
  {
    title: "Slowest subscriber",
    read: (now) => now.get("lag_publications_max"),
    show: count,
    note: (now) => `${named(now.get("lag_publications_max") ?? 0, "message")} behind the newest`,
    hot: (value) => value > 10_000,
  },
  {
    title: "Tape holds",
    // Without a rate there is nothing to say.
    read: (now) => now.get("tape_holds_seconds"),
    show: duration,
    note: (now) => {
      const full = percentage(now.get("tape_bytes"), now.get("tape_retain_bytes")) ?? 0;
      return `at least, at this rate; now ${duration(now.get("tape_oldest_age_seconds") ?? 0)}, ${Math.round(full)} % full`;
    },
  },
];

/** @typedef {{gauge: Gauge, box: HTMLElement, figure: HTMLElement, note: HTMLElement, canvas: HTMLCanvasElement, past: (number | undefined)[]}} Dial */

export class Gauges {
  /** @type {Dial[]} */ #dials;
  /** @type {Scrape[]} */ #scrapes = [];
  /** Whether asking makes sense: a server that refused once would refuse every second. */
  #asks = true;
  #token = "";

  /** @param {HTMLElement} box */
  constructor(box) {
    this.#dials = GAUGES.map((gauge) => dial(gauge, box));
  }

  /** Asks from now on: another token was given, or another server may be there. @param {string} [token] */
  ask(token) {
    this.#token = token ?? this.#token;
    this.#asks = true;
    this.look();
  }

  /** Looks once. */
  async look() {
    const scrape = this.#asks ? await read(this.#token) : undefined;
    if (scrape === null) this.#asks = false;
    // The state of the connection says why, or whoever says who is slow.
    if (!scrape) return this.#dials.forEach((one) => trace(one, undefined));
    const last = this.#scrapes[this.#scrapes.length - 1];
    // Another server, or the same one started again: its counters begin anew.
    if (last && last.get("start_time_seconds") !== scrape.get("start_time_seconds")) this.#scrapes = [];
    // After a pause (a page that was hidden) nothing is known of the time between.
    if (last && scrape.at - last.at > 10_000) this.#scrapes = [];
    this.#scrapes.push(scrape);
    if (this.#scrapes.length > LOOK_BACK + 1) this.#scrapes.shift();
    for (const one of this.#dials) show(one, scrape, this.#scrapes[0]);
  }
}

/** @param {Gauge} gauge @param {HTMLElement} box @returns {Dial} */
function dial(gauge, box) {
  const part = document.createElement("div");
  part.className = "gauge";
  const [title, figure, note, canvas] = ["h3", "strong", "small", "canvas"].map((kind) => document.createElement(kind));
  title.textContent = gauge.title;
  figure.textContent = "–";
  canvas.setAttribute("aria-hidden", "true");
  part.append(title, figure, note, canvas);
  box.append(part);
  return { gauge, box: part, figure, note, canvas: /** @type {HTMLCanvasElement} */ (canvas), past: [] };
}

/** The figures as they are now; undefined if they can't be had, null if they are for others. @param {string} token */
async function read(token) {
  try {
    const headers = token ? { Authorization: `Bearer ${token}` } : undefined;
    const answer = await fetch("metrics", { headers, signal: AbortSignal.timeout(5000) });
    if (answer.status === 401 || answer.status === 403) return null;
    return answer.ok ? new Scrape(await answer.text(), performance.now()) : undefined;
  } catch {
    return undefined;
  }
}

/** @param {Dial} dial @param {Scrape} now @param {Scrape} then */
function show(dial, now, then) {
  const { gauge, box, figure, note } = dial;
  const value = now === then ? gauge.read(now, now) : gauge.read(now, then);
  const isKnown = value !== undefined && Number.isFinite(value);
  figure.textContent = isKnown ? gauge.show(value) : "–";
  // A number stays with what it is of, where the line breaks.
  note.textContent = gauge.note(now, then).replace(/NaN \S+/g, "–").replace(/(\d) /g, "$1\u00a0");
  box.classList.toggle("hot", isKnown && (gauge.hot?.(value) ?? false));
  trace(dial, isKnown ? value : undefined);
}

/** Draws the line with one more figure. @param {Dial} dial @param {number | undefined} value */
function trace({ canvas, past }, value) {
  past.push(value);
  if (past.length > HISTORY) past.shift();
  const on = sheet(canvas);
  if (!on) return;
  const most = Math.max(...past.map((one) => one ?? 0)) * 1.1 || 1;
  const x = (/** @type {number} */ nth) => on.width - ((past.length - 1 - nth) / (HISTORY - 1)) * on.width;
  const y = (/** @type {number} */ one) => on.height - 1 - (one / most) * (on.height - 3);
  // Where nothing was known there is no line, not even at zero.
  for (const run of runs(past)) line(on, run.map(([nth, one]) => [x(nth), y(one)]), on.height, false);
}

/** @param {number | undefined} a @param {number | undefined} b */
function quotient(a, b) {
  return a === undefined || !b ? undefined : a / b;
}

/** @param {number | undefined} a @param {number | undefined} b */
function percentage(a, b) {
  return a === undefined || !b ? undefined : (100 * a) / b;
}

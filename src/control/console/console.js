/**
 * The console: what this server does, live. This file puts the parts together; each has a file of its own.
 *
 * Messages change what is known (`topics.js`), and ask for a frame. A frame shows what is seen of it (`table.js`,
 * `chart.js`). Once a second the figures are looked at (`gauges.js`, `slow.js`).
 */
import { Chart } from "./chart.js";
import { Distance } from "./distance.js";
import { Anew } from "./anew.js";
import { clock, count, counted } from "./format.js";
import { Follow } from "./follow.js";
import { Gauges } from "./gauges.js";
import { publishing } from "./publish.js";
import { Slow } from "./slow.js";
import { Status } from "./status.js";
import { Stentor } from "./stentor.js";
import { Subscribing } from "./subscribe.js";
import { Table } from "./table.js";
import { Topics } from "./topics.js";

const at = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const isCalm = matchMedia("(prefers-reduced-motion: reduce)");

/** Milliseconds between two frames, for who wants little motion. */
const CALM_MS = 1000;

let frame = 0;
let calm = 0;
let drawn = 0;

/** Asks for a frame: somebody did something. */
function soon() {
  frame ||= requestAnimationFrame(draw);
}

/** Asks for a frame: something moved by itself. Who wants little motion sees the same, once a second. */
function moved() {
  if (!isCalm.matches) soon();
  else calm ||= setTimeout(() => ((calm = 0), soon()), CALM_MS);
}

const topics = new Topics();
const distance = new Distance();
const status = new Status(at, () => client.reconnect());
const client = new Stentor(new URL("ws", document.baseURI), {
  onState(state, detail) {
    status.show(state, detail);
    if (state === "open") {
      gauges.ask();
      slow.ask();
      follow.again();
      distance.begin(client);
    }
    if (state === "waiting") subscribing.lost();
    soon();
  },
  onError: (error) => status.event(`The server says: ${error.message}`),
});
const table = new Table(at("topics"), at("rows"), topics, { choose, soon });
const chart = new Chart(at("chart"), at("field"), soon);
const follow = new Follow(client, { begin: () => chart.open(chart.name), update: (message) => draws(message), reset });
const gauges = new Gauges(at("gauges"));
const slow = new Slow(at("slow-help"), at("slow-rows"), at("operator-label"));
const subscribing = new Subscribing(at, client, topics, { update, reset, swept, event: (text) => status.event(text) });
publishing(at);

const anew = new Anew((text) => status.event(text));

/** The last message of the chosen topic: it may be followed although the table doesn't show it. @type {{seq: number, ts: number, json: string} | undefined} */
let last;
/** Whether the chosen topic was chosen by nobody but this page. */
let isOwnChoice = false;
/** Whether the server has no such topic as the chosen one any more. */
let isGone = false;
subscribing.apply();

/** @param {import("./stentor.js").Update} message */
function update(message) {
  topics.keep(message);
  draws(message);
}

/** @param {import("./stentor.js").Update} message */
function draws(message) {
  if (message.topic === chart.name) {
    chart.add(message);
    isGone = false;
    last = { seq: message.seq, ts: message.ts, json: message.json ?? JSON.stringify({ base64: message.base64 }) };
  }
  moved();
}

/** A topic begins anew, with a server that was started again: so does its panel. @param {import("./stentor.js").Reset} reset */
function reset({ topic, seq, why }) {
  if (topic === chart.name) {
    chart.open(topic);
    if (!seq) begone();
  }
  anew.note(topic, why);
  soon();
}

/** The server has told of all that there is: perhaps not of the chosen topic, which it may have all the same. */
async function swept() {
  const { name } = chart;
  if (!name || topics.get(name)) return;
  try {
    const { count: there } = await (await fetch(`topics?pattern=${encodeURIComponent(name)}&limit=1`)).json();
    if (!there && name === chart.name) begone();
  } catch {
    // the state of the connection says it
  }
}

/** The chosen topic is no more: nothing is shown of it. What the page has chosen by itself, it chooses anew. */
function begone() {
  chart.open(chart.name);
  [last, isGone] = [undefined, true];
  soon();
}

/** Says how many topics there are, to whoever has asked for none of them. @param {HTMLElement} place */
async function tellTopics(place) {
  try {
    const { count: there } = await (await fetch("topics?limit=1")).json();
    place.textContent = `The server has ${counted(there, "topic")}, of ${there === 1 ? "another name" : "other names"}.`;
  } catch {
    // the state of the connection says it
  }
}

/** @param {number} now */
function draw(now) {
  frame = 0;
  drawn = now;
  const fading = table.draw(now);
  showCount();
  showChosen();
  if (fading) moved();
}

function showCount() {
  const { size } = topics;
  const found = table.length === size ? count(size) : `${count(table.length)} of ${count(size)}`;
  // Without a connection nobody knows how many there are.
  const moving = client.state === "open" ? ` · ${counted(pace, "message")} a second` : "";
  put(at("count"), size ? `${found}${moving}${topics.unkept ? "; there are more than are kept here" : ""}` : "None yet");
  const empty = at("empty");
  const isSearch = size > 0 && table.length === 0;
  let state = client.state !== "open" ? "away" : !subscribing.isSubscribed ? "idle" : subscribing.isAll ? "quiet" : "unmatched";
  if (size) state = isSearch ? "none" : "";
  if (empty.dataset.state === state) return;
  empty.dataset.state = state;
  empty.replaceChildren(...emptiness(state));
}

/** What is said in place of rows. @param {string} state */
function emptiness(state) {
  const make = (/** @type {string} */ kind, /** @type {string} */ text) => Object.assign(document.createElement(kind), { textContent: text });
  if (!state) return [];
  if (state === "away") return [make("strong", "Not connected"), "The table fills as soon as the server answers."];
  if (state === "idle") return [make("strong", "Not subscribed"), "Say above which topics are to be shown."];
  if (state === "unmatched") {
    const there = make("span", "");
    tellTopics(there);
    return [make("strong", "Nothing is published under these names so far"), "It shows here as soon as something is. ", there];
  }
  if (state === "none") return [make("strong", "No topic is called like that"), "Search for a part of a name, or with * and > for parts."];
  return [
    make("strong", "Nothing has been published yet"),
    "Publish something on this page or from a shell, or start the server with --demo for a simulated market.",
    make("code", `curl -d '{"px": 1.25}' ${new URL("publish/test.hello", document.baseURI)}`),
  ];
}

/** @param {string} name */
function choose(name) {
  chart.open(name);
  [last, isGone, isOwnChoice] = [undefined, false, false];
  const topic = topics.get(name);
  if (!topic) return;
  draws({ topic: name, seq: topic.seq, ts: topic.ts, json: topic.json, data: JSON.parse(topic.json) });
  follow.topic(topic);
}

function showChosen() {
  put(at("chosen-title"), chart.name || "Nothing chosen");
  at("chosen-help").hidden = Boolean(chart.name) && !isGone && (!chart.isEmpty || !last);
  if (last && chart.isEmpty) put(at("chosen-help"), "Its messages have no numbers to draw.");
  at("chart").hidden = at("field-label").hidden = !chart.name || chart.isEmpty;
  at("payload").hidden = !last;
  if (isGone) put(at("chosen-help"), "The server has no such topic any more. It shows here again as soon as something is published on it.");
  if (!last) return put(at("facts"), "");
  if (!at("chart").hidden) chart.draw(drawn);
  const rate = topics.get(chart.name)?.rate;
  const pace = rate === undefined ? "" : `, ${rate ? count(rate) : "0"} a second`;
  put(at("facts"), `message ${last.seq} at ${clock(last.ts)}${pace}`);
  put(at("payload"), last.json);
}

/** @param {HTMLElement} element @param {string} text */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

let pace = 0;
setInterval(() => {
  if (client.state === "open") pace = topics.measure();
  // Somebody who has just come sees a chart at once: the busiest topic's.
  const busiest = chart.name && !(isGone && isOwnChoice) ? undefined : topics.busiest();
  if (busiest) {
    table.choose(busiest.name);
    isOwnChoice = true;
  }
  subscribing.tick();
  status.tick(distance.leastMs, client.state === "open" ? client.hello : undefined);
  if (document.hidden) return;
  gauges.look();
  slow.look();
  // Not in the midst of all that.
  setTimeout(() => client.state === "open" && distance.measure(client), 500);
  moved(); // time goes on in the chart
}, 1000);
gauges.look();

// What is for operators takes their token, or that for publishing where there is none.
for (const field of ["token", "operator"])
  at(field).addEventListener("change", () => {
    const token = at("operator").value || at("token").value;
    gauges.ask(token);
    slow.ask(token);
  });

at("search").addEventListener("input", () => {
  topics.search = at("search").value;
  topics.stale = true;
  at("topics").scrollTop = 0;
  soon();
});

for (const button of document.querySelectorAll("[data-order]")) {
  button.addEventListener("click", () => {
    topics.order = /** @type {"name" | "rate"} */ (/** @type {HTMLElement} */ (button).dataset.order);
    topics.stale = true;
    for (const other of document.querySelectorAll("[role=columnheader]")) other.removeAttribute("aria-sort");
    button.parentElement?.setAttribute("aria-sort", topics.order === "name" ? "ascending" : "descending");
    soon();
  });
}

addEventListener("online", () => client.reconnect());

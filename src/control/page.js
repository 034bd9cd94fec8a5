"use strict";
// Shows what comes over /ws. Messages only change the map of topics; the table is brought up to date once an animation
// frame, and only for rows that are shown, so that a fast feed costs the page no more than a slow one.

const ROWS_MAX = 250; // more rows than anybody reads, and few enough to lay out in a frame
const TOPICS_MAX = 20000; // topics remembered; further ones are counted, not shown
const BACKOFF_MAX = 15000; // milliseconds
const PRICES = ["bid", "ask", "px", "sz", "side"]; // fields that get a place of their own

const at = (id) => document.getElementById(id);
const topics = new Map(); // name -> {name, data, seq, count, pace, changed, move}
const rows = new Map(); // name -> {element, cells, shown}
let socket = null;
let asked = [">"]; // the names subscribed to
let asking = 0; // the number of the last subscription
let answered = false; // it was taken, and what comes now belongs to it
let failures = 0;
let retry = 0; // the timer of the next attempt
let comeBackWithin = null; // what the server asked for when it drained
let updates = 0;
let unseen = 0; // updates of topics beyond TOPICS_MAX
let stale = true; // the order of rows has to be found anew
let frame = 0;

// ---- The connection ----------------------------------------------------------------------------------------------------

function connect() {
  clearTimeout(retry);
  say("connecting …", false);
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const mine = new WebSocket(`${scheme}//${location.host}/ws`, "stentor.v1.json");
  socket = mine;
  mine.onopen = () => {
    failures = 0;
    comeBackWithin = null;
    say("connected", true);
    subscribe([]);
  };
  mine.onmessage = (event) => take(JSON.parse(event.data));
  mine.onclose = (event) => {
    if (socket !== mine) return;
    socket = null;
    // Anywhere between nothing and the bound, so that many pages don't come back at the same moment.
    const most = comeBackWithin ?? Math.min(BACKOFF_MAX, 500 * 2 ** failures);
    const wait = Math.random() * most;
    failures += 1;
    const why = event.reason ? `: ${event.reason}` : "";
    say(`closed (${event.code}${why}), again in ${Math.ceil(wait / 1000)} s`, false);
    retry = setTimeout(connect, wait);
  };
}

function tell(command) {
  if (socket?.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(command));
  return true;
}

// Asks for what is wanted, in place of the names `before`. What is still on its way for those is not shown.
function subscribe(before) {
  at("problem").textContent = "";
  topics.clear();
  unseen = 0;
  stale = true;
  answered = false;
  asking += 1;
  if (before.length) tell({ op: "unsub", topics: before });
  if (asked.length) tell({ op: "sub", id: asking, topics: asked });
  drawSoon();
}

function take(message) {
  switch (message.type) {
    case "update":
      updates += 1; // falls through: a snapshot is an update that nobody counts
    case "snapshot":
      return keep(message);
    case "ack":
      answered ||= message.id === asking;
      if (message.id === "pub") at("published").textContent = `published as seq ${message.seq} on ${message.topic}`;
      return;
    case "error": {
      const where = message.id === "pub" || message.id === "auth" ? "published" : "problem";
      at(where).textContent = `${message.code}: ${message.message}`;
      return;
    }
    case "status":
      if (message.code === "draining") {
        comeBackWithin = message.retry_ms?.[1] ?? null;
        say("the server is stopping", false);
      }
  }
}

function keep(message) {
  if (!answered) return;
  let topic = topics.get(message.topic);
  if (!topic) {
    if (topics.size >= TOPICS_MAX) {
      unseen += 1;
      return;
    }
    topic = { name: message.topic, count: 0, pace: 0, move: {} };
    topics.set(topic.name, topic);
    stale = true;
  }
  const before = topic.data;
  topic.data = message.base64 === undefined ? message.data : { base64: message.base64 };
  topic.seq = message.seq;
  if (message.type === "update") {
    topic.count += 1;
    topic.changed = performance.now();
  }
  for (const field of PRICES) {
    const [old, now] = [Number(before?.[field]), Number(topic.data?.[field])];
    if (now !== old && !Number.isNaN(now - old)) topic.move[field] = now > old ? "up" : "down";
  }
  drawSoon();
}

function say(text, open) {
  at("state").textContent = text;
  at("state").classList.toggle("open", open);
}

// ---- The table ---------------------------------------------------------------------------------------------------------

function drawSoon() {
  frame ||= requestAnimationFrame(draw);
}

function draw(now) {
  frame = 0;
  if (stale) order();
  let fading = false;
  for (const [name, row] of rows) {
    const topic = topics.get(name);
    if (!topic) continue;
    const fresh = now - (topic.changed ?? -Infinity) < 350;
    fading ||= fresh;
    if (row.fresh !== fresh) row.cells[1].classList.toggle("changed", (row.fresh = fresh));
    if (row.data !== topic.data) showValue(row.cells[1], (row.data = topic.data), topic.move);
    put(row.cells[2], topic.pace);
    put(row.cells[3], topic.seq);
  }
  if (fading) drawSoon();
}

// Which topics are shown, in which order: the first of those that pass the filter, by name.
function order() {
  stale = false;
  const part = at("filter").value.trim().toLowerCase();
  const names = [...topics.keys()].filter((name) => name.toLowerCase().includes(part)).sort();
  const shown = names.slice(0, ROWS_MAX);
  const kept = new Set(shown);
  for (const [name, row] of rows) {
    if (kept.has(name)) continue;
    row.element.remove();
    rows.delete(name);
  }
  const body = at("rows");
  shown.forEach((name, n) => {
    const row = rows.get(name) ?? makeRow(name);
    if (body.children[n] !== row.element) body.insertBefore(row.element, body.children[n] ?? null);
  });
  const more = names.length > shown.length ? `, the first ${shown.length} shown: narrow the filter` : "";
  const dropped = unseen ? ", and more than this page keeps" : "";
  at("count").textContent = topics.size ? `${names.length} of ${topics.size} topics${more}${dropped}` : "No topics yet";
}

function makeRow(name) {
  const element = document.createElement("tr");
  const cells = [0, 1, 2, 3].map(() => element.appendChild(document.createElement("td")));
  cells[0].textContent = name;
  cells[2].className = cells[3].className = "number";
  const row = { element, cells, data: undefined, fresh: false };
  rows.set(name, row);
  return row;
}

function showValue(cell, data, move) {
  const fields = data && typeof data === "object" ? PRICES.filter((field) => field in data) : [];
  if (!fields.length) {
    cell.textContent = JSON.stringify(data) ?? "";
    return;
  }
  const parts = fields.map((field) => {
    const part = document.createElement("span");
    const label = document.createElement("b");
    label.textContent = field;
    const value = document.createElement("i");
    value.textContent = typeof data[field] === "object" ? JSON.stringify(data[field]) : String(data[field]);
    if (field !== "sz") value.className = move[field] ?? "";
    part.append(label, value);
    return part;
  });
  cell.replaceChildren(...parts);
  cell.title = JSON.stringify(data);
}

function put(cell, value) {
  const text = value === undefined ? "" : String(value);
  if (cell.textContent !== text) cell.textContent = text;
}

// ---- The rest ----------------------------------------------------------------------------------------------------------

let counted = performance.now();
setInterval(() => {
  const now = performance.now();
  const seconds = (now - counted) / 1000;
  counted = now;
  at("rate").textContent = Math.round(updates / seconds).toLocaleString();
  updates = 0;
  for (const topic of topics.values()) {
    topic.pace = Math.round((topic.count / seconds) * 10) / 10;
    topic.count = 0;
  }
  drawSoon();
}, 1000);

at("subscribe").addEventListener("submit", (event) => {
  event.preventDefault();
  const before = asked;
  asked = at("topics").value.split(/[\s,]+/).filter(Boolean);
  subscribe(before);
});

at("filter").addEventListener("input", () => {
  stale = true;
  drawSoon();
});

at("publish").addEventListener("submit", (event) => {
  event.preventDefault();
  const said = at("published");
  said.textContent = "";
  try {
    JSON.parse(at("data").value);
  } catch (error) {
    said.textContent = `not JSON: ${error.message}`;
    return;
  }
  if (at("token").value) tell({ op: "auth", id: "auth", token: at("token").value });
  // Put together by hand, so that the value goes out as it was typed: 1.50 stays 1.50.
  const topic = JSON.stringify(at("to").value.trim());
  if (socket?.readyState === WebSocket.OPEN) socket.send(`{"op":"pub","id":"pub","topic":${topic},"data":${at("data").value}}`);
  else said.textContent = "not connected";
});

connect();

// The parts of the console that need no browser.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Anew } from "../../src/control/console/anew.js";
import { bytes, count, counted, decimals, duration, fitting, named } from "../../src/control/console/format.js";
import { Scrape } from "../../src/control/console/prometheus.js";
import { runs } from "../../src/control/console/plot.js";
import { wrongDots } from "../../src/control/console/publish.js";
import { at, parts, shownPath } from "../../src/control/console/raw.js";
import { Topics } from "../../src/control/console/topics.js";
import { test } from "./server.mjs";

test("figures have three digits and a unit", () => {
  assert.deepEqual([0, 0.07, 1.5, 999, 9999, 12_345, 1.5e9].map(count), ["0", "0.07", "1.5", "999", "9999", "12.3 k", "1.5 G"]);
  assert.deepEqual([0, 1023, 1024, 1.5 * 2 ** 30].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 GiB"]);
  assert.deepEqual([0, 42e-6, 0.0123, 90, 600, 86_400].map(duration), ["0 s", "42.0 µs", "12.3 ms", "90.0 s", "10 min", "24 h"]);
  assert.deepEqual([1, 1.25, 1e-7].map(decimals), [0, 2, 0]);
});

test("one is not called many", () => {
  assert.deepEqual([0, 1, 1.25, 12_345].map((value) => counted(value, "topic")), ["0 topics", "1 topic", "1.25 topics", "12.3 k topics"]);
  assert.deepEqual([1.001, 2].map((value) => named(value, "message")), ["message", "messages"]);
});

test("a line has holes where nothing is known, and what is known alone is seen", () => {
  assert.deepEqual(runs([undefined, 1, 2, undefined, undefined, 3, undefined]), [[[1, 1], [2, 2]], [[4.7, 3], [5, 3]]]);
  assert.deepEqual(runs([0]), [[[-0.3, 0], [0, 0]]]);
  assert.deepEqual(runs([undefined]), []);
});

test("names whose dots an address would take for the way to another page are found", () => {
  const at = (name) => /at byte (\d+)/.exec(wrongDots(name))?.[1];
  assert.deepEqual(["..", ".", "a..b", "a.", ".a", "ab.c..", "a.b", "..."].map(at), ["0", "0", "2", "2", "0", "5", undefined, "0"]);
  assert.match(wrongDots(""), /at least one character/);
});

test("a figure that there is no room for is cut with a mark, and one that fits is whole", () => {
  const width = (text) => text.length * 6;
  assert.equal(fitting("8389766145050669870", 19 * 6, width), "8389766145050669870");
  assert.equal(fitting("8389766145050669870", 18 * 6 + 5, width), "83897661450506698…");
  assert.equal(fitting("8389766145050669870", 6, width), "…");
});

test("topics that begin anew together are told in one line", async () => {
  const said = [];
  const anew = new Anew((text) => said.push(text));
  for (let nth = 0; nth < 600; nth += 1) anew.note(`q.${nth}`, "epoch");
  anew.note("q.0", "epoch");
  anew.note("t.a", "history");
  anew.note("t.b", "reconnect");
  while (said.length < 2) await new Promise((resolve) => setTimeout(resolve, 20)); // it speaks when nothing more comes
  assert.deepEqual(said, [
    "600 topics begin anew: the server was started again, or had forgotten them",
    "t.a begins anew: the server keeps no more of what was before",
  ]);
});

test("a payload is taken apart without touching its digits", () => {
  const order = '{"id":8389766145050669870, "px" : 100.10,"a b":"x,}\\"","":{"in":[1e400,{"z":-0}]},"__proto__":[],"id":2}';
  assert.deepEqual(parts(order).fields, [
    ["id", "8389766145050669870"],
    ["px", "100.10"],
    ["a b", '"x,}\\""'],
    ["", '{"in":[1e400,{"z":-0}]}'],
    ["__proto__", "[]"],
    ["id", "2"],
  ]);
  assert.deepEqual(parts(order, 2), { fields: [["id", "8389766145050669870"], ["px", "100.10"]], isWhole: false });
  for (const json of ["{}", "[]", " [ ] ", "7", '"a"', "null"]) assert.deepEqual(parts(json), { fields: [], isWhole: true });
  assert.deepEqual(parts('{"a":1}', 1), { fields: [["a", "1"]], isWhole: true });
  const big = `{"a":1,"b":[${"1,".repeat(20_000)}1]}`;
  assert.deepEqual(parts(big), { fields: [["a", "1"]], isWhole: false });
  const found = [at(order, ["px"]), at(order, ["id"]), at('{"a":{"b":[1,2.50]}}', ["a", "b", "1"]), at('{"a":{"b":4},"a.b":3}', ["a.b"]), at('{"a.b":3,"a":{"b":4}}', ["a", "b"]), at("7", []), at("7", ["x"])];
  assert.deepEqual(found, ["100.10", "2", "2.50", "3", "4", "7", undefined]);
  const paths = [["a", "b"], ["a.b"], ["a", "", "b"], ['a"', "b"], ["levels", "0"], [], [""]];
  assert.deepEqual(paths.map(shownPath), ["a.b", '"a.b"', 'a."".b', '"a\\"".b', "levels.0", "", '""']);
});

test("metrics are summed over labels, and rates are taken between scrapes", () => {
  const earlier = new Scrape('# HELP x y\nstentor_sends_total{worker="0"} 10\nstentor_sends_total{worker="1"} 5\n', 1000);
  const now = new Scrape('stentor_sends_total{worker="0"} 30\nstentor_sends_total{worker="1"} 5\n', 3000);
  assert.equal(earlier.get("sends_total"), 15);
  assert.equal(now.rate("sends_total", earlier), 10);
  assert.equal(now.get("nothing"), undefined);
  assert.equal(now.rate("nothing", earlier), undefined);
});

test("percentiles are of what was counted between two scrapes", () => {
  const text = (a, b, c) =>
    `stentor_t_bucket{le="0.1",worker="0"} ${a}\nstentor_t_bucket{le="0.2",worker="0"} ${b}\nstentor_t_bucket{le="+Inf",worker="0"} ${c}\n`;
  const earlier = new Scrape(text(100, 100, 100), 0);
  const now = new Scrape(text(100, 200, 200), 1);
  assert.ok(Math.abs(now.quantile("t", 0.5, earlier) - 0.15) < 1e-9);
  assert.equal(now.quantile("t", 0.5, now), undefined);
  assert.equal(new Scrape(text(100, 100, 200), 1).quantile("t", 0.99, earlier), 0.2);
});

test("topics are found by a part of their name and by patterns, and a round forgets who wasn't heard of", () => {
  const topics = new Topics();
  for (const topic of ["q.b", "q.a", "t.a"]) topics.keep({ topic, seq: 1, ts: 1, json: "1" });
  const names = () => topics.list().map(({ name }) => name);
  assert.deepEqual(names(), ["q.a", "q.b", "t.a"]);
  topics.search = "Q.";
  assert.deepEqual(names(), ["q.a", "q.b"]);
  topics.search = "*.a";
  assert.deepEqual(names(), ["q.a", "t.a"]);
  topics.search = "";
  topics.begin();
  topics.keep({ topic: "q.b", seq: 2, ts: 2, json: "2" });
  topics.sweep();
  assert.deepEqual(names(), ["q.b"]);
});

test("a topic's pace is that of its seq, however little of it came here", (t) => {
  let now = 0;
  t.mock.method(performance, "now", () => now);
  const topics = new Topics();
  topics.keep({ type: "snapshot", topic: "a", epoch: "k", seq: 100, ts: 1, data: 1 });
  topics.keep({ type: "snapshot", topic: "b", epoch: "k", seq: 7, ts: 1, data: 1 });
  topics.keep({ type: "update", topic: "a", seq: 300, ts: 2, data: 2 });
  topics.keep({ type: "update", topic: "c", epoch: "k", seq: 1, ts: 2, data: 2 });
  now = 2000;
  assert.equal(topics.measure(), 100.5);
  assert.deepEqual(["a", "b", "c"].map((name) => topics.get(name).rate), [100, 0, 0.5]);
  assert.equal(topics.busiest().name, "a");
});

test("text can be read on every ground that it stands on, in light and dark", () => {
  const css = readFileSync(new URL("../../src/control/console/look.css", import.meta.url), "utf8");
  const [light, dark] = css.split("prefers-color-scheme: dark").map((part) => Object.fromEntries([...part.matchAll(/--([a-z-]+): (#[0-9a-f]{6})/g)].map(([, name, value]) => [name, value])));
  // Relative luminance and contrast as WCAG defines them.
  const luminance = (colour) => {
    const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);
    const [red, green, blue] = parts.map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  for (const colours of [light, dark]) {
    for (const [text, grounds] of [
      ["ink", ["ground", "panel", "flash"]],
      ["soft", ["ground", "panel"]],
      ["accent", ["ground", "panel"]],
      ["fine", ["ground", "panel", "flash", "fine-ground"]],
      ["doubt", ["ground", "panel", "flash", "doubt-ground"]],
    ]) {
      for (const ground of grounds) {
        const found = contrast(colours[text], colours[ground]);
        assert.ok(found >= 4.5, `${text} ${colours[text]} on ${ground} ${colours[ground]}: ${found.toFixed(2)}`);
      }
    }
  }
});

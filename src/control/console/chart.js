/** One figure of the chosen topic over the last minutes. Doubles are good enough for a line; what is said in digits is as published. */
import { clock, decimals, fitting } from "./format.js";
import { line, roundStep, sheet } from "./plot.js";
import { at } from "./raw.js";

/** Points kept; beyond, the oldest go. */
const POINTS_MAX = 5000;

/** Seconds shown at most. */
const SPAN = 120;

/** Fields offered. */
const FIELDS_MAX = 24;

/** Milliseconds until time has visibly gone on. */
const STILL_MS = 200;

const [BOTTOM, TOP] = [18, 10];

/** Room for the axis on the right: at least, and at most as a share of the width; longer figures reach into the chart. */
const [RIGHT_MIN, RIGHT_SHARE] = [36, 0.4];

const [FONT, FONT_STRONG] = ["11px system-ui, sans-serif", "600 11px system-ui, sans-serif"];

/** @typedef {{ts: number, json: string, data: any}} Point */

export class Chart {
  name = "";
  field = "";
  /** @type {Point[]} */ #points = [];
  #seq = -1;
  #ts = 0;
  #fields = "";
  #described = 0;
  #isNew = false;
  #drawn = 0;
  /** Where somebody points at. @type {number | null} */ #pointer = null;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLSelectElement} select the fields to choose from
   * @param {() => void} soon asks for a frame
   */
  constructor(canvas, select, soon) {
    this.canvas = canvas;
    this.select = select;
    const again = () => {
      this.#isNew = true;
      soon();
    };
    select.addEventListener("change", () => {
      this.field = select.title = select.value;
      again();
    });
    canvas.addEventListener("pointermove", (event) => {
      this.#pointer = event.offsetX;
      again();
    });
    canvas.addEventListener("pointerleave", () => {
      this.#pointer = null;
      again();
    });
  }

  /** Begins anew with another topic. @param {string} name */
  open(name) {
    this.name = name;
    this.#points = [];
    this.#seq = -1;
    this.#ts = 0;
    this.#fields = "";
    this.#described = 0;
  }

  /** @param {import("./stentor.js").Update} update */
  add({ seq, ts, json = "", data }) {
    if (seq <= this.#seq && ts <= this.#ts) return; // both the table's subscription and the chart's bring it
    if (seq <= this.#seq) this.open(this.name); // its numbering began anew
    [this.#seq, this.#ts] = [seq, ts];
    this.#isNew = true;
    this.#points.push({ ts, json, data });
    if (this.#points.length > POINTS_MAX) this.#points.splice(0, POINTS_MAX / 10);
    this.#offer(data);
  }

  /** The numbers of a payload become the fields to choose from. @param {any} data */
  #offer(data) {
    const fields = numbers(data);
    const key = JSON.stringify(fields);
    if (key === this.#fields) return;
    this.#fields = key;
    const isNew = (/** @type {string} */ field) => ![...this.select.options].some((option) => option.value === field);
    if (fields.some(isNew) || this.#points.length === 1) {
      this.select.replaceChildren(...fields.map((field) => new Option(field || "value", field)));
    }
    if (!fields.includes(this.field) && fields.length) this.field = fields[0];
    this.select.value = this.select.title = this.field;
  }

  get isEmpty() {
    return this.#fields === "" || this.#fields === "[]";
  }

  /** @param {number} now */
  draw(now) {
    if (!this.#isNew && now - this.#drawn < STILL_MS) return;
    const on = sheet(this.canvas);
    if (!on) return;
    [this.#isNew, this.#drawn] = [false, now];
    const read = (/** @type {any} */ data) => pick(data, this.field);
    const end = Date.now() * 1000;
    const begin = Math.max(end - SPAN * 1e6, Math.min(this.#points[0]?.ts ?? end, end - 10e6));
    const shown = this.#points.filter((point) => point.ts >= begin && Number.isFinite(read(point.data)));
    if (!shown.length) return this.#nothing(on);
    const values = shown.map((point) => /** @type {number} */ (read(point.data)));
    const axis = scale(values, on.height - BOTTOM, TOP);
    const right = on.width - gutter(on, axis, this.#digits(shown[shown.length - 1]));
    const across = (/** @type {number} */ ts) => ((ts - begin) / (end - begin)) * right;
    /** @type {[number, number][]} */
    const path = shown.map((point, nth) => [across(point.ts), axis.place(values[nth])]);
    path.push([right, path[path.length - 1][1]]);
    this.#grid(on, axis, begin, end, across, this.#pointer === null ? path[path.length - 1][1] : -100);
    line(on, path, on.height - BOTTOM, true);
    this.#point(on, path, shown);
    this.#describe(shown, values);
  }

  /** There is no line: the field was empty for that long, or has what no line can be drawn of. @param {import("./plot.js").Sheet} on */
  #nothing({ pen, width, height, colour }) {
    pen.font = FONT;
    pen.fillStyle = colour("soft");
    [pen.textAlign, pen.textBaseline] = ["center", "middle"];
    pen.fillText("Nothing that could be drawn in the last two minutes", width / 2, height / 2, width - 8);
    this.#described = 0;
    this.canvas.setAttribute("aria-label", `${this.#what()} over time: nothing that could be drawn in the last two minutes`);
  }

  /** What is drawn. */
  #what() {
    return this.field ? `${this.field} of ${this.name}` : this.name;
  }

  /** The digits that were published. @param {Point} point */
  #digits(point) {
    return at(point.json, this.field) ?? String(pick(point.data, this.field));
  }

  /** @param {import("./plot.js").Sheet} on @param {ReturnType<typeof scale>} axis @param {number} begin @param {number} end @param {(ts: number) => number} across @param {number} taken where the last value stands on the axis */
  #grid({ pen, width, height, colour }, axis, begin, end, across, taken) {
    const right = across(end);
    pen.font = FONT;
    pen.strokeStyle = colour("line");
    pen.fillStyle = colour("soft");
    pen.lineWidth = 1;
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    for (const value of axis.ticks) {
      const y = Math.round(axis.place(value)) + 0.5;
      pen.beginPath();
      pen.moveTo(0, y);
      pen.lineTo(right, y);
      pen.stroke();
      // Not under the last value, and not half of it.
      if (Math.abs(y - taken) > 13) pen.fillText(axis.text(value), right + 6, y, width - right - 6);
    }
    const step = [2, 5, 10, 20, 30, 60].find((seconds) => (end - begin) / 1e6 / seconds <= 6) ?? 60;
    pen.textAlign = "center";
    for (let ago = step; ago < (end - begin) / 1e6; ago += step) {
      const x = across(end - ago * 1e6);
      if (x > 18 && x < right - 48) pen.fillText(`−${ago} s`, x, height - 7);
    }
    pen.textAlign = "right";
    pen.fillText("now", right, height - 7);
  }

  /** What one points at, or else the last value. @param {import("./plot.js").Sheet} on @param {[number, number][]} path @param {Point[]} shown */
  #point({ pen, width, height, colour }, path, shown) {
    let nth = shown.length - 1;
    if (this.#pointer !== null) {
      const at = this.#pointer;
      nth = Math.max(0, shown.findLastIndex((_, one) => path[one][0] <= at));
    }
    const [x, y] = path[this.#pointer === null ? path.length - 1 : nth];
    const digits = this.#digits(shown[nth]);
    pen.fillStyle = colour("accent");
    pen.beginPath();
    pen.arc(x, y, 3, 0, 7);
    pen.fill();
    pen.font = FONT_STRONG;
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    const wide = (/** @type {string} */ text) => pen.measureText(text).width;
    const time = this.#pointer === null ? "" : ` at ${clock(shown[nth].ts)}`;
    const text = fitting(digits, width - 6 - wide(time), wide) + time;
    const long = wide(text);
    // Beside it, where it can be read whole, on a ground of its own.
    let [left, middle] = [x + 6, y];
    if (this.#pointer !== null) [left, middle] = [x < 90 ? x + 6 : x - 6 - long, y < height / 2 ? y + 16 : y - 14];
    left = Math.max(2, Math.min(left, width - long - 1));
    pen.fillStyle = colour("panel");
    pen.fillRect(left - 2, middle - 8, long + 4, 16);
    pen.fillStyle = colour(this.#pointer === null ? "accent" : "ink");
    pen.fillText(text, left, middle);
  }

  /** In words, every few seconds. @param {Point[]} shown @param {number[]} values */
  #describe(shown, values) {
    const now = performance.now();
    if (now - this.#described < 5000 && this.#described) return;
    this.#described = now;
    let [low, high] = [0, 0];
    values.forEach((value, nth) => {
      if (value < values[low]) low = nth;
      if (value > values[high]) high = nth;
    });
    const [least, most, last] = [low, high, shown.length - 1].map((nth) => this.#digits(shown[nth]));
    this.canvas.setAttribute("aria-label", `${this.#what()} over time: now ${last}, between ${least} and ${most}`);
  }
}

/** How wide the axis has to be for its figures and the last value. @param {import("./plot.js").Sheet} on @param {ReturnType<typeof scale>} axis @param {string} last */
function gutter({ pen, width }, axis, last) {
  const wide = (/** @type {string} */ font, /** @type {string[]} */ texts) => {
    pen.font = font;
    return Math.max(...texts.map((text) => pen.measureText(text).width));
  };
  const ticks = axis.ticks.map(axis.text);
  const wanted = Math.max(wide(FONT, ticks), wide(FONT_STRONG, [last])) + 10;
  return Math.min(Math.max(wanted, RIGHT_MIN), width * RIGHT_SHARE);
}

/** Where numbers are in a payload: "" for the payload itself, `bid`, `book.bid`, `levels.0`. @param {any} data */
function numbers(data) {
  if (typeof data === "number") return [""];
  /** @type {string[]} */
  const found = [];
  const look = (/** @type {any} */ value, /** @type {string} */ path, /** @type {number} */ depth) => {
    if (found.length >= FIELDS_MAX) return;
    if (typeof value === "number") found.push(path);
    else if (value && typeof value === "object" && depth < 3) {
      for (const key of Object.keys(value).slice(0, FIELDS_MAX)) look(value[key], path ? `${path}.${key}` : key, depth + 1);
    }
  };
  look(data, "", 0);
  return found;
}

/** @param {any} data @param {string} path */
function pick(data, path) {
  const own = (/** @type {any} */ value, /** @type {string} */ key) =>
    value !== null && typeof value === "object" && Object.hasOwn(value, key) ? value[key] : undefined;
  return path ? own(data, path) ?? path.split(".").reduce(own, data) : data;
}

/** The vertical axis. @param {number[]} values @param {number} bottom @param {number} top */
function scale(values, bottom, top) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  // All alike: as much above and below as shows that; of nothing but zeros, any.
  const least = Math.max(Math.abs(high), Math.abs(low)) * 1e-6 || 1e-9;
  if (high - low < least) [low, high] = [low - least * 5, high + least * 5];
  const room = (high - low) * 0.08;
  [low, high] = [low - room, high + room];
  const step = roundStep((high - low) / 4);
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) ticks.push(value);
  const digits = Math.max(0, -Math.floor(Math.log10(step)), ...values.slice(-50).map(decimals));
  const text = (/** @type {number} */ value) => (digits > 9 ? value.toExponential(2) : value.toFixed(digits));
  return { ticks, text, place: (/** @type {number} */ value) => bottom - ((value - low) / (high - low)) * (bottom - top) };
}

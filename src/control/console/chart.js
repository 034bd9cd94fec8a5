/** One figure of the chosen topic over the last minutes. */
import { clock, decimals } from "./format.js";
import { line, roundStep, sheet } from "./plot.js";

/** Points kept; beyond, the oldest go. */
const POINTS_MAX = 5000;

/** Seconds shown at most. */
const SPAN = 120;

/** Fields offered. */
const FIELDS_MAX = 24;

/** Milliseconds until time has visibly gone on. */
const STILL_MS = 200;

const [RIGHT, BOTTOM, TOP] = [62, 18, 8];

export class Chart {
  name = "";
  field = "";
  /** @type {{ts: number, data: any}[]} */ #points = [];
  #seq = -1;
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
      this.field = select.value;
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
    this.#fields = "";
    this.#described = 0;
  }

  /** @param {import("./stentor.js").Update} update */
  add({ seq, ts, data }) {
    if (seq <= this.#seq) return; // both the table's subscription and the chart's bring it
    this.#seq = seq;
    this.#isNew = true;
    this.#points.push({ ts, data });
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
    this.select.value = this.field;
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
    const shown = this.#points.filter((point) => point.ts >= begin && typeof read(point.data) === "number");
    if (!shown.length) return;
    const values = shown.map((point) => /** @type {number} */ (read(point.data)));
    const axis = scale(values, on.height - BOTTOM, TOP);
    const across = (/** @type {number} */ ts) => ((ts - begin) / (end - begin)) * (on.width - RIGHT);
    this.#grid(on, axis, begin, end, across);
    /** @type {[number, number][]} */
    const path = shown.map((point, nth) => [across(point.ts), axis.place(values[nth])]);
    path.push([across(end), path[path.length - 1][1]]);
    line(on, path, on.height - BOTTOM, true);
    this.#point(on, path, shown, values, axis.digits);
    this.#describe(values, axis.digits);
  }

  /** @param {import("./plot.js").Sheet} on @param {ReturnType<typeof scale>} axis @param {number} begin @param {number} end @param {(ts: number) => number} across */
  #grid({ pen, width, height, colour }, axis, begin, end, across) {
    pen.font = "11px system-ui, sans-serif";
    pen.strokeStyle = colour("line");
    pen.fillStyle = colour("soft");
    pen.lineWidth = 1;
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    for (const value of axis.ticks) {
      const y = Math.round(axis.place(value)) + 0.5;
      pen.beginPath();
      pen.moveTo(0, y);
      pen.lineTo(width - RIGHT, y);
      pen.stroke();
      pen.fillText(value.toFixed(axis.digits), width - RIGHT + 6, y);
    }
    const step = [2, 5, 10, 20, 30, 60].find((seconds) => (end - begin) / 1e6 / seconds <= 6) ?? 60;
    pen.textAlign = "center";
    for (let ago = step; ago < (end - begin) / 1e6; ago += step) {
      const x = across(end - ago * 1e6);
      if (x > 18) pen.fillText(`−${ago} s`, x, height - 7);
    }
    pen.textAlign = "right";
    pen.fillText("now", width - RIGHT, height - 7);
  }

  /** What one points at, or else the last value. @param {import("./plot.js").Sheet} on @param {[number, number][]} path @param {{ts: number}[]} shown @param {number[]} values @param {number} digits */
  #point({ pen, width, height, colour }, path, shown, values, digits) {
    let nth = values.length - 1;
    if (this.#pointer !== null) {
      const at = this.#pointer;
      nth = Math.max(0, shown.findLastIndex((_, one) => path[one][0] <= at));
    }
    const [x, y] = this.#pointer === null ? path[path.length - 1] : path[nth];
    const text = values[nth].toFixed(digits);
    pen.fillStyle = colour("accent");
    pen.beginPath();
    pen.arc(x, y, 3, 0, 7);
    pen.fill();
    pen.font = "600 11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    if (this.#pointer === null) {
      pen.fillStyle = colour("panel");
      pen.fillRect(width - RIGHT + 3, y - 8, RIGHT, 16);
      pen.fillStyle = colour("accent");
      pen.textAlign = "left";
      pen.fillText(text, width - RIGHT + 6, y);
    } else {
      pen.fillStyle = colour("ink");
      pen.textAlign = x < 90 ? "left" : "right";
      pen.fillText(`${text} at ${clock(shown[nth].ts)}`, x < 90 ? x + 6 : x - 6, y < height / 2 ? y + 16 : y - 14);
    }
  }

  /** In words, every few seconds. @param {number[]} values @param {number} digits */
  #describe(values, digits) {
    const now = performance.now();
    if (now - this.#described < 5000 && this.#described) return;
    this.#described = now;
    const [low, high, last] = [Math.min(...values), Math.max(...values), values[values.length - 1]].map((value) => value.toFixed(digits));
    const what = this.field ? `${this.field} of ${this.name}` : this.name;
    this.canvas.setAttribute("aria-label", `${what} over time: now ${last}, between ${low} and ${high}`);
  }
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
  if (!path || (data && typeof data === "object" && path in data)) return path ? data[path] : data;
  return path.split(".").reduce((value, key) => (value === null || value === undefined ? undefined : value[key]), data);
}

/** The vertical axis. @param {number[]} values @param {number} bottom @param {number} top */
function scale(values, bottom, top) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const least = Math.max(Math.abs(high) * 1e-6, 1e-9);
  if (high - low < least) [low, high] = [low - least * 5, high + least * 5];
  const room = (high - low) * 0.08;
  [low, high] = [low - room, high + room];
  const step = roundStep((high - low) / 4);
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) ticks.push(value);
  const digits = Math.min(9, Math.max(0, -Math.floor(Math.log10(step)), ...values.slice(-50).map(decimals)));
  return { ticks, digits, place: (/** @type {number} */ value) => bottom - ((value - low) / (high - low)) * (bottom - top) };
}

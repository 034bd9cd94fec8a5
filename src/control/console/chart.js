/** One figure of the chosen topic over the last minutes. Doubles are good enough for a line; what is said in digits is as published. */
import { clock, decimals, fitting } from "./format.js";
import { line, roundStep, sheet } from "./plot.js";
import { at, shownPath } from "./raw.js";

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

/** Half of a label's height. */
const HALF = 8;

const [FONT, FONT_STRONG] = ["11px system-ui, sans-serif", "600 11px system-ui, sans-serif"];

/** @typedef {{ts: number, json: string, data: any}} Point */

export class Chart {
  name = "";
  field = "";
  /** @type {Point[]} */ #points = [];
  #seq = -1;
  #ts = 0;
  #fields = "";
  /** Where the fields on offer are. @type {Map<string, string[]>} */ #paths = new Map();
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
    const paths = numbers(data);
    const key = JSON.stringify(paths);
    if (key === this.#fields) return;
    this.#fields = key;
    const fields = paths.map(shownPath);
    const isNew = (/** @type {string} */ field) => ![...this.select.options].some((option) => option.value === field);
    if (fields.some(isNew) || this.#points.length === 1) {
      this.select.replaceChildren(...fields.map((field) => new Option(field || "value", field)));
      this.#paths = new Map(paths.map((path, nth) => [fields[nth], path]));
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
    const read = (/** @type {any} */ data) => pick(data, this.#path);
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
    const label = this.#label(on, path, shown, right);
    this.#grid(on, axis, begin, end, across, label.left + label.long > right ? label.middle : -100);
    line(on, path, on.height - BOTTOM, true);
    this.#point(on, label);
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
    return at(point.json, this.#path) ?? String(pick(point.data, this.#path));
  }

  get #path() {
    return this.#paths.get(this.field) ?? [];
  }

  /** @param {import("./plot.js").Sheet} on @param {ReturnType<typeof scale>} axis @param {number} begin @param {number} end @param {(ts: number) => number} across @param {number} other where something else stands on the axis */
  #grid({ pen, width, height, colour }, axis, begin, end, across, other) {
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
      // Not under the other, and not half of it.
      if (Math.abs(y - other) > 13) pen.fillText(axis.text(value), right + 6, y, width - right - 6);
    }
    pen.textAlign = "right";
    pen.fillText("now", right, height - 7);
    let taken = right - pen.measureText("now").width;
    const step = [2, 5, 10, 20, 30, 60].find((seconds) => (end - begin) / 1e6 / seconds <= 6) ?? 60;
    pen.textAlign = "center";
    for (let ago = step; ago < (end - begin) / 1e6; ago += step) {
      const [x, text] = [across(end - ago * 1e6), `−${ago} s`];
      const half = pen.measureText(text).width / 2;
      if (x - half < 1 || x + half > taken - 8) continue;
      pen.fillText(text, x, height - 7);
      taken = x - half;
    }
  }

  /**
   * What is said of the value that one points at, or else of the last, and where that can be read whole.
   * @param {import("./plot.js").Sheet} on @param {[number, number][]} path @param {Point[]} shown @param {number} right where the axis is
   */
  #label({ pen, width, height }, path, shown, right) {
    const pointer = this.#pointer;
    const nth = pointer === null ? shown.length - 1 : Math.max(0, shown.findLastIndex((_, one) => path[one][0] <= pointer));
    const [x, y] = path[pointer === null ? path.length - 1 : nth];
    pen.font = FONT_STRONG;
    const wide = (/** @type {string} */ text) => pen.measureText(text).width;
    const time = pointer === null ? "" : ` at ${clock(shown[nth].ts)}`;
    const text = fitting(this.#digits(shown[nth]), width - 6 - wide(time), wide) + time;
    const long = wide(text);
    // The last stands on the axis; another in the chart, as long as there is room for it.
    const isOnAxis = pointer === null || long > right - 6;
    const left = Math.max(2, Math.min(pointer === null || x < 90 ? x + 6 : x - 6 - long, (isOnAxis ? width : right - 3) - long - 1));
    const middle = left - 2 > path[path.length - 1][0] ? y : beside(path, left - 2, left + long + 2, y, height - BOTTOM);
    return { x, y, text, long, left, middle };
  }

  /** @param {import("./plot.js").Sheet} on @param {{x: number, y: number, text: string, long: number, left: number, middle: number}} label */
  #point({ pen, height, colour }, { x, y, text, long, left, middle }) {
    if (this.#pointer !== null) {
      // Which it is, and where on the line.
      pen.strokeStyle = colour("soft");
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(x, 0);
      pen.lineTo(x, height - BOTTOM);
      pen.stroke();
    }
    pen.fillStyle = colour("accent");
    pen.beginPath();
    pen.arc(x, y, 3, 0, 7);
    pen.fill();
    pen.font = FONT_STRONG;
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    // On a ground of its own: lines of the grid may go through it.
    pen.fillStyle = colour("panel");
    pen.fillRect(left - 2, middle - HALF, long + 4, 2 * HALF);
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

/**
 * The middle of a label that lies above or below all that the line does between `from` and `to`: as near to `y` as that can be.
 * @param {[number, number][]} path steps, each value until the next @param {number} from @param {number} to @param {number} y @param {number} bottom
 */
function beside(path, from, to, y, bottom) {
  const before = path.findLastIndex(([x]) => x <= from);
  const there = path.filter(([x], nth) => nth === before || (x > from && x <= to)).map(([, y]) => y);
  if (!there.length) return Math.max(HALF, Math.min(y, bottom - HALF));
  // The scale leaves room above the highest: there is always a place there.
  const above = Math.max(HALF, Math.min(...there) - HALF - 4);
  const below = Math.max(...there) + HALF + 4;
  return below + HALF <= bottom && below - y < y - above ? below : above;
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

/** Where numbers are in a payload: the keys that lead to each; none to the payload itself. @param {any} data */
function numbers(data) {
  /** @type {string[][]} */
  const found = [];
  const look = (/** @type {any} */ value, /** @type {string[]} */ path) => {
    if (found.length >= FIELDS_MAX) return;
    if (typeof value === "number") found.push(path);
    else if (value && typeof value === "object" && path.length < 3) {
      for (const key of Object.keys(value).slice(0, FIELDS_MAX)) look(value[key], [...path, key]);
    }
  };
  look(data, []);
  return found;
}

/** @param {any} data @param {string[]} path */
function pick(data, path) {
  const own = (/** @type {any} */ value, /** @type {string} */ key) =>
    value !== null && typeof value === "object" && Object.hasOwn(value, key) ? value[key] : undefined;
  return path.reduce(own, data);
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
  // Figures that would be long have as many digits as tell one tick from the next.
  const most = Math.max(Math.abs(low), Math.abs(high));
  const figures = Math.max(0, Math.min(15, Math.ceil(Math.log10(most / step))));
  const isLong = digits > 9 || most >= 1e15;
  const text = (/** @type {number} */ value) => (isLong && value ? value.toExponential(figures) : value.toFixed(isLong ? 0 : digits));
  return { ticks, text, place: (/** @type {number} */ value) => bottom - ((value - low) / (high - low)) * (bottom - top) };
}

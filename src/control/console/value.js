/**
 * One payload in one line: the fields of an object side by side, each as it was published. Fields that there is no room for are left
 * out whole, with a mark: half a number would be another number.
 */
import { isNumber, parts, shown } from "./raw.js";

/** Fields shown in a row, and characters of each. */
const [FIELDS_MAX, TEXT_MAX] = [8, 400];

/** How long a change is marked, in milliseconds. */
const MARKED_FOR = 600;

/** @typedef {{part: HTMLElement, figure: HTMLElement, text: string, marked: number}} Field */

export class Value {
  /** @type {Field[]} */ #fields = [];
  #keys = "";
  /** How many characters there are where: a line of the same shape takes the same room, if it is plain. */
  #shape = "";
  #isMeasured = true;
  #isMore = false;
  /** @type {string | undefined} */ #shown;

  /** @param {HTMLElement} cell */
  constructor(cell) {
    this.cell = cell;
    this.more = Object.assign(document.createElement("em"), { textContent: "…", hidden: true });
  }

  /** Shows another topic's value, in which nothing has changed. @param {string} json */
  replace(json) {
    this.#keys = "\0";
    this.show(json, 0);
  }

  /** Shows the next value, and marks what has changed in it. @param {string} json @param {number} now */
  show(json, now) {
    if (json === this.#shown && this.#keys !== "\0") return;
    this.#shown = json;
    const isObject = json.trimStart().startsWith("{");
    const { fields, isWhole } = isObject ? parts(json, FIELDS_MAX) : { fields: [], isWhole: true };
    /** @type {[string, string][]} */
    const entries = fields.length ? fields : [["", json]];
    const keys = JSON.stringify(entries.map(([key]) => key));
    if (keys !== this.#keys) {
      this.#keys = keys;
      this.#fields = entries.map(([key]) => make(key, isObject));
      this.cell.replaceChildren(...this.#fields.map(({ part }) => part), this.more);
      this.#shape = "";
      now = 0;
    }
    this.#isMore = !isWhole;
    const texts = entries.map(([, text], nth) => put(this.#fields[nth], text, now));
    const shape = `${isWhole} ${texts.map((text) => (/^[ -~]*$/.test(text) ? text.length : text))}`;
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.again();
    }
  }

  /** The room has changed. */
  again() {
    this.#isMeasured = false;
    this.cell.classList.remove("alone");
  }

  /** How many fields there is room for; undefined if that was known. Reads where things are, so it comes after all changes of a frame. */
  measure() {
    if (this.#isMeasured || !this.cell.clientWidth) return undefined;
    this.#isMeasured = true;
    const room = this.cell.clientWidth;
    const ends = this.#fields.map(({ part }) => part.offsetLeft + part.offsetWidth);
    const last = ends.length - 1;
    if (ends[last] <= room && !this.#isMore) return ends.length;
    const spare = parseFloat(getComputedStyle(this.cell).fontSize) * 1.2;
    return ends.filter((end) => end <= room - spare).length;
  }

  /** Leaves out what there is no room for; a first field that has none by itself is cut, with a mark. @param {number} fitting */
  fit(fitting) {
    this.#fields.forEach(({ part }, nth) => part.classList.toggle("out", nth >= Math.max(1, fitting)));
    this.cell.classList.toggle("alone", fitting === 0);
    this.more.hidden = fitting === 0 || (fitting >= this.#fields.length && !this.#isMore);
  }

  /** Takes old marks away; says whether there are any left. @param {number} now */
  fade(now) {
    let left = false;
    for (const field of this.#fields) {
      if (!field.marked) continue;
      if (now - field.marked < MARKED_FOR) left = true;
      else {
        field.marked = 0;
        field.figure.classList.remove("changed");
      }
    }
    return left;
  }
}

/** @param {string} key @param {boolean} isField @returns {Field} */
function make(key, isField) {
  const part = document.createElement("span");
  const figure = document.createElement("i");
  if (isField && key) {
    const label = document.createElement("b");
    label.textContent = key;
    part.append(label);
  } else {
    part.className = "text";
  }
  part.append(figure);
  return { part, figure, text: "\0", marked: 0 };
}

/** Puts a value in its place; returns what is shown of it. @param {Field} field @param {string} text @param {number} now */
function put(field, text, now) {
  const before = field.text;
  const said = text === before ? undefined : shown(text);
  if (said === undefined) return field.figure.textContent ?? "";
  field.text = text;
  const short = said.length > TEXT_MAX ? `${said.slice(0, TEXT_MAX)}…` : said;
  field.figure.textContent = short;
  const [is, was] = [Number(text), Number(before)];
  field.figure.className = isNumber(text) && isNumber(before) && is !== was ? (is > was ? "up" : "down") : "";
  if (now) {
    field.marked = now;
    field.figure.classList.add("changed");
  }
  return short;
}

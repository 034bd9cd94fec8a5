/** One payload in one line: the fields of an object side by side, numbers with as many decimals as they ever had. */
import { decimals } from "./format.js";

/** Fields shown in a row. */
const FIELDS_MAX = 8;

/** How long a change is marked, in milliseconds. */
const MARKED_FOR = 600;

/** @typedef {{part: HTMLElement, figure: HTMLElement, value: any, decimals: number, marked: number}} Field */

export class Value {
  /** @type {Map<string, Field>} */ #fields = new Map();
  #keys = "";
  /** @type {any} */ #shown;

  /** @param {HTMLElement} cell */
  constructor(cell) {
    this.cell = cell;
  }

  /** Shows another topic's value, in which nothing has changed. @param {any} data */
  replace(data) {
    this.#keys = "\0";
    this.show(data, 0);
  }

  /** Shows the next value, and marks what has changed in it. @param {any} data @param {number} now */
  show(data, now) {
    if (data === this.#shown && this.#keys !== "\0") return;
    this.#shown = data;
    const isObject = data !== null && typeof data === "object" && !Array.isArray(data);
    const entries = isObject ? Object.entries(data).slice(0, FIELDS_MAX) : [["", data]];
    const keys = JSON.stringify(entries.map(([key]) => key));
    if (keys !== this.#keys) {
      this.#keys = keys;
      this.#fields.clear();
      this.cell.replaceChildren(...entries.map(([key]) => this.#make(key)));
      now = 0;
    }
    for (const [key, value] of entries) this.#put(/** @type {Field} */ (this.#fields.get(key)), value, now);
  }

  /** Takes old marks away; says whether there are any left. @param {number} now */
  fade(now) {
    let left = false;
    for (const field of this.#fields.values()) {
      if (!field.marked) continue;
      if (now - field.marked < MARKED_FOR) left = true;
      else {
        field.marked = 0;
        field.figure.classList.remove("changed");
      }
    }
    return left;
  }

  /** @param {string} key */
  #make(key) {
    const part = document.createElement("span");
    const figure = document.createElement("i");
    if (key) {
      const label = document.createElement("b");
      label.textContent = key;
      part.append(label);
    } else {
      part.className = "text";
    }
    part.append(figure);
    this.#fields.set(key, { part, figure, value: undefined, decimals: 0, marked: 0 });
    return part;
  }

  /** @param {Field} field @param {any} value @param {number} now */
  #put(field, value, now) {
    const before = field.value;
    if (value === before) return;
    field.value = value;
    const isNumber = typeof value === "number";
    if (isNumber) field.decimals = Math.max(field.decimals, Math.min(decimals(value), 12));
    const text = isNumber ? value.toFixed(field.decimals) : typeof value === "string" ? value : JSON.stringify(value);
    if (field.figure.textContent === text) return;
    field.figure.textContent = text;
    const moved = isNumber && typeof before === "number" ? (value > before ? "up" : "down") : "";
    field.figure.className = moved;
    if (!now) return;
    field.marked = now;
    field.figure.classList.add("changed");
  }
}

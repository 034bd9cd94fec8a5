/**
 * The table of topics: a window over any number of rows. There are as many row elements as fit into it, and a few more; they
 * are moved and filled anew as one scrolls, at most once a frame.
 */
import { count } from "./format.js";
import { Value } from "./value.js";

/** @typedef {import("./topics.js").Topic} Topic */
/** @typedef {{element: HTMLElement, cells: HTMLElement[], value: Value, name: string, top: number}} Row */

/** Rows kept ready above and below what is seen. */
const SPARE = 4;

/** Characters of a value told to who points at it. */
const TOLD_MAX = 2000;

export class Table {
  /** @type {Topic[]} */ #list = [];
  /** @type {Row[]} */ #rows = [];
  #height = 31;
  #view = 0;
  /** The row that is pointed at. @type {Element | null} */ #pointed = null;
  /** The chosen topic's name. */
  chosen = "";

  /**
   * @param {HTMLElement} box what scrolls
   * @param {HTMLElement} body where the rows are
   * @param {import("./topics.js").Topics} topics
   * @param {{choose: (name: string) => void, soon: () => void}} act
   */
  constructor(box, body, topics, act) {
    this.box = box;
    this.body = body;
    this.topics = topics;
    this.act = act;
    box.addEventListener("scroll", act.soon, { passive: true });
    box.addEventListener("keydown", (event) => this.#key(event));
    body.addEventListener("click", (event) => {
      const element = /** @type {HTMLElement} */ (event.target).closest(".row");
      const row = this.#rows.find((one) => one.element === element);
      if (row) this.choose(row.name);
    });
    body.addEventListener("pointerover", (event) => {
      this.#pointed = /** @type {HTMLElement} */ (event.target).closest(".row");
      const row = this.#rows.find((one) => one.element === this.#pointed);
      if (row) this.#tell(row);
    });
    body.addEventListener("pointerleave", () => (this.#pointed = null));
    new ResizeObserver(() => {
      this.#height = parseFloat(getComputedStyle(box).getPropertyValue("--row"));
      this.#view = box.clientHeight;
      for (const row of this.#rows) {
        row.top = -1;
        row.value.again();
      }
      this.topics.stale = true;
      act.soon();
    }).observe(box);
  }

  get length() {
    return this.#list.length;
  }

  /** Brings what is seen up to date; says whether a mark has still to fade. @param {number} now */
  draw(now) {
    if (this.topics.stale) this.#reorder();
    const [first, last] = this.#window();
    while (this.#rows.length < last - first) this.#rows.push(this.#make());
    // Row n of the list is in element n modulo their number, so that scrolling by one fills one element anew.
    const unused = new Set(this.#rows);
    let fading = false;
    for (let nth = first; nth < last; nth += 1) {
      const row = this.#rows[nth % this.#rows.length];
      unused.delete(row);
      fading = this.#fill(row, this.#list[nth], nth, now) || fading;
    }
    for (const { element } of unused) {
      element.hidden = true;
      element.setAttribute("aria-selected", "false");
    }
    this.#fit();
    return fading;
  }

  /** Finds out what there is room for: first all questions, then all changes, so that the page is laid out once. */
  #fit() {
    const fitting = this.#rows.map((row) => (row.element.hidden ? undefined : row.value.measure()));
    fitting.forEach((count, nth) => count !== undefined && this.#rows[nth].value.fit(count));
  }

  /** @param {string} name */
  choose(name) {
    this.chosen = name;
    this.act.choose(name);
    this.act.soon();
  }

  /** What is cut in a row is told whole to who points at it. @param {Row} row */
  #tell({ cells, name }) {
    const json = this.topics.get(name)?.json ?? "";
    const told = [name, json.length > TOLD_MAX ? `${json.slice(0, TOLD_MAX)}… (choose the topic to see all of it)` : json, "", cells[3].textContent ?? ""];
    cells.forEach((cell, nth) => cell.title !== told[nth] && (cell.title = told[nth]));
  }

  #reorder() {
    this.#list = this.topics.list();
    this.body.style.height = `${this.#list.length * this.#height}px`;
    this.box.setAttribute("aria-rowcount", String(this.#list.length + 1));
  }

  /** Which rows there have to be elements for. */
  #window() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.#height) - SPARE);
    const last = Math.min(this.#list.length, first + Math.ceil(this.#view / this.#height) + 2 * SPARE);
    return [first, last];
  }

  /** @returns {Row} */
  #make() {
    const element = document.createElement("div");
    element.className = "row";
    element.setAttribute("role", "row");
    element.id = `row-${this.#rows.length}`;
    const cells = ["name", "value", "number", "number"].map((kind) => {
      const cell = document.createElement("span");
      cell.setAttribute("role", "gridcell");
      cell.className = kind;
      element.append(cell);
      return cell;
    });
    this.body.append(element);
    return { element, cells, value: new Value(cells[1]), name: "", top: -1 };
  }

  /** @param {Row} row @param {Topic} topic @param {number} nth @param {number} now */
  #fill(row, topic, nth, now) {
    const { element, cells } = row;
    const top = nth * this.#height;
    if (row.top !== top || element.hidden) {
      row.top = top;
      element.hidden = false;
      element.style.transform = `translateY(${top}px)`;
      element.setAttribute("aria-rowindex", String(nth + 2));
    }
    if (row.name !== topic.name) {
      row.name = topic.name;
      put(cells[0], topic.name);
      row.value.replace(topic.json);
    } else {
      row.value.show(topic.json, now);
    }
    put(cells[2], topic.rate ? count(topic.rate) : "");
    put(cells[3], String(topic.seq));
    if (element === this.#pointed) this.#tell(row);
    const isChosen = topic.name === this.chosen;
    if ((element.getAttribute("aria-selected") === "true") !== isChosen) element.setAttribute("aria-selected", String(isChosen));
    if (isChosen) this.box.setAttribute("aria-activedescendant", element.id);
    return row.value.fade(now);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.target !== this.box || !this.#list.length) return;
    const page = Math.max(1, Math.floor(this.#view / this.#height) - 2);
    const steps = /** @type {Record<string, number>} */ ({
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: -Infinity,
      End: Infinity,
    });
    const step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const at = this.#list.findIndex((topic) => topic.name === this.chosen);
    const next = Math.max(0, Math.min(this.#list.length - 1, at < 0 ? 0 : at + step));
    this.#reveal(next);
    this.choose(this.#list[next].name);
  }

  /** Scrolls as little as it takes to see a row, which the head may cover. @param {number} nth */
  #reveal(nth) {
    const top = nth * this.#height;
    const head = this.body.offsetTop;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else this.box.scrollTop = Math.max(this.box.scrollTop, top + this.#height + head - this.#view);
  }
}

/** @param {HTMLElement} cell @param {string} text */
function put(cell, text) {
  if (cell.textContent !== text) cell.textContent = text;
}

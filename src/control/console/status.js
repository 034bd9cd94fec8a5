/** The state of the connection, and what happened to it: in words, for people. */

/** Events kept. */
const EVENTS_MAX = 50;

/** @typedef {import("./stentor.js").State} State @typedef {import("./stentor.js").Detail} Detail */

export class Status {
  #backAt = 0;
  #was = "";

  /** @param {(id: string) => any} at @param {() => void} again what the button does */
  constructor(at, again) {
    this.at = at;
    at("again").addEventListener("click", again);
  }

  /** @param {State} state @param {Detail} detail */
  show(state, { code, why, retryMs, hello }) {
    const reason = why || (code === 1006 ? "the server can't be reached" : `close code ${code}`);
    const isOpen = state === "open";
    this.#backAt = state === "waiting" ? performance.now() + (retryMs ?? 0) : 0;
    // Trying again is not worth a word each time: who listens would hear nothing else.
    const word = { connecting: this.#was ? "Connection lost" : "Connecting", open: "Connected", waiting: "Connection lost", refused: "Refused", closed: "Closed" }[state];
    if (this.at("state").textContent !== word) this.at("state").textContent = word;
    document.body.classList.toggle("open", isOpen);
    this.at("again").hidden = isOpen || state === "connecting";
    if (isOpen) {
      this.event(this.#was === "" ? `Connected to ${hello.server ?? location.host}` : "Connected again");
    } else if (state === "refused") {
      this.event(`Refused: ${reason}`);
    } else if (state === "waiting" && (this.#was === "open" || this.#was === "")) {
      this.event(`Connection lost: ${reason}`);
    }
    if (state !== "connecting") this.#was = state;
    this.tick(undefined, hello);
  }

  /** Once a second: the time to go, or how far the server is. @param {number} [awayMs] @param {any} [hello] */
  tick(awayMs, hello) {
    if (this.#backAt) {
      const seconds = Math.max(0, Math.ceil((this.#backAt - performance.now()) / 1000));
      this.at("detail").textContent = `trying again ${seconds ? `in ${seconds} s` : "now"}`;
    } else if (hello) {
      const away = awayMs === undefined ? "" : `, ${awayMs.toFixed(1)} ms away`;
      // A poll is greeted by nobody.
      const what = hello.conn ? `${hello.server} at ${location.host}, connection ${hello.conn}` : `${location.host}, by polling`;
      this.at("detail").textContent = `${what}${away}`;
    } else {
      this.at("detail").textContent = "";
    }
  }

  /** Notes what happened. @param {string} text */
  event(text) {
    const item = document.createElement("li");
    const time = document.createElement("time");
    time.textContent = new Date().toLocaleTimeString([], { hour12: false });
    item.append(time, text);
    const list = this.at("events");
    list.prepend(item);
    if (list.children.length > EVENTS_MAX) list.lastElementChild.remove();
  }
}

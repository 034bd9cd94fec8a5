// What Node has beside the client itself: the WebSocket of the package `ws`, if that is installed, which says what a handshake was refused with. Else Node's own, which
// it has from version 22 on; else events and polls.
import { Stentor as Client } from "./dist/stentor.js";

export * from "./dist/stentor.js";

/** The package's own, if there is one. @type {any} */
const ws = await import("ws").then((found) => found.WebSocket, () => undefined);

/** Letters of a refusal that are read, and bytes of one message. */
const REFUSAL_MAX = 200;
const MESSAGE_MAX = 16 * 2 ** 20;

/** The sockets of `ws`, which show what a handshake was refused with. They offer no compression: to inflate a small message costs `ws` many times what all else about it does. */
const Socket =
  ws &&
  class Socket extends ws {
    /** What answered instead of a WebSocket. @type {{status: number, text: string, retryMs?: number} | undefined} */
    refusal;
    static isCompressed = false;

    /** @param {string} url @param {string} protocol */
    constructor(url, protocol) {
      super(url, protocol, { maxPayload: MESSAGE_MAX, perMessageDeflate: new.target.isCompressed });
      this.on("unexpected-response", (/** @type {any} */ request, /** @type {any} */ response) => {
        const retryMs = Number(response.headers["retry-after"]) * 1000 || undefined;
        let text = "";
        const end = () => {
          this.refusal ??= { status: response.statusCode, text: text.trim().slice(0, REFUSAL_MAX) || `status ${response.statusCode}`, retryMs };
          request.destroy(new Error("no WebSocket"));
          // What waits for this socket hears of it by the usual way.
          this.emit("error", new Error(this.refusal.text));
        };
        response.setEncoding("utf8");
        response.on("data", (/** @type {string} */ part) => (text += part).length > REFUSAL_MAX && end());
        for (const event of ["end", "error", "close"]) response.once(event, () => this.refusal || end());
      });
    }
  };

/** The same, for those who would rather have fewer bytes. */
const CompressedSocket =
  Socket &&
  class CompressedSocket extends Socket {
    static isCompressed = true;
  };

/** A connection to one server. */
export class Stentor extends Client {
  /**
   * @param {string | URL} url such as `ws://127.0.0.1:9001/ws`
   * @param {import("./dist/stentor.js").Options} [options]
   */
  constructor(url, options = {}) {
    super(url, options.WebSocket || !Socket ? options : { ...options, WebSocket: options.compression ? CompressedSocket : Socket });
  }
}

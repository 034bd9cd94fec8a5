/**
 * A client of the Stentor protocol, for browsers and Node: one file, no dependency.
 *
 *     import { Stentor } from "/stentor.js";
 *     const client = new Stentor("ws://127.0.0.1:9001/ws");
 *     client.subscribe("q.demo.*", { mode: "latest", rate: 4, onUpdate: ({ topic, data }) => console.log(topic, data) });
 *     await client.opened();
 *     await client.publish("news", { headline: "hello" });
 *
 * It stays connected: after a loss it comes back after a random and growing delay, subscribes again, and goes on where it was
 * left, or says what is missing. Where no WebSocket can be had it takes a stream of events, and where what is streamed doesn't
 * come through it polls; it goes back up by itself. It keeps one small record for each topic seen, up to `topicsMax`. What it does in
 * which case is in docs/javascript.md.
 *
 *     Stentor   subscriptions, and where each of their topics stands; which way to the server
 *     Feed      what comes of a subscription, for `for await`
 *     Socket    a WebSocket: commands and messages
 *     Requests  plain HTTP: streams of events, or polls, of some names each
 */

/** @typedef {"all" | "latest"} Mode */
/** @typedef {"websocket" | "events" | "polling"} Transport a way to the server, from the best to the one that passes everywhere */
/**
 * A publication: `json` is the text that was published, digit by digit; `data` is what JSON.parse makes of it, whose numbers are doubles.
 * A last value has an epoch, and so has a topic's first publication. A `key` one says everything about its topic, the source of a `stale` one is gone.
 * @typedef {{type?: "update" | "snapshot", topic: string, seq: number, ts: number, epoch?: string, data?: any, json?: string, base64?: string, key?: boolean, stale?: boolean}} Update
 */
/** @typedef {{topic: string, seq: number, first?: number, epoch?: string, key?: boolean}} Mark where a topic stands; `first` of several that are told of at once */
/** @typedef {Map<string, [string, number]>} Points for some topics, an epoch and a seq. A map: a topic may be called `__proto__` */
/** @typedef {{topic: string, from: number, to: number, why: string, epoch?: string}} Skip publications `from` to `to` are not coming */
/** @typedef {{topic: string, epoch?: string, seq: number, why: string}} Reset numbering, or history, begins anew behind `seq` */
/** @typedef {{topic: string, mode: Mode, rate?: number, epoch?: string, seq?: number}} Taken a name as the server took it */
/** @typedef {{code: string, message?: string, topics?: string[], since?: number, retry_ms?: [number, number]}} Status `draining`, `stale`, `fresh`, `token_expiring`, … */
/**
 * @typedef {object} SubscriptionOptions
 * @property {Mode} [mode] "all" (the default) is every publication; "latest" the newest value of each topic
 * @property {number} [rate] with "latest": at most so many updates a second of each topic
 * @property {boolean} [snapshot] whether to begin with the last values; true by default
 * @property {string | Record<string, [string, number]> | Points} [from] the cursor to go on from; or with "all", for some topics, the epoch
 *   and seq behind which to begin
 * @property {(update: Update) => void} [onUpdate] a publication
 * @property {(update: Update) => void} [onSnapshot] a topic's last value; `onUpdate` gets it where this is left out
 * @property {(skip: Skip) => void} [onSkip] publications were left out
 * @property {(reset: Reset) => void} [onReset] a topic can't be continued where it was left
 * @property {(topics: Taken[]) => void} [onAck] the server took the subscription, at first, after a change, and after coming back
 * @property {(error: StentorError) => void} [onError] it refused; the client's `onError` hears of it where this is left out
 */
/**
 * What a loop is given; a `gap` is numbers that should have come, and are being fetched. A `status` may be an error that answers nothing, such as `lagged`.
 * @typedef {(Update & {type: "update" | "snapshot"}) | (Skip & {type: "skip"}) | (Reset & {type: "reset"}) | (Status & {type: "status"}) | {type: "gap", topic: string, from: number, to: number}} FeedEvent
 */
/**
 * @typedef {object} FeedOptions
 * @property {Mode} [mode] as for a subscription, and so are `rate`, `snapshot` and `from`
 * @property {number} [rate]
 * @property {boolean} [snapshot]
 * @property {SubscriptionOptions["from"]} [from]
 * @property {number} [bufferBytes] what may wait for the loop; 32 MiB by default
 * @property {"latest" | "error"} [whenSlow] what happens then: of each topic only the newest value stays, behind a skip (the default); or the loop
 *   ends with the error `too_slow`
 */
/**
 * @typedef {object} Options
 * @property {string | (() => string | Promise<string>)} [token] what the server wants to see before one may publish; or a function that is asked for it
 *   at each connecting, when the server has found the old one wrong, and when it says that it expires
 * @property {(state: State, detail: Detail) => void} [onState] the connection's state changed
 * @property {(error: StentorError) => void} [onError] an error that belongs to no subscription and no call
 * @property {(status: Status) => void} [onStatus] something to know of the server, or of where topics come from
 * @property {Transport[]} [transports] which ways may be taken, best first; all of them by default
 * @property {number} [upgradeMs] how long it stays below the best of them before it looks for a better one; 60,000
 * @property {number} [topicsMax] topics whose place is remembered; further ones are not checked. 20,000 by default
 * @property {number} [publishesMax] publications that may wait for their answer; 1,000 by default
 * @property {[number, number]} [backoffMs] first and last bound of the random delay before coming back; [500, 15000]
 * @property {number} [patienceMs] how long the server's greeting may take; 10,000
 * @property {boolean} [compression] under Node, with the package `ws`: whether messages may come compressed; false by default, since that costs much CPU. Browsers offer it always
 * @property {any} [WebSocket] a constructor like the browser's, where there is none, or for tests. What browsers hide, its sockets may have as
 *   `refusal`: the `{status, text, retryMs}` of an answer that is no WebSocket
 * @property {typeof globalThis.fetch} [fetch] the same for `fetch`
 */
/** @typedef {"connecting" | "open" | "waiting" | "refused" | "closed"} State */
/** @typedef {{transport?: Transport, code?: number, why?: string, retryMs?: number, hello?: any}} Detail */
/**
 * Where a topic stands for one subscription.
 * `isUntold`: that number is the server's word, and no publication has come with it.
 * @typedef {{one: Subscription, seq?: number, epoch?: string, from: "here" | "before", toldAnew?: boolean, isUntold?: boolean}} Place
 */
/**
 * Some names of a subscription, as many as fit into an address, and where they stand together: everything before the cursor has come, or
 * comes again. `isVoid`: it is a word that stands for no place, until what begins anew has come.
 * @typedef {{one: Subscription, names: string[], cursor?: string, isTaken: boolean, isWhole: boolean, isVoid?: boolean}} Part
 */
/** Whom something is for that has come by one request, and where they were to go on. @typedef {{parts: Part[], isResumed: boolean, cursor?: string}} Scope */
/**
 * One request after the other, for parts that stand at the same place: `isBare` without last values, `isResumed` behind a cursor; `isTaken`
 * once the server has answered; `stop` ends the one that is under way.
 * @typedef {Scope & {mode: Mode, rate?: number, isBare: boolean, cursor?: string, isTaken: boolean, isOver: boolean, stop: () => void}} Channel
 */
/** @typedef {{ok: (answer: any) => void, fail: (error: StentorError) => void, kind: "pub" | "sub" | ""}} Asked */
/**
 * How a connection tells what becomes of it. Of one that is no longer in use nothing is heard.
 * @typedef {object} Ear
 * @property {(hello: any) => void} greeted it works
 * @property {(text: string, scope?: Scope) => void} said a message, for these or for all
 * @property {(scope: Scope, topics: Taken[], isVoid?: boolean) => void} took the server delivers these now; from anew, if the cursor was good no more
 * @property {(scope: Scope) => void} began what comes begins all of it anew: the cursor was good no more
 * @property {(scope: Scope, cursor: string) => void} came everything before this place has come
 * @property {(one: Subscription, error: StentorError) => void} refused
 * @property {(code: number, why: string, how?: {retryMs?: number, isUnfit?: boolean}) => void} lost it has ended; unfit: this way doesn't lead there
 */

/** What the server, or this client, refused. `code` is for programs and stays the same. */
export class StentorError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {Partial<Skip> & {topics?: string[]}} [what]
   */
  constructor(code, message, what) {
    super(message);
    this.name = "StentorError";
    this.code = code;
    Object.assign(this, what);
  }
}

/** All ways there are, best first. @type {Transport[]} */
const TRANSPORTS = ["websocket", "events", "polling"];

/** A connection of this long was a good one: the next loss begins with short delays again. */
const GOOD_AFTER_MS = 10_000;

/** So many wrong tokens in a row, from a function that was asked for each, end it. */
const WRONG_TOKENS = 3;

/** So often in a row a way that has worked before may fail to, before a lower one is tried: servers are started again, too. */
const VAIN_MAX = 3;

/** Events that have fallen silent so often are not tried again: something lets their beginning through, and no more. */
const SILENCES_MAX = 2;

/** A server that sends much has no heartbeat to tell its cursor by: it is asked so often. What came since is sent again after a loss. */
const CURSOR_MS = 5_000;

/** Bytes left for the rest of a command that carries many names. */
const COMMAND_BYTES = 256;

/** Names in one address, in bytes: servers and proxies take 8 KiB of head, and a name may take three times its letters. */
const ADDRESS_BYTES = 4_096;

/** Requests at once: browsers have six connections to a host, and publishing takes one. */
const REQUESTS_MAX = 4;

/** Refusals that time may mend. A subscription that is refused so when it comes back asks again. */
const PASSING = ["server_full", "address_full"];

/** How long a poll waits, in seconds, and one that others wait behind. */
const WAIT_S = 25;
const WAIT_CROWDED_S = 1;

/** The state of a WebSocket that takes what is sent. */
const OPEN = 1;

/** What a server that says nothing else allows: names of one connection, bytes of one message. */
const LIMITS = { topics: 1024, message: 65_536 };

/** What a cursor looks like. An event's `id` may be something else, with a server that has none. */
const CURSOR = /^[\w-]{8,32}$/;

/** Some names for one subscription, and what to do with what comes. */
export class Subscription {
  /** What the server last agreed to; undefined until it did. @type {{mode: Mode, rate?: number} | undefined} */
  agreed;
  /** Whether all topics that there were have been heard of: those that are not known are new. */
  knowsAll = false;
  /** Every publication was to come, and the connection was lost: what came into being meanwhile is missing. */
  misses = false;
  /** The same, of what is coming now. */
  isBack = false;
  /** What is coming now goes on behind a cursor: last values among it may have come before. */
  isAgain = false;
  /** The server has taken all of it once. */
  wasTaken = false;
  /** Until it is asked for again. @type {any} */
  later;
  #act;

  /**
   * Made by {@link Stentor.subscribe}.
   * @param {string[]} names
   * @param {SubscriptionOptions} options
   * @param {{change: (one: Subscription) => void, end: (one: Subscription) => void}} act
   */
  constructor(names, options, act) {
    this.names = names;
    this.options = options;
    /** @type {Mode} */
    this.mode = options.mode ?? "all";
    this.rate = options.rate;
    const cursor = typeof options.from === "string" ? options.from : undefined;
    /** @type {Part[]} */
    this.parts = split(names, new Map(), ADDRESS_BYTES).map(({ topics }) => ({ one: this, names: topics, cursor, isTaken: false, isWhole: false }));
    this.#act = act;
  }

  /** The place up to which everything has come, if that can be said in a word: what `from` takes, in another program's life. */
  get cursor() {
    const [first, ...others] = this.parts.map(({ cursor }) => cursor);
    return others.every((cursor) => cursor === first) ? first : undefined;
  }

  /**
   * Asks for another mode or rate. If the server refuses, `onError` is told and things stay as they were.
   * @param {{mode?: Mode, rate?: number}} how
   */
  change({ mode = "all", rate } = {}) {
    this.mode = mode;
    this.rate = rate;
    this.#act.change(this);
  }

  /** Ends it. Nothing that is still on its way is delivered. */
  unsubscribe() {
    this.#act.end(this);
  }

  /** @param {string} topic */
  covers(topic) {
    return this.names.some((name) => matches(name, topic));
  }
}

/** A connection to one server. */
export class Stentor {
  /** @type {State} */
  state = "connecting";
  /** The server's greeting; empty where it has none, by polling. @type {any} */
  hello = null;
  /** Milliseconds between a ping and its answer. @type {number | undefined} */
  roundTripMs;

  /** @type {Options} */ #options;
  #url;
  /** @type {Transport[]} */ #transports;
  /** What is in use, or being made. @type {Socket | Requests | null} */ #link = null;
  /** What may take its place. @type {Socket | Requests | null} */ #trial = null;
  /** @type {Set<Subscription>} */ #subscriptions = new Set();
  /** @type {Set<Feed>} */ #feeds = new Set();
  /** Where each topic stands, for each subscription that it belongs to. @type {Map<string, Place[]>} */ #places = new Map();
  /** Commands without an answer yet. @type {Map<number, Asked>} */ #asked = new Map();
  #asking = 0;
  /** Whose snapshots are coming. @type {Subscription | undefined} */ #acked;
  /** The same, until they have come: then comes something else. @type {Subscription | undefined} */ #coming;
  /** There were more topics than are remembered: one that isn't known may be old. */
  #hasForgotten = false;
  #publishing = 0;
  #failures = 0;
  /** Which attempt to connect this is: of earlier ones nothing is waited for any more. */
  #attempt = 0;
  /** The token that is shown. @type {string | undefined} */ #word;
  #wrongTokens = 0;
  /** How often in a row each way has led nowhere; no entry for one that never led anywhere. @type {Map<Transport, number>} */ #vain = new Map();
  #greetedAt = 0;
  #heardAt = 0;
  /** How often a stream of events has begun well and fallen silent. */
  #silences = 0;
  /** Something has come that the last cursor doesn't say. */
  #hasNews = false;
  /** Until the next token is asked for. @type {any} */ #renewal;
  /** Until the next attempt, or the greeting. @type {any} */ #timer;
  /** Until one looks for a better way, or the greeting there. @type {any} */ #trialTimer;
  /** @type {any} */ #watch;
  /** @type {any} */ #cursors;
  /** @type {[number, number] | undefined} */ #window;
  /** @type {Set<{resolve: () => void, reject: (error: StentorError) => void}>} */ #hopes = new Set();

  /**
   * Connects, and goes on doing so until {@link close}.
   * @param {string | URL} url such as `ws://127.0.0.1:9001/ws`
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    this.#url = String(url).replace(/^http/, "ws");
    this.#options = { topicsMax: 20_000, publishesMax: 1000, backoffMs: [500, 15_000], patienceMs: 10_000, upgradeMs: 60_000, ...options };
    const has = { websocket: options.WebSocket ?? globalThis.WebSocket, events: options.fetch ?? globalThis.fetch };
    const wanted = options.transports ?? TRANSPORTS;
    this.#transports = wanted.filter((way) => (way === "websocket" ? has.websocket : has.events));
    if (!this.#transports.length) throw new StentorError("no_websocket", "there is no WebSocket here: pass one as options.WebSocket");
    this.#connect(this.#transports[0]);
  }

  /** The way that is in use. @returns {Transport | undefined} */
  get transport() {
    return this.state === "open" ? this.#link?.way : undefined;
  }

  /**
   * Subscribes, now or as soon as there is a connection, and again after every loss.
   * @param {string | string[]} names topics and patterns
   * @param {SubscriptionOptions} [options]
   */
  subscribe(names, options = {}) {
    const list = [...new Set([names].flat())];
    const taken = list.find((name) => [...this.#subscriptions].some((one) => one.names.includes(name)));
    if (taken !== undefined) throw new StentorError("subscribed", `${taken} is subscribed to: use its change()`);
    if (!list.length) throw new StentorError("bad_topic", "expected at least one name, found none");
    const one = new Subscription(list, options, {
      change: (changed) => void (this.#subscriptions.has(changed) && this.state === "open" && this.#askFor(changed)),
      end: (ended) => this.#end(ended),
    });
    this.#subscriptions.add(one);
    this.#reroute();
    if (this.state === "open") this.#askFor(one);
    return one;
  }

  /**
   * Subscribes, and gives what comes to a loop: `for await (const event of client.events("q.demo.*"))`. Leaving the loop ends the subscription; what
   * the server refuses, it throws.
   * @param {string | string[]} names topics and patterns
   * @param {FeedOptions} [options]
   * @returns {Feed}
   */
  events(names, { bufferBytes = 32 * 2 ** 20, whenSlow = "latest", ...options } = {}) {
    const feed = new Feed(bufferBytes, whenSlow, () => {
      this.#feeds.delete(feed);
      one.unsubscribe();
    });
    const one = this.subscribe(names, {
      ...options,
      onUpdate: (update) => feed.put({ ...update, type: update.type ?? "update" }),
      onSkip: (skip) => feed.put({ ...skip, type: "skip" }),
      onReset: (reset) => feed.put({ ...reset, type: "reset" }),
      onError: (error) => {
        const { code, topic = "", from = 0, to = 0 } = /** @type {StentorError & Partial<Skip>} */ (error);
        if (code === "gap") feed.put({ type: "gap", topic, from, to });
        else if (!this.#subscriptions.has(one)) feed.end(error);
        else {
          // It stays as it was, or is asked for again; or one of its names has ended.
          this.#tell(this.#options.onError, error);
          if (topic) feed.put({ type: "status", code, message: error.message, topics: [topic] });
        }
      },
    });
    feed.subscription = one;
    this.#feeds.add(feed);
    return feed;
  }

  /**
   * Publishes a value as JSON.
   * @param {string} topic
   * @param {any} data
   * @returns {Promise<{topic: string, seq: number, ts: number}>} settles with the server's answer. After "disconnected" it
   *   is not known whether the server took it
   */
  publish(topic, data) {
    return this.publishJson(topic, JSON.stringify(data));
  }

  /**
   * Publishes JSON text as it is: `1.50` stays `1.50`.
   * @param {string} topic
   * @param {string} json
   * @returns {Promise<{topic: string, seq: number, ts: number}>}
   */
  publishJson(topic, json) {
    const most = this.#options.publishesMax ?? 0;
    if (this.#publishing >= most) {
      return Promise.reject(new StentorError("busy", `${most} publications wait for their answer: wait for some`));
    }
    if (this.state === "open" && this.#link instanceof Requests) {
      this.#publishing += 1;
      return this.#link.publish(topic, json).finally(() => (this.#publishing -= 1));
    }
    return this.#promise({ op: "pub", topic }, `,"data":${json}`);
  }

  /**
   * Shows a token, now and after every loss; none, to go on without. Where a wrong one ended the connection, this connects
   * again.
   * @param {Options["token"]} token
   * @returns {Promise<any>}
   */
  authenticate(token) {
    this.#options.token = token;
    if (this.state === "open") return this.#show();
    this.reconnect();
    return this.opened();
  }

  /**
   * Where a topic stands: what `from` takes, in another program's life. Undefined until its epoch is known.
   * @param {string} topic
   * @returns {[string, number] | undefined}
   */
  place(topic) {
    /** @type {[string, number] | undefined} */
    let most;
    for (const { epoch, seq } of this.#places.get(topic) ?? []) {
      if (epoch !== undefined && seq !== undefined && !(most && most[1] > seq)) most = [epoch, seq];
    }
    return most;
  }

  /** What the server says we are subscribed to; without a WebSocket, what it has taken. @returns {Promise<Taken[]>} */
  async list() {
    if (this.state === "open" && this.#link instanceof Requests) {
      const taken = [...this.#subscriptions].filter(({ agreed }) => agreed);
      return taken.flatMap(({ names, agreed }) => names.map((topic) => ({ topic, .../** @type {any} */ (agreed) })));
    }
    return (await this.#promise({ op: "list" })).topics;
  }

  /** Milliseconds to the server and back. @returns {Promise<number>} */
  async ping() {
    const began = performance.now();
    if (this.state === "open" && this.#link instanceof Requests) await this.#link.ping();
    else await this.#promise({ op: "ping" });
    return (this.roundTripMs = performance.now() - began);
  }

  /** Fulfilled as soon as there is a connection; rejected once there will be none. @returns {Promise<void>} */
  opened() {
    if (this.state === "open") return Promise.resolve();
    if (this.state === "closed") return Promise.reject(new StentorError("closed", "this client was closed"));
    return new Promise((resolve, reject) => this.#hopes.add({ resolve, reject }));
  }

  /** Doesn't wait for the delay to be over. */
  reconnect() {
    if (this.state !== "waiting" && this.state !== "refused") return;
    this.#connect(this.#transports[0]);
  }

  /** Says goodbye, and stays away. */
  close() {
    if (this.state === "closed") return;
    const link = this.#link;
    this.#leave();
    link?.close(1000);
    for (const feed of this.#feeds) feed.end();
    this.#subscriptions.clear();
    this.#places.clear();
    this.#say("closed", { code: 1000 });
    this.#disappoint(new StentorError("closed", "this client was closed"));
  }

  // ---- The connection --------------------------------------------------------------------------------------------------

  /** @param {Transport} way */
  #connect(way) {
    clearTimeout(this.#timer);
    const { token, patienceMs } = this.#options;
    if (typeof token !== "function") return this.#begin(way, token);
    const attempt = ++this.#attempt;
    this.hello = null;
    this.#say("connecting", { transport: way });
    const isOurs = () => attempt === this.#attempt;
    const fail = (/** @type {any} */ error) => isOurs() && this.#lost(0, `there is no token: ${error?.message ?? error}`);
    if (isOurs()) this.#timer = setTimeout(() => fail("none came in time"), patienceMs);
    this.#askToken(token).then((word) => isOurs() && this.#begin(way, word), fail);
  }

  /** @param {Transport} way @param {string | undefined} word the token */
  #begin(way, word) {
    clearTimeout(this.#timer);
    this.#word = word;
    const link = this.#open(way);
    this.#link = link;
    this.hello = null;
    if (typeof this.#options.token !== "function") this.#say("connecting", { transport: way });
    if (this.#link !== link) return;
    this.#timer = setTimeout(() => this.#link === link && this.#giveUp("the server did not greet"), this.#options.patienceMs);
    // Once whoever made this client has subscribed.
    if (link instanceof Requests) queueMicrotask(() => this.#link === link && link.open([...this.#subscriptions]));
  }

  /** @param {() => string | Promise<string>} token */
  async #askToken(token) {
    return token();
  }

  /** Shows the token on the connection that there is. @returns {Promise<any>} */
  #show() {
    const { token } = this.#options;
    const link = this.#link;
    const tell = (/** @type {string | undefined} */ word) => {
      this.#word = word;
      if (link !== this.#link) return Promise.resolve();
      if (link instanceof Requests) link.renew();
      return word === undefined || !(link instanceof Socket) ? Promise.resolve() : this.#promise({ op: "auth", token: word });
    };
    return typeof token === "function" ? this.#askToken(token).then(tell) : tell(token);
  }

  /** Begins a connection. @param {Transport} way @returns {Socket | Requests} */
  #open(way) {
    /** @type {Ear} */
    const ear = {
      greeted: (hello) => this.#isOurs(link) && this.#greet(link, hello),
      said: (text, scope) => this.#isOurs(link) && this.#read(link, text, scope),
      took: (scope, topics, isVoid) => this.#isOurs(link) && this.#took(scope, topics, isVoid),
      began: (scope) => this.#isOurs(link) && this.#beginAll(scope.parts),
      came: ({ parts }, cursor) => {
        if (this.#isOurs(link)) for (const part of parts) Object.assign(part, { cursor, isVoid: part.isVoid && part.cursor === cursor });
      },
      refused: (one, error) => this.#isOurs(link) && (link === this.#trial ? this.#missedOut(link) : this.#refused(one, error)),
      lost: (code, why, how) => this.#isOurs(link) && (link === this.#trial ? this.#missedOut(link) : this.#lost(code, why, how)),
    };
    // A page's own `fetch` wants to be called of the page.
    const { WebSocket = globalThis.WebSocket, fetch = (...what) => globalThis.fetch(...what), patienceMs = 0 } = this.#options;
    /** @type {Socket | Requests} */
    const link =
      way === "websocket"
        ? new Socket(new WebSocket(this.#url, "stentor.v1.json"), ear)
        : new Requests(way, this.#url, { fetch, patienceMs, token: () => this.#word }, ear);
    return link;
  }

  /** From a connection that was given up nothing more is heard: some take minutes until they notice that they are closed. @param {Socket | Requests} link */
  #isOurs(link) {
    return link === this.#link || link === this.#trial;
  }

  /** @param {Socket | Requests} link @param {string} text @param {Scope} [scope] */
  #read(link, text, scope) {
    if (link === this.#link) this.#heardAt = performance.now();
    /** @type {any} */
    let message;
    /** @type {any} */
    let whole;
    try {
      whole = publication(text);
      message = whole ?? JSON.parse(text);
    } catch {
      return link === this.#trial ? this.#missedOut(link) : this.#giveUp("the server sent what is not JSON");
    }
    // One that is tried says nothing of use before its greeting, which puts it into use.
    if (link === this.#trial && message.type !== "hello") return;
    if (this.#coming && message.type !== "snapshot" && message.why !== "too_large") {
      this.#coming.knowsAll = true;
      this.#coming = undefined;
    }
    switch (message.type) {
      case "update":
        this.#hasNews = true;
        return this.#update(whole ?? published(text, message), scope);
      case "snapshot":
        return this.#snapshot(whole ?? published(text, message), scope);
      case "ack":
        if (!scope) return this.#settle(message.id, (asked) => asked.ok(message));
        return this.#took(scope, message.topics ?? [], isVoid(scope.parts, scope.cursor, message.cursor));
      case "pong":
      case "subscriptions":
        return this.#settle(message.id, (asked) => asked.ok(message));
      case "heartbeat":
        if (!scope) this.#cameAll(message.cursor, (part) => part.isWhole);
        return;
      case "error": {
        const { topic, topics } = message;
        const error = new StentorError(message.code, message.message, { ...(topic !== undefined && { topic }), ...(topics !== undefined && { topics }) });
        if (message.retry_ms !== undefined) this.#window = windowOf(message.retry_ms);
        if (message.topic !== undefined) return this.#narrowed(message.topic, error);
        if (!this.#settle(message.id, (asked) => asked.fail(error))) this.#complain(error);
        return;
      }
      case "skip":
        this.#hasNews = true;
        return this.#skip(message, scope);
      case "reset":
        return this.#reset(message, scope);
      case "hello":
        return this.#greet(link, message);
      case "status":
        return this.#status(message, scope);
    }
  }

  /** An error that answers nothing. @param {StentorError} error */
  #complain(error) {
    this.#tell(this.#options.onError, error);
    if (error.code !== "unauthorized") for (const feed of this.#feeds) feed.put({ type: "status", code: error.code, message: error.message });
  }

  /** @param {any} status @param {Scope} [scope] */
  #status(status, scope) {
    const { code, retry_ms } = status;
    if (code === "current") return this.#isCurrent(scope?.parts ?? []);
    if (retry_ms !== undefined) this.#window = windowOf(retry_ms);
    this.#tell(this.#options.onStatus, status);
    for (const feed of this.#feeds) feed.put({ ...status, type: "status" });
    if (code !== "token_expiring" || typeof this.#options.token !== "function" || !this.#link) return;
    // By no clock of ours; and not all clients at one moment, whose tokens were given out at one.
    clearTimeout(this.#renewal);
    const fail = (/** @type {any} */ error) => error.code !== "disconnected" && this.#tell(this.#options.onError, new StentorError("no_token", `${error?.message ?? error}`));
    this.#renewal = setTimeout(() => this.#show().catch(fail), ((status.in ?? 0) * 1000 * Math.random()) / 4);
  }

  /** @param {Socket | Requests} link @param {any} hello */
  #greet(link, hello) {
    if (link === this.#trial) this.#goOver(link);
    else if (this.state === "open") return; // one of several requests
    clearTimeout(this.#timer);
    this.hello = hello;
    this.#vain.set(link.way, 0);
    this.#greetedAt = this.#heardAt = performance.now();
    const silenceMs = hello.heartbeat * 2000;
    if (silenceMs > 0) this.#watch = setInterval(() => this.#listen(silenceMs), silenceMs / 8);
    if (this.#word !== undefined && link instanceof Socket) {
      const fail = (/** @type {StentorError} */ error) => error.code !== "disconnected" && this.#tell(this.#options.onError, error);
      this.#ask({ op: "auth", token: this.#word }, "", { ok: () => {}, fail, kind: "" });
    }
    const before = [...this.#subscriptions];
    this.#say("open", { hello, transport: link.way });
    if (this.#link !== link) return;
    for (const one of before) if (this.#subscriptions.has(one)) this.#askFor(one);
    // Its answer comes behind all last values.
    if (link instanceof Socket && this.#places.size) this.#ask({ op: "ping" }, "", { ok: ({ cursor }) => this.#cameBack(before, cursor), fail: () => {}, kind: "" });
    for (const hope of this.#hopes) hope.resolve();
    this.#hopes.clear();
    // A way that is known to lead there did not for other reasons, which may have passed.
    const isKnown = this.#betterThan(link.way).some((way) => this.#vain.has(way));
    this.#lookUp(isKnown ? this.#options.backoffMs?.[1] : this.#options.upgradeMs);
  }

  /** The watchdog: a server has said something, if only a heartbeat, or it is gone. @param {number} silenceMs */
  #listen(silenceMs) {
    if (performance.now() - this.#heardAt <= silenceMs) return;
    // What streams, and isn't heard, is held back by something in between; or the network was away.
    const isUnfit = this.#link?.way === "events";
    if (isUnfit) this.#silences += 1;
    this.#giveUp(`nothing was heard for ${silenceMs / 1000} s`, { isUnfit });
  }

  /** Ends a connection that is of no use, without waiting for anybody's consent. @param {string} why @param {{isUnfit?: boolean}} [how] */
  #giveUp(why, how) {
    const link = this.#link;
    this.#lost(1006, why, how);
    link?.close();
  }

  /** @param {number} code @param {string} why @param {{retryMs?: number, isUnfit?: boolean}} [how] */
  #lost(code, why, { retryMs, isUnfit = false } = {}) {
    const way = this.#link?.way ?? this.#transports[0];
    const wasOpen = this.#greetedAt !== 0;
    const lasted = wasOpen ? performance.now() - this.#greetedAt : 0;
    this.#leave();
    this.#leaveTopics();
    if (lasted > GOOD_AFTER_MS) this.#failures = this.#wrongTokens = 0;
    // Whom another connection of the same holder has replaced would replace that in turn.
    if (code === 4002 || (code === 4001 && (typeof this.#options.token !== "function" || ++this.#wrongTokens >= WRONG_TOKENS))) {
      this.#wrongTokens = 0;
      this.#say("refused", { code, why });
      return this.#disappoint(new StentorError(code === 4002 ? "replaced" : "unauthorized", why || "the token is wrong"));
    }
    // A code of the server's own says that this way leads there; so does its greeting.
    const isVain = isUnfit || (!wasOpen && code === 1006);
    const vain = this.#vain.get(way);
    if (isVain && vain !== undefined) this.#vain.set(way, vain + 1);
    const lower = this.#transports[this.#transports.indexOf(way) + 1];
    if (isVain && lower && (isUnfit || vain === undefined || vain + 1 >= VAIN_MAX)) return this.#connect(lower);
    const delayMs = Math.max(this.#delay(code), retryMs ?? 0);
    this.#failures += 1;
    this.#window = undefined;
    // Where nothing leads there, it is not for the way.
    const next = wasOpen ? way : isVain && !lower ? this.#transports[0] : way;
    this.#timer = setTimeout(() => this.#connect(next), delayMs);
    this.#say("waiting", { code, why, retryMs: delayMs });
  }

  /** How long to stay away: random, so that many clients don't come back at one moment. @param {number} code */
  #delay(code) {
    const [least, most] = this.#options.backoffMs ?? [500, 15_000];
    if (this.#window) return this.#window[0] + Math.random() * (this.#window[1] - this.#window[0]);
    // We were told that we ask too much, or that there is no room: nothing is gained by asking soon.
    if (code === 4003 || code === 1013) return most / 2 + (Math.random() * most) / 2;
    return Math.random() * Math.min(most, least * 2 ** this.#failures);
  }

  /** Forgets the connection, and what was asked of it. */
  #leave() {
    this.#attempt += 1;
    clearTimeout(this.#timer);
    clearTimeout(this.#renewal);
    clearInterval(this.#watch);
    clearInterval(this.#cursors);
    this.#cursors = undefined;
    this.#forgetTrial();
    this.#link = null;
    this.#greetedAt = 0;
    this.#acked = this.#coming = undefined;
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    const error = new StentorError("disconnected", "the connection ended before the answer came");
    for (const one of asked) {
      if (one.kind === "pub") this.#publishing -= 1;
      one.fail(error);
    }
  }

  /** Whatever comes from now on comes behind a hole, unless the server says otherwise. */
  #leaveTopics() {
    for (const places of this.#places.values()) for (const place of places) place.from = "before";
    for (const one of this.#subscriptions) this.#leaveParts(one);
  }

  /** The same of one subscription. @param {Subscription} one */
  #leaveOne(one) {
    for (const [, place] of this.#placesOf(one, one.names)) place.from = "before";
    this.#leaveParts(one);
  }

  /** @param {Subscription} one */
  #leaveParts(one) {
    one.misses ||= one.agreed?.mode === "all" && one.knowsAll;
    one.agreed = undefined;
    for (const part of one.parts) part.isTaken = part.isWhole = false;
  }

  /**
   * After a loss all last values have come: of whom nothing was heard, is gone.
   * @param {Subscription[]} subscriptions
   * @param {unknown} cursor
   */
  #cameBack(subscriptions, cursor) {
    this.#cameAll(cursor, (part) => part.isTaken);
    const whole = new Set(subscriptions.filter(({ agreed, options }) => agreed && options.snapshot !== false));
    this.#forgetGone((one) => whole.has(one));
  }

  /** All of them are about to be told anew. @param {Part[]} parts */
  #beginAll(parts) {
    for (const { one, names } of parts) {
      one.isAgain = false;
      for (const [, place] of this.#placesOf(one, names)) place.from = "before";
    }
  }

  /** A request has brought all last values: of whom nothing was heard, is gone. @param {Part[]} parts */
  #isCurrent(parts) {
    for (const { one } of parts) one.knowsAll = true;
    const whole = parts.filter(({ one }) => one.options.snapshot !== false);
    if (whole.length) this.#forgetGone((one, topic) => whole.some((part) => part.one === one && part.names.some((name) => matches(name, topic))));
  }

  /** Topics that were heard of before the loss and not since, of subscriptions that were told all there is. @param {(one: Subscription, topic: string) => boolean} isTold */
  #forgetGone(isTold) {
    for (const [topic, places] of this.#places) {
      for (const place of places) {
        if (place.from === "here" || !isTold(place.one, topic)) continue;
        const isKnown = place.seq !== undefined || place.epoch !== undefined;
        Object.assign(place, { seq: undefined, epoch: undefined, from: "here" });
        if (isKnown) this.#tell(place.one.options.onReset, { topic, epoch: undefined, seq: 0, why: "reconnect" });
      }
    }
  }

  // ---- Back to a better way --------------------------------------------------------------------------------------------

  /** @param {Transport} way */
  #betterThan(way) {
    const better = this.#transports.slice(0, this.#transports.indexOf(way));
    return better.filter((way) => way !== "events" || this.#silences < SILENCES_MAX);
  }

  /** Tries better ways after about so long, one after the other, while the present one goes on. @param {number} [afterMs] */
  #lookUp(afterMs = 0) {
    clearTimeout(this.#trialTimer);
    const better = this.#link ? this.#betterThan(this.#link.way) : [];
    if (better.length) this.#trialTimer = setTimeout(() => this.#try(better), afterMs * (0.5 + Math.random()));
  }

  /** @param {Transport[]} ways */
  #try([way, ...others]) {
    this.#forgetTrial();
    if (way === undefined) return this.#lookUp(this.#options.upgradeMs);
    const link = this.#open(way);
    this.#trial = link;
    this.#untried = others;
    this.#trialTimer = setTimeout(() => this.#missedOut(link), this.#options.patienceMs);
    if (link instanceof Requests) link.open([...this.#subscriptions]);
  }

  /** Not yet tried. @type {Transport[]} */ #untried = [];

  /** @param {Socket | Requests} link */
  #missedOut(link) {
    if (link === this.#trial) this.#try(this.#untried);
  }

  #forgetTrial() {
    clearTimeout(this.#trialTimer);
    const trial = this.#trial;
    this.#trial = null;
    trial?.close();
  }

  /** The better way works: what was sent by the other up to now has come, and the rest is asked for here. @param {Socket | Requests} link */
  #goOver(link) {
    const old = this.#link;
    this.#trial = null;
    this.#leave();
    this.#leaveTopics();
    old?.close(1000);
    this.#link = link;
  }

  /** @param {StentorError} error */
  #disappoint(error) {
    for (const feed of this.#feeds) feed.end(error);
    for (const hope of this.#hopes) hope.reject(error);
    this.#hopes.clear();
  }

  /** @param {State} state @param {Detail} detail */
  #say(state, detail) {
    this.state = state;
    this.#tell(this.#options.onState, state, detail);
  }

  // ---- Commands --------------------------------------------------------------------------------------------------------

  /**
   * @param {object} command
   * @param {string} rest further fields, as JSON
   * @param {Asked} asked
   */
  #ask(command, rest, asked) {
    const id = ++this.#asking;
    this.#asked.set(id, asked);
    if (asked.kind === "pub") this.#publishing += 1;
    if (this.#link instanceof Socket) this.#link.send(`${JSON.stringify({ ...command, id }).slice(0, -1)}${rest}}`);
  }

  /** @param {any} command @param {string} [rest] @returns {Promise<any>} */
  #promise(command, rest = "") {
    if (this.state !== "open") return Promise.reject(new StentorError("not_connected", "there is no connection now"));
    return new Promise((ok, fail) => this.#ask(command, rest, { ok, fail, kind: command.op === "pub" ? "pub" : "" }));
  }

  /** @param {number} id @param {(asked: Asked) => void} how */
  #settle(id, how) {
    const asked = this.#asked.get(id);
    if (!asked) return false;
    this.#asked.delete(id);
    if (asked.kind === "pub") this.#publishing -= 1;
    how(asked);
    return true;
  }

  /**
   * Asks for a subscription, from where it was left: by its cursor; with a server that has none, from where each of its topics was.
   * Topics that a pattern brought are named for that, and only until the server has answered. Those whose epoch nobody has told can't
   * be resumed: they are named to hear how much is missing, where no snapshot says it.
   * @param {Subscription} one
   */
  #askFor(one) {
    const link = this.#link;
    if (link instanceof Requests) return link.take(one);
    const limits = { ...LIMITS, ...this.hello.limits };
    const bytesMax = limits.message - COMMAND_BYTES;
    // What is changed while it runs goes on by itself.
    const cursors = new Set(one.agreed ? [] : one.parts.map(({ cursor }) => cursor));
    /** @type {{topics: string[], from: Points | string, extra: string[]}[]} */
    const commands = [];
    for (const cursor of cursors) {
      const topics = one.parts.filter((part) => part.cursor === cursor).flatMap(({ names }) => names);
      if (cursor !== undefined) for (const part of split(topics, new Map(), bytesMax)) commands.push({ topics: part.topics, from: cursor, extra: [] });
    }
    const unplaced = one.parts.filter(({ cursor }) => one.agreed || cursor === undefined).flatMap(({ names }) => names);
    if (unplaced.length) {
      const { resumed, unsure } = this.#left(one, unplaced, limits.topics);
      for (const [topic, at] of points(one.options.from)) if (!resumed.has(topic)) resumed.set(topic, at);
      const extra = [...resumed.keys(), ...unsure].filter((topic) => !one.names.includes(topic));
      for (const part of split([...extra, ...unplaced], resumed, bytesMax)) commands.push({ ...part, extra: [] });
      commands[commands.length - 1].extra = extra;
    }
    const wanted = { mode: one.mode, ...(one.rate !== undefined && { rate: one.rate }) };
    const misses = one.misses && one.mode === "all";
    commands.forEach(({ topics, from, extra }, nth) => {
      const command = { op: "sub", topics, ...wanted, ...(one.options.snapshot === false && { snapshot: false }) };
      const isLast = nth === commands.length - 1;
      const where = typeof from === "string" ? from : from.size ? Object.fromEntries(from) : undefined;
      this.#ask(where === undefined ? command : { ...command, from: where }, "", {
        ok: (answer) => {
          const isChanged = one.agreed !== undefined && one.parts.every(({ isTaken }) => isTaken);
          const parts = one.parts.filter(({ names }) => names.every((name) => topics.includes(name)));
          this.#taken(one, wanted, { names: topics, from, misses, extra, isLast, isVoid: typeof from === "string" && isVoid(parts, from, answer.cursor) }, answer.topics ?? []);
          if (typeof answer.cursor !== "string") return;
          // Where it begins: who is cut before all of its last values have come goes on there. One that is changed has an older place, and one that
          // goes on by its topics' numbers has these.
          const isPlaced = typeof from === "string" || from.size === 0;
          if (isPlaced && !isChanged) for (const part of parts) part.cursor = answer.cursor;
          this.#useCursors();
        },
        fail: (error) => this.#refused(one, error, from, commands.length === 1),
        kind: "sub",
      });
    });
  }

  /** The server has cursors: the answer to a ping comes behind all last values, and has the place up to which everything was sent. */
  #useCursors() {
    const ask = () => {
      this.#hasNews = false;
      this.#ask({ op: "ping" }, "", { ok: ({ cursor }) => this.#cameAll(cursor, (part) => part.isTaken), fail: () => {}, kind: "" });
    };
    if (![...this.#asked.values()].some(({ kind }) => kind === "sub")) ask();
    this.#cursors ??= setInterval(() => this.#hasNews && ask(), CURSOR_MS);
  }

  /** @param {unknown} cursor @param {(part: Part) => boolean | undefined} which */
  #cameAll(cursor, which) {
    if (typeof cursor !== "string") return;
    for (const { parts } of this.#subscriptions) {
      for (const part of parts) if (which(part)) Object.assign(part, { cursor, isWhole: true, isVoid: false });
    }
  }

  /** Where those topics of a subscription were left that these names cover, and those of which that can't be said; as many as may be named. @param {Subscription} one @param {string[]} names @param {number} most */
  #left(one, names, most) {
    /** @type {Points} */
    const resumed = new Map();
    /** @type {string[]} */
    const unsure = [];
    let room = most;
    for (const { names } of this.#subscriptions) room -= names.length;
    for (const [topic, { from, epoch, seq }] of one.mode === "all" ? this.#placesOf(one, names) : []) {
      if (from !== "before" || seq === undefined) continue;
      if (epoch === undefined) {
        if (one.options.snapshot === false) unsure.push(topic);
      } else if (one.names.includes(topic) || --room >= 0) {
        resumed.set(topic, [epoch, seq]);
      }
    }
    return { resumed, unsure: unsure.slice(0, Math.max(0, room)) };
  }

  /** By a request, the server delivers these now. @param {Scope} scope @param {Taken[]} topics @param {boolean} [isVoid] */
  #took({ parts, isResumed }, topics, isVoid = false) {
    for (const part of parts) {
      const { one } = part;
      if (part.isTaken) continue;
      const mine = topics.filter(({ topic }) => part.names.includes(topic));
      const isLast = one.parts.every((other) => other === part || other.isTaken);
      const wanted = { mode: one.mode, ...(one.rate !== undefined && { rate: one.rate }) };
      const from = isResumed ? (part.cursor ?? "") : new Map();
      // An address has no room for topics' own numbers: what lies between them and the last values is told as missing.
      if (!isResumed) for (const [topic, [epoch, seq]] of points(one.options.from)) Object.assign(this.#place(topic, one), { epoch, seq, from: "before" });
      this.#taken(one, wanted, { names: part.names, from, misses: one.misses && one.mode === "all", extra: [], isLast, isVoid }, mine);
    }
    this.#acked = this.#coming = undefined;
  }

  /**
   * @param {Subscription} one
   * @param {{mode: Mode, rate?: number}} wanted
   * @param {{names: string[], from: Points | string, misses: boolean, extra: string[], isLast: boolean, isVoid: boolean}} how where these names
   *   were to be resumed; whether it comes back from a loss; what was named to be resumed, and is covered by patterns from now on; whether all
   *   names have been taken now; whether the cursor to be resumed from is good no more, so that each topic there is will be reset
   * @param {Taken[]} topics
   */
  #taken(one, wanted, { names, from, misses, extra, isLast, isVoid }, topics) {
    if (!this.#subscriptions.has(one)) return;
    const isResumed = typeof from === "string";
    /** @type {Points} */
    const left = isResumed ? new Map() : from;
    // What came so far may have had holes, if it wasn't mode "all".
    if (one.agreed && one.agreed.mode !== "all") this.#startAnew(one, left);
    one.agreed = wanted;
    if (isLast) one.options.from = undefined;
    one.wasTaken ||= isLast;
    one.isAgain = isResumed && !isVoid;
    for (const part of one.parts) part.isTaken ||= isLast || part.names.every((name) => names.includes(name));
    this.#acked = one;
    one.isBack = misses && !isResumed;
    one.misses = misses && !isLast;
    if (isLast && !isResumed && one.options.snapshot !== false) this.#coming = one;
    // Of a topic that isn't reset, because there is none any more, the next publication says that it has begun anew.
    if (one.isAgain) for (const [, place] of this.#placesOf(one, names)) place.from = "here";
    for (const { topic, epoch, seq } of topics) {
      if (epoch === undefined || seq === undefined) continue;
      const place = this.#place(topic, one);
      const at = left.get(topic);
      if (at) {
        // Goes on from where we said, or with a reset.
        Object.assign(place, { epoch, seq: at[0] === epoch ? at[1] : seq, from: "here" });
      } else if (isVoid && this.#link instanceof Socket) {
        continue; // There will be a reset; or there is nothing of it any more, which the answer to the ping shows.
      } else if (isResumed) {
        this.#goesOn(place, { topic, epoch, seq }, isVoid);
      } else if (place.from === "before" && place.epoch === undefined) {
        this.#rejoin(place, { topic, epoch, seq }, seq);
        Object.assign(place, { epoch, seq, isUntold: true });
      } else if (place.from === "before" && place.epoch !== epoch) {
        this.#beginAnew(place, { topic, epoch, seq, why: "reconnect" });
      } else if (place.from === "here") {
        Object.assign(place, { epoch, seq, isUntold: place.isUntold || place.seq !== seq || place.epoch !== epoch });
      }
    }
    this.#tell(one.options.onAck, topics);
    this.#unsubscribe(extra.filter((topic) => ![...this.#subscriptions].some(({ names }) => names.includes(topic))));
  }

  /**
   * A topic that was named goes on behind a cursor. If it has begun anew, the server says so, unless there is nothing of it yet.
   * @param {Place} place
   * @param {Mark} mark
   * @param {boolean} isVoid the cursor was good no more
   */
  #goesOn(place, { topic, epoch, seq }, isVoid) {
    if (isVoid ? !place.seq : place.epoch === undefined || place.epoch === epoch) {
      place.epoch = epoch;
    } else if (seq > 0) {
      place.from = "before";
    } else {
      this.#beginAnew(place, { topic, epoch, seq, why: "reconnect" });
      place.toldAnew = true;
    }
  }

  /** @param {string[]} names */
  #unsubscribe(names) {
    const { message } = { ...LIMITS, ...this.hello.limits };
    for (const { topics } of split(names, new Map(), message - COMMAND_BYTES)) {
      this.#ask({ op: "unsub", topics }, "", { ok: () => {}, fail: () => {}, kind: "" });
    }
  }

  /** @param {Subscription} one @param {StentorError & {topics?: string[]}} error @param {Points | string} [from] @param {boolean} [isWhole] all of its names were asked for at once */
  #refused(one, error, from, isWhole = false) {
    if (error.code === "disconnected" || !this.#subscriptions.has(one)) return;
    const uncovered = one.names.filter((name) => error.topics?.includes(name));
    if (uncovered.length && uncovered.length < one.names.length) return this.#askForOthers(one, uncovered, error, isWhole);
    if (typeof from === "string" && error.code === "bad_command" && one.parts.some(({ cursor }) => cursor === from)) {
      // Another server, which has no cursors: by topics, then.
      for (const part of one.parts) part.cursor = undefined;
      return this.#askFor(one);
    }
    if (one.wasTaken && PASSING.includes(error.code) && !one.parts.every(({ isTaken }) => isTaken)) {
      this.#askLater(one);
    } else if (one.agreed) {
      one.mode = one.agreed.mode;
      one.rate = one.agreed.rate;
      if (this.#link instanceof Requests) this.#link.take(one);
    } else {
      this.#end(one); // some of its names may have been taken, if it took several commands
    }
    this.#tell(one.options.onError ?? this.#options.onError, error);
  }

  /** There was no room for one that comes back: it asks again when there may be, from where it was left. @param {Subscription} one */
  #askLater(one) {
    const link = this.#link;
    this.#leaveOne(one);
    clearTimeout(one.later);
    one.later = setTimeout(() => {
      if (this.#link !== link || !this.#subscriptions.has(one)) return;
      // Some of its names may have been taken, if it took several commands.
      this.#unsubscribe(one.names);
      this.#leaveOne(one);
      this.#askFor(one);
    }, this.#delay(1013));
  }

  /**
   * Rights don't cover some names: these end, each with an error, and the others are asked for again.
   * @param {Subscription} one
   * @param {string[]} uncovered
   * @param {StentorError} error
   * @param {boolean} isWhole
   */
  #askForOthers(one, uncovered, error, isWhole) {
    for (const name of uncovered) this.#drop(one, name);
    this.#reroute();
    for (const name of uncovered) {
      const message = uncovered.length === 1 ? error.message : `${name}: your rights don't cover that`;
      this.#tell(one.options.onError ?? this.#options.onError, new StentorError(error.code, message, { topic: name }));
    }
    if (!this.#subscriptions.has(one) || !(this.#link instanceof Socket)) return;
    if (isWhole && !one.wasTaken) this.#askFor(one);
    // It goes on where it was, or some of its names have been taken already: on the next connection all of it is asked for in order.
    else this.#giveUp("rights don't cover all of a subscription");
  }

  /** Rights don't cover a name any more, and the server has ended it. @param {string} name @param {StentorError} error */
  #narrowed(name, error) {
    for (const one of this.#subscriptions) {
      if (!one.names.includes(name)) continue;
      this.#drop(one, name);
      this.#tell(one.options.onError ?? this.#options.onError, error);
    }
    this.#reroute();
  }

  /** @param {Subscription} one @param {string} name */
  #drop(one, name) {
    one.names = one.names.filter((other) => other !== name);
    for (const part of one.parts) part.names = part.names.filter((other) => other !== name);
    one.parts = one.parts.filter(({ names }) => names.length);
    if (!one.names.length) this.#subscriptions.delete(one);
  }

  /** @param {Subscription} one */
  #end(one) {
    if (!this.#subscriptions.delete(one)) return;
    clearTimeout(one.later);
    this.#reroute();
    if (this.#trial instanceof Requests) this.#trial.drop(one);
    if (this.#link instanceof Requests) this.#link.drop(one);
    else if (this.state === "open") this.#unsubscribe(one.names);
  }

  // ---- Topics ----------------------------------------------------------------------------------------------------------

  /** Where a topic stands for those who get it. @param {string} topic @returns {Place[]} */
  #route(topic) {
    const known = this.#places.get(topic);
    if (known) return known;
    /** @type {Place[]} */
    const places = [...this.#subscriptions].filter((one) => one.covers(topic)).map((one) => ({ one, from: "here" }));
    if (!places.length) return places;
    if (this.#places.size < (this.#options.topicsMax ?? 0)) this.#places.set(topic, places);
    else this.#hasForgotten = true;
    return places;
  }

  /** Where a topic of its own stands for a subscription. @param {string} topic @param {Subscription} one @returns {Place} */
  #place(topic, one) {
    return this.#route(topic).find((place) => place.one === one) ?? { one, from: "here" };
  }

  /** Those who are meant by what has come, of those who get it. @param {string} topic @param {Scope} [scope] */
  #meant(topic, scope) {
    const places = this.#route(topic);
    return scope ? places.filter(({ one }) => scope.parts.some((part) => part.one === one)) : places;
  }

  /** The topics of a subscription that some of its names cover. @param {Subscription} one @param {string[]} names @returns {Iterable<[string, Place]>} */
  *#placesOf(one, names) {
    const isAll = one.names.every((name) => names.includes(name));
    for (const [topic, places] of this.#places) {
      for (const place of places) {
        if (place.one === one && (isAll || names.some((name) => matches(name, topic)))) yield [topic, place];
      }
    }
  }

  /** Subscriptions have changed: finds out anew who gets what. */
  #reroute() {
    for (const [topic, places] of this.#places) {
      /** @type {Place[]} */
      const now = [];
      for (const one of this.#subscriptions) {
        if (one.covers(topic)) now.push(places.find((place) => place.one === one) ?? { one, from: "here" });
      }
      if (now.length) this.#places.set(topic, now);
      else this.#places.delete(topic);
    }
  }

  /** @param {Subscription} one @param {Points} from */
  #startAnew(one, from) {
    for (const [topic, place] of this.#placesOf(one, one.names)) {
      if (place.from === "here" && !from.has(topic)) place.seq = undefined;
    }
  }

  /** @param {Update | Mark} update @param {Scope} [scope] */
  #update(update, scope) {
    const tell = (/** @type {SubscriptionOptions} */ options) => this.#tell(options.onUpdate, update);
    for (const place of this.#meant(update.topic, scope)) this.#next(place, update, tell);
  }

  /**
   * @param {Place} place
   * @param {Update | Mark} update
   * @param {(options: SubscriptionOptions) => void} tell
   */
  #next(place, update, tell) {
    const { one } = place;
    // One that the server has not taken yet begins later, though others bring its topics already.
    if (!one.agreed || !this.#subscriptions.has(one)) return;
    const first = ("first" in update ? update.first : undefined) ?? update.seq;
    if (place.from === "before") this.#rejoin(place, update, first - 1, first - 1);
    else if (isAnew(place, update)) this.#beginAnew(place, { ...update, seq: update.seq - 1, why: "reconnect" });
    if (update.epoch !== undefined) place.epoch = update.epoch;
    place.toldAnew = false;
    if (place.seq !== undefined) {
      if (update.seq <= place.seq) return; // had before
      if (first > place.seq + 1 && one.agreed.mode === "all") return this.#gap(place, { ...update, seq: first }, place.seq + 1);
    }
    Object.assign(place, { seq: update.seq, isUntold: false });
    tell(one.options);
  }

  /**
   * @param {Update | Mark} snapshot
   * @param {Scope} [scope]
   * @param {(options: SubscriptionOptions) => void} [tell]
   */
  #snapshot(snapshot, scope, tell = (options) => this.#tell(options.onSnapshot ?? options.onUpdate, snapshot)) {
    for (const place of this.#askers(snapshot.topic, scope)) {
      const { one, from, seq, epoch } = place;
      if (!one.agreed || !this.#subscriptions.has(one)) continue;
      const isNew = seq === undefined && epoch === undefined;
      const isHad = from === "before" && seq === snapshot.seq && epoch === snapshot.epoch && !snapshot.key;
      // Who was cut among the last values is sent them again.
      if (one.isAgain && from === "here" && !place.isUntold && seq !== undefined && epoch === snapshot.epoch && snapshot.seq <= seq && !snapshot.key) continue;
      if (from === "before") this.#rejoin(place, snapshot);
      else if (isNew && one.isBack && !this.#hasForgotten) this.#missed(place, snapshot.topic, 1, snapshot.seq - 1);
      else if (isAnew(place, snapshot)) this.#beginAnew(place, { ...snapshot, why: "reconnect" });
      else if (seq !== undefined && one.agreed.mode === "all") this.#missed(place, snapshot.topic, seq + 1, snapshot.seq - 1);
      // What followed a keyframe comes behind it once more.
      if (place.seq === undefined || place.seq < snapshot.seq || place.epoch !== snapshot.epoch || snapshot.key) place.seq = snapshot.seq;
      Object.assign(place, { epoch: snapshot.epoch, toldAnew: false, isUntold: false });
      if (!isHad) tell(one.options);
    }
  }

  /** Those to whom a last value is told: who has asked for it, if that can be known. @param {string} topic @param {Scope | undefined} scope */
  #askers(topic, scope) {
    const places = this.#meant(topic, scope);
    const askers = places.filter(({ one }) => one === this.#acked);
    return askers.length ? askers : places;
  }

  /** Publications that a subscription to all of them doesn't get. @param {Place} place @param {string} topic @param {number} from @param {number} to */
  #missed({ one }, topic, from, to) {
    if (to >= from) this.#tell(one.options.onSkip, { topic, from, to, why: "reconnect" });
  }

  /**
   * A topic goes on after a loss, though not where it was left: says what is missing.
   * @param {Place} place
   * @param {Mark} next
   * @param {number} [to] the last that is missing
   * @param {number} [behind] where it begins anew, if it does
   */
  #rejoin(place, next, to = next.seq - 1, behind = next.seq) {
    const { one, seq, epoch } = place;
    place.from = "here";
    place.seq = undefined;
    if (seq === undefined) return;
    const goesOn = next.seq >= seq && (next.epoch === undefined || epoch === undefined || next.epoch === epoch);
    if (!goesOn) {
      this.#tell(one.options.onReset, { topic: next.topic, epoch: next.epoch, seq: behind, why: "reconnect" });
    } else if (one.agreed?.mode === "all") {
      this.#missed(place, next.topic, seq + 1, to);
    }
  }

  /** @param {Skip} skip @param {Scope} [scope] */
  #skip(skip, scope) {
    const tell = (/** @type {SubscriptionOptions} */ options) => this.#tell(options.onSkip, skip);
    if (skip.why === "too_large") {
      // It stands in the place of an update; or of a snapshot, which says the epoch, as a topic's first publication does.
      const mark = { topic: skip.topic, seq: skip.to, first: skip.from, epoch: skip.epoch };
      const isFirst = skip.to === 1 && this.#meant(skip.topic, scope).every(({ from, seq }) => from === "here" && !seq);
      if (skip.epoch !== undefined && !isFirst) return this.#snapshot(mark, scope, tell);
      for (const place of this.#meant(skip.topic, scope)) this.#next(place, mark, tell);
      return;
    }
    for (const place of this.#meant(skip.topic, scope)) {
      const had = place.from === "here" ? place.seq : undefined;
      if (!place.one.agreed || (had !== undefined && skip.to <= had)) continue;
      Object.assign(place, { seq: skip.to, from: "here", isUntold: false, ...(skip.epoch !== undefined && { epoch: skip.epoch }) });
      // Behind a cursor the server counts from there, and some of it may have come.
      this.#tell(place.one.options.onSkip, had !== undefined && skip.from <= had ? { ...skip, from: had + 1 } : skip);
    }
  }

  /** @param {Reset} reset @param {Scope} [scope] */
  #reset(reset, scope) {
    for (const place of this.#askers(reset.topic, scope)) {
      const isTold = place.toldAnew && place.epoch === reset.epoch;
      if (isTold) Object.assign(place, { seq: reset.seq, toldAnew: false, isUntold: true });
      else this.#beginAnew(place, reset);
    }
  }

  /** @param {Place} place @param {Reset} reset */
  #beginAnew(place, { topic, epoch, seq, why }) {
    Object.assign(place, { epoch, seq, from: "here", toldAnew: false, isUntold: true });
    this.#tell(place.one.options.onReset, { topic, epoch, seq, why });
  }

  /** What must not happen: something is missing in between. Comes back for it. @param {Place} place @param {Mark} update @param {number} from */
  #gap({ one }, update, from) {
    const what = { topic: update.topic, from, to: update.seq - 1 };
    const error = new StentorError("gap", `${what.topic}: ${from} to ${what.to} did not arrive; subscribing again`, what);
    // The server believes that it has sent everything: only the topic's own number says otherwise.
    for (const part of one.parts) part.cursor = undefined;
    this.#tell(one.options.onError ?? this.#options.onError, error);
    if (this.#link) this.#giveUp("a gap");
  }

  /** Calls back. What a callback throws is its owner's to see, and doesn't end the connection. */
  #tell(/** @type {Function | undefined} */ callback, /** @type {any[]} */ ...what) {
    try {
      callback?.(...what);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}

/** What an event is counted as, and each letter of its payload: the text, and what was parsed of it. */
const EVENT_BYTES = 500;
const LETTER_BYTES = 8;

/** What comes of a subscription and was not taken by a loop yet, in bounded memory. Made by {@link Stentor.events}. */
export class Feed {
  /** To change it while it runs. @type {Subscription | undefined} */
  subscription;
  /** @type {FeedEvent[]} */ #events = [];
  /** The first of them that was not taken. */
  #at = 0;
  #bytes = 0;
  #bytesMax;
  #compactAt;
  #whenSlow;
  #leave;
  /** Topics that have keyframes: what follows one may be changes to it. @type {Set<string>} */ #keyed = new Set();
  /** Who waits for the next. @type {{ok: (step: IteratorResult<FeedEvent, undefined>) => void, fail: (error: Error) => void}[]} */ #waiting = [];
  #isOver = false;
  /** Why, if that is still to be told. @type {Error | undefined} */ #error;

  /** @param {number} bytesMax @param {"latest" | "error"} whenSlow @param {() => void} leave ends the subscription */
  constructor(bytesMax, whenSlow, leave) {
    this.#bytesMax = this.#compactAt = bytesMax;
    this.#whenSlow = whenSlow;
    this.#leave = leave;
  }

  /** Held at this moment, in bytes. */
  get bytes() {
    return this.#bytes;
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @returns {Promise<IteratorResult<FeedEvent, undefined>>} */
  next() {
    if (this.#at < this.#events.length) return Promise.resolve({ value: this.#take(), done: false });
    const error = this.#error;
    this.#error = undefined;
    if (error) return Promise.reject(error);
    if (this.#isOver) return Promise.resolve({ value: undefined, done: true });
    return new Promise((ok, fail) => this.#waiting.push({ ok, fail }));
  }

  /** The loop was left. @returns {Promise<IteratorResult<FeedEvent, undefined>>} */
  return() {
    this.#events = [];
    this.#at = this.#bytes = 0;
    this.end();
    this.#error = undefined;
    return Promise.resolve({ value: undefined, done: true });
  }

  /** @param {FeedEvent} event */
  put(event) {
    if (this.#isOver) return;
    if ("key" in event && event.key) this.#keyed.add(event.topic);
    const waiting = this.#waiting.shift();
    if (waiting) return waiting.ok({ value: event, done: false });
    this.#events.push(event);
    this.#bytes += cost(event);
    if (this.#bytes > this.#compactAt) this.#overflow();
  }

  /** Nothing more comes; what is there can still be taken. @param {Error} [error] */
  end(error) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#error = error;
    for (const { ok, fail } of this.#waiting.splice(0)) {
      const told = this.#error;
      this.#error = undefined;
      if (told) fail(told);
      else ok({ value: undefined, done: true });
    }
    this.#leave();
  }

  #take() {
    const event = this.#events[this.#at++];
    this.#bytes -= cost(event);
    if (this.#at > 1000 && this.#at * 2 > this.#events.length) {
      this.#events = this.#events.slice(this.#at);
      this.#at = 0;
    }
    if (this.#bytes < this.#bytesMax / 2) this.#compactAt = this.#bytesMax;
    return event;
  }

  #overflow() {
    if (this.#whenSlow === "error") return this.end(new StentorError("too_slow", `the program has left ${this.#bytes} bytes of events lying`));
    this.#events = compact(this.#events.slice(this.#at), this.#keyed);
    this.#at = 0;
    this.#count();
    if (this.#bytes > this.#bytesMax / 2) this.#events = compact(this.#events, new Set());
    this.#count();
    // Many topics: their newest values may be more than the bound. Each time again would be no work but this.
    this.#compactAt = Math.max(this.#bytesMax, 2 * this.#bytes);
  }

  #count() {
    this.#bytes = this.#events.reduce((sum, event) => sum + cost(event), 0);
  }
}

/** @param {FeedEvent} event */
function cost(event) {
  const payload = "seq" in event && "ts" in event ? (event.json ?? event.base64 ?? "") : "";
  return EVENT_BYTES + LETTER_BYTES * payload.length;
}

/**
 * Leaves of each topic the newest value, behind a skip of what it replaces, behind the newest reset; of keyed ones what came since the newest keyframe.
 * @param {FeedEvent[]} events
 * @param {Set<string>} keyed
 * @returns {FeedEvent[]}
 */
function compact(events, keyed) {
  /** @type {Map<string, {oldest?: number, hasKey: boolean, reset?: FeedEvent, left?: Skip, behind?: Skip}>} */
  const topics = new Map();
  /** @type {FeedEvent[]} */
  const kept = [];
  const around = (/** @type {Skip | undefined} */ old, /** @type {Skip} */ { topic, from, to, why }) =>
    old ? { topic, from: Math.min(from, old.from), to: Math.max(to, old.to), why: why === "slow" ? why : old.why } : { topic, from, to, why };
  /** @type {Set<string>} */
  const codes = new Set();
  for (const event of [...events].reverse()) {
    if (event.type === "status") {
      if (!codes.has(event.code)) kept.push(event);
      codes.add(event.code);
      continue;
    }
    const { topic } = event;
    const known = topics.get(topic) ?? { hasKey: false };
    topics.set(topic, known);
    if (known.reset || event.type === "gap") continue;
    if (event.type === "reset") known.reset = event;
    else if (event.type === "skip" && known.oldest === undefined) known.behind = around(known.behind, event);
    else if (event.type === "skip") known.left = around(known.left, event);
    else if (known.oldest === undefined || (keyed.has(topic) && !known.hasKey && !known.left)) {
      kept.push(event);
      known.oldest = event.seq;
      known.hasKey = event.key === true;
    } else {
      known.left = around(known.left, { topic, from: event.seq, to: event.seq, why: "slow" });
    }
  }
  /** @type {FeedEvent[]} */
  const told = [];
  const before = (/** @type {string} */ topic) => {
    const { reset, left, oldest = Infinity } = topics.get(topic) ?? {};
    if (reset) told.push(reset);
    if (left && left.from < oldest) told.push({ ...left, type: "skip", to: Math.min(left.to, oldest - 1) });
  };
  const begun = new Set();
  for (const event of kept.reverse()) {
    if (event.type !== "status") {
      if (!begun.has(event.topic)) before(event.topic);
      begun.add(event.topic);
    }
    told.push(event);
  }
  for (const [topic, { behind }] of topics) {
    if (!begun.has(topic)) before(topic);
    if (behind) told.push({ ...behind, type: "skip" });
  }
  return told;
}

/**
 * Whether the cursor that these were to go on from is good no more: then the answer has another one, a word that stands for no place, which
 * they show if they have to come back before everything that begins anew has come.
 * @param {Part[]} parts
 * @param {string | undefined} asked
 * @param {unknown} said
 */
function isVoid(parts, asked, said) {
  if (typeof said !== "string") return false;
  for (const part of parts) {
    part.isVoid ||= asked !== undefined && asked !== said;
    if (part.isVoid) part.cursor = said;
  }
  return parts.some((part) => part.isVoid);
}

/** Whether a topic's numbering has begun anew, as far as both say. @param {Place} place @param {Mark} mark */
function isAnew(place, mark) {
  if (!place.seq || mark.epoch === undefined) return false;
  // Whoever hasn't been told its epoch was not sent its number 1.
  return place.epoch === undefined ? mark.seq === 1 && place.seq > 1 : mark.epoch !== place.epoch;
}

/** A WebSocket. */
class Socket {
  /** @type {Transport} */ way = "websocket";
  #socket;

  /** @param {any} socket @param {Ear} ear */
  constructor(socket, ear) {
    this.#socket = socket;
    let isHeard = false;
    socket.onmessage = (/** @type {any} */ event) => {
      isHeard = true;
      ear.said(event.data);
    };
    const refused = () => {
      const { status, text, retryMs } = socket.refusal;
      ear.lost(endOf(status), text, { retryMs, isUnfit: ELSEWHERE.includes(status) });
    };
    socket.onclose = (/** @type {any} */ event) => (socket.refusal ? refused() : ear.lost(event.code, event.reason));
    // A close follows, except that Node's own WebSocket says nothing more when it could not connect.
    socket.onerror = () => !isHeard && (socket.refusal ? refused() : ear.lost(1006, ""));
  }

  /** What is said while the connection closes is lost; a browser complains of it. Its end is told soon. @param {string} text */
  send(text) {
    if ((this.#socket.readyState ?? OPEN) === OPEN) this.#socket.send(text);
  }

  /** @param {number} [code] */
  close(code) {
    this.#socket.close(code);
  }
}

/** A request that was answered with something else than was asked for. */
class Unanswered extends Error {
  /** @param {number} status @param {string} text @param {number} [retryMs] */
  constructor(status, text, retryMs) {
    super(text.trim().slice(0, 200) || `status ${status}`);
    this.status = status;
    this.retryMs = retryMs;
  }

  /** The answer, if it is one that was hoped for. @param {Response} response */
  static async check(response) {
    if (response.ok) return response;
    const retryMs = Number(response.headers.get("Retry-After")) * 1000 || undefined;
    throw new Unanswered(response.status, await response.text(), retryMs);
  }
}

/** What refusals over HTTP are called, where the protocol has a code for them. @type {Record<number, string>} */
const CODES = { 400: "bad_command", 401: "unauthorized", 403: "forbidden", 413: "too_large", 414: "too_many", 429: "rate_limited", 431: "too_many", 503: "server_full" };

/** What is no server of this sort, or not up to this way, won't be the next time. */
const ELSEWHERE = [404, 405, 406, 426, 501];

/** What a connection would have been closed with, had there been one. @param {number} status */
const endOf = (status) => (status === 401 ? 4001 : status === 409 ? 4002 : status === 429 || status === 503 ? 1013 : 1006);

/** That the names, and not the way, are to blame. */
const REFUSALS = [400, 403, 414, 431];

/** Plain HTTP: each channel is a stream of events, or one poll after the other, for parts that stand at the same place. */
class Requests {
  way;
  #base;
  #settings;
  #ear;
  /** @type {Set<Channel>} */ #channels = new Set();
  /** Requests that are under way; and who waits to be one of them. */
  #busy = 0;
  /** @type {(() => void)[]} */ #waiting = [];
  #isClosed = false;

  /**
   * @param {Transport} way
   * @param {string} url that of the WebSocket
   * @param {{fetch: typeof globalThis.fetch, patienceMs: number, token: () => string | undefined}} settings
   * @param {Ear} ear
   */
  constructor(way, url, settings, ear) {
    this.way = way;
    this.#base = new URL(url.replace(/^ws/, "http"));
    this.#base.pathname = this.#base.pathname.replace(/[^/]*\/?$/, "");
    this.#settings = settings;
    this.#ear = ear;
  }

  /** Begins with these. @param {Subscription[]} subscriptions */
  open(subscriptions) {
    this.#add(subscriptions.flatMap(({ parts }) => parts));
    // With nothing to hear, all there is to know is whether the server is there.
    if (!this.#channels.size) this.ping().then(() => this.#ear.greeted({}), (error) => this.#failed(undefined, error));
  }

  /** Hears of this one, too; or in another way than before. @param {Subscription} one */
  take(one) {
    const heard = [...this.#channels].filter(({ parts }) => parts.some((part) => part.one === one));
    if (heard.length && heard.every(({ mode, rate }) => mode === one.mode && rate === one.rate)) return;
    this.drop(one);
    for (const part of one.parts) part.isTaken = false;
    this.#add(one.parts);
  }

  /** @param {Subscription} one */
  drop(one) {
    for (const channel of this.#channels) {
      channel.parts = channel.parts.filter((part) => part.one !== one);
      if (!channel.parts.length) this.#end(channel);
    }
  }

  /** Another token is to be shown from now on: a stream that began with the one before ends with it, so it is made anew, from where it is. */
  renew() {
    if (this.way !== "events") return;
    for (const channel of [...this.#channels]) {
      this.#end(channel);
      for (const part of channel.parts) part.isTaken = false;
      this.#add(channel.parts);
    }
  }

  close() {
    this.#isClosed = true;
    for (const channel of this.#channels) this.#end(channel);
  }

  /** @param {string} topic @param {string} json */
  async publish(topic, json) {
    let response;
    try {
      const url = this.#url(`publish/${encodeURIComponent(topic)}`, [["as", "json"]]);
      response = await Unanswered.check(await this.#settings.fetch(url, { method: "POST", body: json, headers: this.#headers() }));
      return await response.json();
    } catch (error) {
      if (error instanceof Unanswered) throw new StentorError(CODES[error.status] ?? "refused", error.message);
      throw new StentorError("disconnected", "the connection ended before the answer came");
    }
  }

  async ping() {
    await Unanswered.check(await this.#settings.fetch(this.#url("healthz", []), { cache: "no-store" }));
  }

  /** Channels for parts: one for all that are to be delivered alike and stand at the same place, as far as one address has room. @param {Part[]} parts */
  #add(parts) {
    /** @type {Map<string, {channel: Channel, bytes: number}>} */
    const open = new Map();
    for (const part of parts) {
      const { mode, rate, options } = part.one;
      const isBare = options.snapshot === false;
      const key = JSON.stringify([mode, rate, part.cursor, isBare]);
      const bytes = part.names.reduce((sum, name) => sum + name.length + 3, 0);
      let last = open.get(key);
      if (!last || last.bytes + bytes > ADDRESS_BYTES) {
        /** @type {Channel} */
        const channel = { parts: [], mode, rate, isBare, cursor: part.cursor, isResumed: part.cursor !== undefined, isTaken: false, isOver: false, stop: () => {} };
        last = { channel, bytes: 0 };
        open.set(key, last);
        this.#channels.add(channel);
        // Once all are there.
        queueMicrotask(() => this.#run(channel));
      }
      last.channel.parts.push(part);
      last.bytes += bytes;
    }
  }

  /** @param {Channel} channel */
  #end(channel) {
    channel.isOver = true;
    this.#channels.delete(channel);
    channel.stop();
  }

  /** @param {Channel} channel */
  async #run(channel) {
    try {
      if (this.way === "polling") while (!channel.isOver) await this.#poll(channel);
      else await this.#stream(channel);
    } catch (error) {
      if (!channel.isOver) this.#failed(channel, error);
    }
  }

  /** @param {Channel | undefined} channel @param {any} error */
  #failed(channel, error) {
    if (this.#isClosed) return;
    const { message, status, retryMs } = error;
    if (channel && REFUSALS.includes(status)) return this.#refused(channel, status, message);
    this.#ear.lost(endOf(status), message, { retryMs, isUnfit: ELSEWHERE.includes(status) || error instanceof Unfit });
    this.close();
  }

  /** One of its names is to blame: whose, they find out each for itself. @param {Channel} channel @param {number} status @param {string} text */
  #refused(channel, status, text) {
    this.#end(channel);
    const subscriptions = new Set(channel.parts.map(({ one }) => one));
    for (const one of subscriptions) {
      if (subscriptions.size > 1) {
        this.#add(channel.parts.filter((part) => part.one === one));
      } else {
        this.drop(one);
        this.#ear.refused(one, new StentorError(CODES[status], text));
      }
    }
    // If none is left, the server is there all the same.
    if (!this.#channels.size) this.#ear.greeted({});
  }

  /** @param {Channel} channel */
  async #stream(channel) {
    if (this.#channels.size > REQUESTS_MAX) throw new Unfit("more streams would be needed than may be");
    const headers = { Accept: "text/event-stream", ...(channel.cursor !== undefined && { "Last-Event-ID": channel.cursor }) };
    const response = await this.#ask(channel, "sse", [], headers);
    if (!response.headers.get("Content-Type")?.startsWith("text/event-stream") || !response.body) throw new Unfit("what answered has no events");
    const reader = response.body.getReader();
    const [decoder, events] = [new TextDecoder(), new Events()];
    for (;;) {
      const { value, done } = await reader.read();
      if (channel.isOver) return;
      if (done) throw new Error("the stream ended");
      for (const { data, id } of events.read(decoder.decode(value, { stream: true }))) {
        this.#ear.said(data, channel);
        if (channel.isOver) return;
        if (CURSOR.test(id)) this.#ear.came(channel, id);
      }
    }
  }

  /** @param {Channel} channel */
  async #poll(channel) {
    while (this.#busy >= REQUESTS_MAX) await new Promise((/** @type {(_: void) => void} */ ok) => this.#waiting.push(ok));
    if (channel.isOver) return this.#waiting.shift()?.();
    this.#busy += 1;
    const began = performance.now();
    let text;
    try {
      // The first finds out at once whether there is anybody.
      const waitS = !channel.isTaken ? 0 : this.#channels.size > REQUESTS_MAX ? WAIT_CROWDED_S : WAIT_S;
      const from = channel.cursor === undefined ? [] : [["cursor", channel.cursor]];
      const response = await this.#ask(channel, "poll", [...from, ["wait", `${waitS}`]], {}, waitS * 1000 + this.#settings.patienceMs);
      text = await response.text();
    } finally {
      channel.stop(); // and what waits for its patience to end
      this.#busy -= 1;
      this.#waiting.shift()?.();
    }
    if (channel.isOver) return;
    const { cursor } = JSON.parse(text);
    if (!CURSOR.test(cursor)) throw new Unfit("what answered has no cursor");
    this.#ear.greeted({});
    if (channel.isOver) return;
    const messages = messagesIn(text);
    // What has a place to go on from begins only if that is good no more.
    const isAnew = channel.cursor !== undefined && /"code":"current"}$/.test(messages.at(-1) ?? "");
    if (channel.isTaken) {
      if (isAnew) this.#ear.began(channel);
    } else {
      const { mode, rate } = channel;
      this.#ear.took(channel, channel.parts.flatMap(({ names }) => names.map((topic) => ({ topic, mode, rate }))), isAnew);
      channel.isTaken = true;
    }
    for (const message of messages) {
      if (channel.isOver) return;
      this.#ear.said(message, channel);
    }
    if (channel.isOver) return;
    channel.cursor = cursor;
    this.#ear.came(channel, cursor);
    // A poll has no rate: it is made as often as one wants to be told. Nor is who answers at once that there is nothing asked at once again.
    const everyMs = messages.length ? 1000 / (channel.rate ?? Infinity) : 1000;
    const pauseMs = everyMs - (performance.now() - began);
    if (pauseMs > 0) await new Promise((ok) => setTimeout(ok, pauseMs));
  }

  /**
   * @param {Channel} channel
   * @param {string} path
   * @param {string[][]} query
   * @param {Record<string, string>} headers
   * @param {number} [patienceMs] for the whole of the answer
   */
  async #ask(channel, path, query, headers, patienceMs) {
    const control = new AbortController();
    const timer = patienceMs === undefined ? undefined : setTimeout(() => control.abort(), patienceMs);
    channel.stop = () => {
      clearTimeout(timer);
      control.abort();
    };
    const { mode, rate, isBare, parts } = channel;
    const topics = parts.flatMap(({ names }) => names).join(",");
    const how = [["topics", topics], ...(mode === "all" ? [] : [["mode", mode]]), ...(rate === undefined || this.way === "polling" ? [] : [["rate", `${rate}`]]), ...(isBare ? [["snapshot", "0"]] : [])];
    const url = this.#url(path, [...how, ...query]);
    return Unanswered.check(await this.#settings.fetch(url, { headers: { ...headers, ...this.#headers() }, cache: "no-store", signal: control.signal }));
  }

  /** @param {string} path @param {string[][]} query */
  #url(path, query) {
    const url = new URL(path, this.#base);
    url.search = new URLSearchParams([...new URLSearchParams(this.#base.search), ...query]).toString();
    return url.href;
  }

  #headers() {
    const token = this.#settings.token();
    /** @type {Record<string, string>} */
    const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
    return headers;
  }
}

/** That another way has to be taken. */
class Unfit extends Error {}

/** Server-Sent Events (the HTML standard, section 9.2.6), as far as this server's have fields: `id` and `data`. */
class Events {
  #rest = "";
  /** @type {string[]} */ #data = [];
  #id = "";

  /** What has become complete with this piece. @param {string} text */
  read(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    const found = [];
    for (const ended of lines) {
      const line = ended.endsWith("\r") ? ended.slice(0, -1) : ended;
      if (line === "") {
        if (this.#data.length) found.push({ data: this.#data.join("\n"), id: this.#id });
        [this.#data, this.#id] = [[], ""];
        continue;
      }
      const colon = line.indexOf(":");
      const value = line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
      if (line.startsWith("data:")) this.#data.push(value);
      else if (line.startsWith("id:")) this.#id = value;
    }
    return found;
  }
}

/**
 * Whether a topic is meant by a name: itself, or a pattern in which `*` is one segment and a last `>` one or more.
 * @param {string} name
 * @param {string} topic
 */
export function matches(name, topic) {
  if (name === topic || name === ">") return true;
  if (!name.includes("*") && !name.endsWith(">")) return false;
  const [wanted, found] = [name.split("."), topic.split(".")];
  const open = wanted[wanted.length - 1] === ">";
  if (open ? found.length < wanted.length : found.length !== wanted.length) return false;
  return wanted.every((part, nth) => part === "*" || part === found[nth] || (open && nth === wanted.length - 1));
}

/**
 * What `from` says, as a map or as an object's own fields.
 * @param {SubscriptionOptions["from"]} from
 * @returns {Iterable<[string, [string, number]]>}
 */
function points(from) {
  return from instanceof Map ? from : typeof from === "string" ? [] : Object.entries(from ?? {});
}

/** When a server wants one back, in milliseconds: between two of them, or before one. @param {any} window @returns {[number, number] | undefined} */
function windowOf(window) {
  const [first, last] = Array.isArray(window) ? window : [0, window];
  return Number.isFinite(first) && Number.isFinite(last) ? [first, last] : undefined;
}

/** What a message consists of, as far as one has to know to find a field: names and other strings, and brackets. */
const TOKENS = /"(?:[^"\\]|\\.)*"(\s*:)?|[[\]{}]/g;

/** A publication as nearly all are written. Those that have other fields, or others' order, are taken apart the long way. */
const PUBLICATION = /^\{"type":"(update|snapshot)","topic":"([^"\\]+)",(?:"epoch":"([^"\\]+)",)?"seq":(\d+),"ts":(\d+),"data":/;

/** A publication that is written so, at less than it costs to look for its payload beside what JSON.parse makes of the whole. @param {string} text */
function publication(text) {
  const found = PUBLICATION.exec(text);
  if (!found || !text.endsWith("}")) return undefined;
  const [head, type, topic, epoch, seq, ts] = found;
  const json = text.slice(head.length, -1).trim();
  let data;
  try {
    data = JSON.parse(json);
  } catch {
    return undefined; // Something is behind it.
  }
  return epoch === undefined ? { type, topic, seq: Number(seq), ts: Number(ts), data, json } : { type, topic, epoch, seq: Number(seq), ts: Number(ts), data, json };
}

/**
 * A publication with its payload's own text, which is the rest of the message: `data` is the last field.
 * @param {string} text
 * @param {Update} message
 */
function published(text, message) {
  if (!("data" in message)) return message;
  let depth = 0;
  TOKENS.lastIndex = 0;
  for (let found; (found = TOKENS.exec(text)); ) {
    const [token, isName] = found;
    if (isName && depth === 1 && token.startsWith('"data"')) break;
    if (token === "{" || token === "[") depth += 1;
    else if (token === "}" || token === "]") depth -= 1;
  }
  message.json = text.slice(TOKENS.lastIndex, text.lastIndexOf("}")).trim();
  return message;
}

/** The texts of the messages in a poll's answer: what its one list holds. @param {string} text */
function messagesIn(text) {
  const found = [];
  let depth = 0;
  let begin = 0;
  TOKENS.lastIndex = 0;
  for (let token; (token = TOKENS.exec(text)); ) {
    const [bracket] = token;
    if ((bracket === "{" || bracket === "[") && (depth += 1) === 3) begin = token.index;
    if ((bracket === "}" || bracket === "]") && (depth -= 1) === 2) found.push(text.slice(begin, TOKENS.lastIndex));
  }
  return found;
}

/**
 * Names in commands of at most so many bytes; names are ASCII.
 * @param {string[]} names
 * @param {Points} resumed
 * @param {number} bytesMax
 */
function split(names, resumed, bytesMax) {
  /** @type {{topics: string[], from: Points}[]} */
  const parts = [];
  let room = 0;
  for (const name of names) {
    const from = resumed.get(name);
    const bytes = name.length + 3 + (from ? name.length + from[0].length + 30 : 0);
    if (bytes > room) {
      parts.push({ topics: [], from: new Map() });
      room = bytesMax;
    }
    const part = parts[parts.length - 1];
    part.topics.push(name);
    if (from) part.from.set(name, from);
    room -= bytes;
  }
  return parts;
}

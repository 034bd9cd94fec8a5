/**
 * A client of the Stentor protocol, for browsers and Node: one file, no dependency.
 *
 *     import { Stentor } from "/stentor.js";
 *     const client = new Stentor("ws://127.0.0.1:9001/ws");
 *     client.subscribe("q.demo.*", { mode: "latest", rate: 4, onUpdate: ({ topic, data }) => console.log(topic, data) });
 *     await client.opened();
 *     await client.publish("news", { headline: "hello" });
 *
 * It stays connected: after a loss it comes back after a random and growing delay, subscribes again, and goes on where each
 * topic was left, or says what is missing. It keeps one small record for each topic seen, up to `topicsMax`. What it does in
 * which case is in docs/javascript.md.
 */

/** @typedef {"all" | "latest"} Mode */
/**
 * A publication: `json` is the text that was published, digit by digit; `data` is what JSON.parse makes of it, whose numbers are doubles.
 * A last value has an epoch, and so has a topic's first publication.
 * @typedef {{type?: "update" | "snapshot", topic: string, seq: number, ts: number, epoch?: string, data?: any, json?: string, base64?: string}} Update
 */
/** @typedef {{topic: string, seq: number, epoch?: string}} Mark where a topic stands */
/** @typedef {Map<string, [string, number]>} Points for some topics, an epoch and a seq. A map: a topic may be called `__proto__` */
/** @typedef {{topic: string, from: number, to: number, why: string, epoch?: string}} Skip publications `from` to `to` are not coming */
/** @typedef {{topic: string, epoch?: string, seq: number, why: string}} Reset numbering, or history, begins anew behind `seq` */
/** @typedef {{topic: string, mode: Mode, rate?: number, epoch?: string, seq?: number}} Taken a name as the server took it */
/**
 * @typedef {object} SubscriptionOptions
 * @property {Mode} [mode] "all" (the default) is every publication; "latest" the newest value of each topic
 * @property {number} [rate] with "latest": at most so many updates a second of each topic
 * @property {boolean} [snapshot] whether to begin with the last values; true by default
 * @property {Record<string, [string, number]> | Points} [from] with "all": for some topics, the epoch and seq behind which to begin
 * @property {(update: Update) => void} [onUpdate] a publication
 * @property {(update: Update) => void} [onSnapshot] a topic's last value; `onUpdate` gets it where this is left out
 * @property {(skip: Skip) => void} [onSkip] publications were left out
 * @property {(reset: Reset) => void} [onReset] a topic can't be continued where it was left
 * @property {(topics: Taken[]) => void} [onAck] the server took the subscription, at first, after a change, and after coming back
 * @property {(error: StentorError) => void} [onError] it refused; the client's `onError` hears of it where this is left out
 */
/**
 * @typedef {object} Options
 * @property {string} [token] what the server wants to see before one may publish
 * @property {(state: State, detail: Detail) => void} [onState] the connection's state changed
 * @property {(error: StentorError) => void} [onError] an error that belongs to no subscription and no call
 * @property {number} [topicsMax] topics whose place is remembered; further ones come without resume. 20,000 by default
 * @property {number} [publishesMax] publications that may wait for their answer; 1,000 by default
 * @property {[number, number]} [backoffMs] first and last bound of the random delay before coming back; [500, 15000]
 * @property {number} [patienceMs] how long the server's greeting may take; 10,000
 * @property {any} [WebSocket] a constructor like the browser's, where there is none, or for tests
 */
/** @typedef {"connecting" | "open" | "waiting" | "refused" | "closed"} State */
/** @typedef {{code?: number, why?: string, retryMs?: number, hello?: any}} Detail */
/** @typedef {{subscriptions: Subscription[], seq?: number, epoch?: string, from: "here" | "before", again?: {to: number, one: Subscription}}} Place */
/** @typedef {{ok: (answer: any) => void, fail: (error: StentorError) => void, publishes: boolean}} Asked */

/** What the server, or this client, refused. `code` is for programs and stays the same. */
export class StentorError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {Partial<Skip>} [what]
   */
  constructor(code, message, what) {
    super(message);
    this.name = "StentorError";
    this.code = code;
    Object.assign(this, what);
  }
}

/** A connection of this long was a good one: the next loss begins with short delays again. */
const GOOD_AFTER_MS = 10_000;

/** Bytes left for the rest of a command that carries many names. */
const COMMAND_BYTES = 256;

/** The state of a WebSocket that takes what is sent. */
const OPEN = 1;

/** What a server that says nothing else allows: names of one connection, bytes of one message. */
const LIMITS = { topics: 1024, message: 65_536 };

/** Some names for one subscription, and what to do with what comes. */
export class Subscription {
  /** What the server last agreed to; undefined until it did. @type {{mode: Mode, rate?: number} | undefined} */
  agreed;
  /** Whether all topics that there were have been heard of: those that are not known are new. */
  knowsAll = false;
  /** Every publication was to come, and the connection was lost: what came into being meanwhile is missing. */
  misses = false;
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
    this.#act = act;
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
  /** The server's greeting. @type {any} */
  hello = null;
  /** Milliseconds between a ping and its answer. @type {number | undefined} */
  roundTripMs;

  /** @type {Options} */ #options;
  #url;
  /** @type {any} */ #socket = null;
  /** @type {Set<Subscription>} */ #subscriptions = new Set();
  /** Where each topic stands. @type {Map<string, Place>} */ #places = new Map();
  /** Commands without an answer yet. @type {Map<number, Asked>} */ #asked = new Map();
  #asking = 0;
  /** Whose snapshots are coming. @type {Subscription | undefined} */ #acked;
  /** The same, until they have come: then comes something else. @type {Subscription | undefined} */ #coming;
  /** Whether what they show for the first time came into being while the connection was lost. */
  #wasAway = false;
  /** There were more topics than are remembered: one that isn't known may be old. */
  #hasForgotten = false;
  #publishing = 0;
  #failures = 0;
  #greetedAt = 0;
  #heardAt = 0;
  /** @type {any} */ #timer;
  /** @type {any} */ #watch;
  /** @type {[number, number] | undefined} */ #window;
  /** @type {Set<{resolve: () => void, reject: (error: StentorError) => void}>} */ #hopes = new Set();

  /**
   * Connects, and goes on doing so until {@link close}.
   * @param {string | URL} url such as `ws://127.0.0.1:9001/ws`
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    this.#url = String(url).replace(/^http/, "ws");
    this.#options = { topicsMax: 20_000, publishesMax: 1000, backoffMs: [500, 15_000], patienceMs: 10_000, ...options };
    this.#connect();
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
    return this.#promise({ op: "pub", topic }, `,"data":${json}`);
  }

  /**
   * Shows a token, now and after every loss; none, to go on without. Where a wrong one ended the connection, this connects
   * again.
   * @param {string | undefined} token
   * @returns {Promise<any>}
   */
  authenticate(token) {
    this.#options.token = token;
    if (this.state === "open") return token === undefined ? Promise.resolve() : this.#promise({ op: "auth", token });
    this.reconnect();
    return this.opened();
  }

  /**
   * Where a topic stands: what `from` takes, in another program's life. Undefined until its epoch is known.
   * @param {string} topic
   * @returns {[string, number] | undefined}
   */
  place(topic) {
    const { epoch, seq } = this.#places.get(topic) ?? {};
    return epoch === undefined || seq === undefined ? undefined : [epoch, seq];
  }

  /** What the server says we are subscribed to. @returns {Promise<Taken[]>} */
  list() {
    return this.#promise({ op: "list" }).then((answer) => answer.topics);
  }

  /** Milliseconds to the server and back. @returns {Promise<number>} */
  async ping() {
    const began = performance.now();
    await this.#promise({ op: "ping" });
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
    this.#connect();
  }

  /** Says goodbye, and stays away. */
  close() {
    if (this.state === "closed") return;
    const socket = this.#socket;
    this.#leave();
    if (socket) socket.close(1000);
    this.#subscriptions.clear();
    this.#places.clear();
    this.#say("closed", { code: 1000 });
    this.#disappoint(new StentorError("closed", "this client was closed"));
  }

  // ---- The connection --------------------------------------------------------------------------------------------------

  #connect() {
    clearTimeout(this.#timer);
    const Socket = this.#options.WebSocket ?? globalThis.WebSocket;
    if (!Socket) throw new StentorError("no_websocket", "there is no WebSocket here: pass one as options.WebSocket");
    const socket = new Socket(this.#url, "stentor.v1.json");
    this.#socket = socket;
    this.hello = null;
    this.#say("connecting", {});
    // From a socket that was given up nothing more is heard: some take minutes until they notice that they are closed.
    const current = () => this.#socket === socket;
    socket.onmessage = (/** @type {any} */ event) => current() && this.#read(event.data);
    socket.onclose = (/** @type {any} */ event) => current() && this.#lost(event.code, event.reason);
    // A close follows, except that Node's own WebSocket says nothing more when it could not connect.
    socket.onerror = () => current() && !this.hello && this.#lost(1006, "");
    this.#timer = setTimeout(() => current() && this.#giveUp("the server did not greet"), this.#options.patienceMs);
  }

  /** @param {any} text */
  #read(text) {
    this.#heardAt = performance.now();
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return this.#giveUp("the server sent what is not JSON");
    }
    if (this.#coming && message.type !== "snapshot" && message.why !== "too_large") {
      this.#coming.knowsAll = true;
      this.#coming = undefined;
    }
    switch (message.type) {
      case "update":
        return this.#update(published(text, message));
      case "snapshot":
        return this.#snapshot(published(text, message));
      case "ack":
      case "pong":
      case "subscriptions":
        return this.#settle(message.id, (asked) => asked.ok(message));
      case "error": {
        const error = new StentorError(message.code, message.message);
        if (!this.#settle(message.id, (asked) => asked.fail(error))) this.#tell(this.#options.onError, error);
        return;
      }
      case "skip":
        return this.#skip(message);
      case "reset":
        return this.#reset(message);
      case "hello":
        return this.#greet(message);
      case "status":
        if (message.code === "draining") this.#window = message.retry_ms;
    }
  }

  /** @param {any} hello */
  #greet(hello) {
    clearTimeout(this.#timer);
    this.hello = hello;
    this.#greetedAt = performance.now();
    const silenceMs = hello.heartbeat * 2000;
    if (silenceMs > 0) this.#watch = setInterval(() => this.#listen(silenceMs), silenceMs / 8);
    if (this.#options.token !== undefined) {
      const fail = (/** @type {StentorError} */ error) => this.#tell(this.#options.onError, error);
      this.#ask({ op: "auth", token: this.#options.token }, "", { ok: () => {}, fail, publishes: false });
    }
    const before = [...this.#subscriptions];
    this.#say("open", { hello });
    for (const one of before) if (this.#subscriptions.has(one)) this.#askFor(one);
    for (const hope of this.#hopes) hope.resolve();
    this.#hopes.clear();
  }

  /** The watchdog: a server has said something, if only a heartbeat, or it is gone. @param {number} silenceMs */
  #listen(silenceMs) {
    if (performance.now() - this.#heardAt > silenceMs) this.#giveUp(`nothing was heard for ${silenceMs / 1000} s`);
  }

  /** Ends a connection that is of no use, without waiting for anybody's consent. @param {string} why */
  #giveUp(why) {
    const socket = this.#socket;
    this.#lost(1006, why);
    socket.close();
  }

  /** @param {number} code @param {string} why */
  #lost(code, why) {
    const lasted = this.#greetedAt ? performance.now() - this.#greetedAt : 0;
    this.#leave();
    for (const place of this.#places.values()) place.from = "before";
    for (const one of this.#subscriptions) {
      one.misses ||= one.agreed?.mode === "all" && one.knowsAll;
      one.agreed = undefined;
    }
    if (code === 4001) {
      this.#say("refused", { code, why });
      return this.#disappoint(new StentorError("unauthorized", why || "the token is wrong"));
    }
    if (lasted > GOOD_AFTER_MS) this.#failures = 0;
    const retryMs = this.#delay(code);
    this.#failures += 1;
    this.#window = undefined;
    this.#timer = setTimeout(() => this.#connect(), retryMs);
    this.#say("waiting", { code, why, retryMs });
  }

  /** How long to stay away: random, so that many clients don't come back at one moment. @param {number} code */
  #delay(code) {
    const [least, most] = this.#options.backoffMs ?? [500, 15_000];
    if (this.#window) return this.#window[0] + Math.random() * (this.#window[1] - this.#window[0]);
    // We were told that we ask too much, or that there is no room: nothing is gained by asking soon.
    if (code === 4003 || code === 1013) return most / 2 + (Math.random() * most) / 2;
    return Math.random() * Math.min(most, least * 2 ** this.#failures);
  }

  /** Forgets the socket, and what was asked of it. */
  #leave() {
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    this.#socket = null;
    this.#greetedAt = 0;
    this.#acked = this.#coming = undefined;
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    this.#publishing = 0;
    const error = new StentorError("disconnected", "the connection ended before the answer came");
    for (const one of asked) one.fail(error);
  }

  /** @param {StentorError} error */
  #disappoint(error) {
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
    if (asked.publishes) this.#publishing += 1;
    // What is said while the connection closes is lost; a browser complains of it. Its end is told soon.
    if ((this.#socket.readyState ?? OPEN) === OPEN) this.#socket.send(`${JSON.stringify({ ...command, id }).slice(0, -1)}${rest}}`);
  }

  /** @param {any} command @param {string} [rest] @returns {Promise<any>} */
  #promise(command, rest = "") {
    if (this.state !== "open") return Promise.reject(new StentorError("not_connected", "there is no connection now"));
    return new Promise((ok, fail) => this.#ask(command, rest, { ok, fail, publishes: command.op === "pub" }));
  }

  /** @param {number} id @param {(asked: Asked) => void} how */
  #settle(id, how) {
    const asked = this.#asked.get(id);
    if (!asked) return false;
    this.#asked.delete(id);
    if (asked.publishes) this.#publishing -= 1;
    how(asked);
    return true;
  }

  /**
   * Asks for a subscription, from where each of its topics was left. Topics that a pattern brought are named for that, and
   * only until the server has answered. Those whose epoch nobody has told can't be resumed: they are named to hear how much is
   * missing, where no snapshot says it.
   * @param {Subscription} one
   */
  #askFor(one) {
    const limits = { ...LIMITS, ...this.hello.limits };
    const wanted = { mode: one.mode, ...(one.rate !== undefined && { rate: one.rate }) };
    const { resumed, unsure } = this.#left(one, limits.topics);
    for (const [topic, at] of points(one.options.from)) if (!resumed.has(topic)) resumed.set(topic, at);
    const extra = [...resumed.keys(), ...unsure].filter((topic) => !one.names.includes(topic));
    const misses = one.misses && one.mode === "all";
    const parts = split([...extra, ...one.names], resumed, limits.message - COMMAND_BYTES);
    parts.forEach(({ topics, from }, nth) => {
      const command = { op: "sub", topics, ...wanted, ...(one.options.snapshot === false && { snapshot: false }) };
      const isLast = nth === parts.length - 1;
      this.#ask(from.size ? { ...command, from: Object.fromEntries(from) } : command, "", {
        ok: (answer) => this.#taken(one, wanted, from, answer, { isLast, misses, extra: isLast ? extra : [] }),
        fail: (error) => this.#refused(one, error),
        publishes: false,
      });
    });
  }

  /** Where the topics of a subscription were left, and those of which that can't be said; as many as may be named. @param {Subscription} one @param {number} most */
  #left(one, most) {
    /** @type {Points} */
    const resumed = new Map();
    /** @type {string[]} */
    const unsure = [];
    let room = most;
    for (const { names } of this.#subscriptions) room -= names.length;
    for (const [topic, place] of one.mode === "all" ? this.#places : []) {
      if (place.from !== "before" || place.seq === undefined || !place.subscriptions.includes(one)) continue;
      if (place.epoch === undefined) {
        if (one.options.snapshot === false) unsure.push(topic);
      } else if (one.names.includes(topic) || --room >= 0) {
        resumed.set(topic, [place.epoch, place.seq]);
      }
    }
    return { resumed, unsure: unsure.slice(0, Math.max(0, room)) };
  }

  /**
   * @param {Subscription} one
   * @param {{mode: Mode, rate?: number}} wanted
   * @param {Points} from where it was to be resumed
   * @param {any} answer
   * @param {{isLast: boolean, misses: boolean, extra: string[]}} how the last of its answers; whether it comes back from a loss; what
   *   was named to be resumed, and is covered by patterns from now on
   */
  #taken(one, wanted, from, answer, { isLast, misses, extra }) {
    if (!this.#subscriptions.has(one)) return;
    // What came so far may have had holes, if it wasn't mode "all".
    if (one.agreed?.mode !== "all") this.#startAnew(one, from);
    one.agreed = wanted;
    one.options.from = undefined;
    this.#acked = one;
    this.#wasAway = misses;
    one.misses = misses && !isLast;
    if (isLast && one.options.snapshot !== false) this.#coming = one;
    for (const { topic, epoch, seq } of answer.topics ?? []) {
      if (epoch === undefined) continue;
      const place = this.#place(topic);
      const at = from.get(topic);
      if (at) {
        // Goes on from where we said, or with a reset. What others had of it is for this subscription only.
        const behind = at[0] === epoch ? at[1] : seq;
        if (place.from === "here" && place.seq !== undefined && behind < place.seq) place.again = { to: place.seq, one };
        Object.assign(place, { epoch, seq: behind, from: "here" });
      } else if (place.from === "before" && place.epoch === undefined) {
        this.#rejoin(place, { topic, epoch, seq }, seq);
        Object.assign(place, { epoch, seq });
      } else if (place.from === "before" && place.epoch !== epoch) {
        this.#reset({ topic, epoch, seq, why: "reconnect" });
      } else if (place.from === "here") {
        Object.assign(place, { epoch, seq });
      }
    }
    this.#tell(one.options.onAck, answer.topics ?? []);
    this.#unsubscribe(extra.filter((topic) => ![...this.#subscriptions].some(({ names }) => names.includes(topic))));
  }

  /** @param {string[]} names */
  #unsubscribe(names) {
    const { message } = { ...LIMITS, ...this.hello.limits };
    for (const { topics } of split(names, new Map(), message - COMMAND_BYTES)) {
      this.#ask({ op: "unsub", topics }, "", { ok: () => {}, fail: () => {}, publishes: false });
    }
  }

  /** @param {Subscription} one @param {StentorError} error */
  #refused(one, error) {
    if (error.code === "disconnected" || !this.#subscriptions.has(one)) return;
    if (one.agreed) {
      one.mode = one.agreed.mode;
      one.rate = one.agreed.rate;
    } else {
      this.#end(one); // some of its names may have been taken, if it took several commands
    }
    this.#tell(one.options.onError ?? this.#options.onError, error);
  }

  /** @param {Subscription} one */
  #end(one) {
    if (!this.#subscriptions.delete(one)) return;
    this.#reroute();
    if (this.state === "open") this.#unsubscribe(one.names);
  }

  // ---- Topics ----------------------------------------------------------------------------------------------------------

  /** Who gets a topic, and where it stands. @param {string} topic @returns {Place} */
  #place(topic) {
    const known = this.#places.get(topic);
    if (known) return known;
    /** @type {Place} */
    const place = { subscriptions: [...this.#subscriptions].filter((one) => one.covers(topic)), from: "here" };
    if (this.#places.size < (this.#options.topicsMax ?? 0)) this.#places.set(topic, place);
    else this.#hasForgotten = true;
    return place;
  }

  /** Subscriptions have changed: finds out anew who gets what. */
  #reroute() {
    for (const [topic, place] of this.#places) {
      place.subscriptions = [...this.#subscriptions].filter((one) => one.covers(topic));
      if (!place.subscriptions.length) this.#places.delete(topic);
    }
  }

  /** @param {Subscription} one @param {Points} from */
  #startAnew(one, from) {
    for (const [topic, place] of this.#places) {
      if (place.from === "here" && place.subscriptions.includes(one) && !from.has(topic)) place.seq = undefined;
    }
  }

  /** @param {Place} place */
  #isGapless(place) {
    // Where names overlap, the server delivers the most of what they say.
    return place.subscriptions.some((one) => one.agreed?.mode === "all");
  }

  /**
   * @param {Update | Mark} update
   * @param {(options: SubscriptionOptions) => void} [tell]
   */
  #update(update, tell = (options) => this.#tell(options.onUpdate, update)) {
    const place = this.#place(update.topic);
    if (place.from === "before") this.#rejoin(place, update);
    if (update.epoch !== undefined) place.epoch = update.epoch;
    if (place.seq !== undefined && this.#isGapless(place)) {
      if (update.seq <= place.seq) return; // had before
      if (update.seq > place.seq + 1) return this.#gap(update, place.seq + 1);
    }
    place.seq = update.seq;
    const { again } = place;
    if (again && update.seq <= again.to) return tell(again.one.options);
    // One that the server has not taken yet begins later, though others bring its topics already.
    for (const one of place.subscriptions) if (one.agreed) tell(one.options);
  }

  /**
   * @param {Update | Mark} snapshot
   * @param {(options: SubscriptionOptions) => void} [tell]
   */
  #snapshot(snapshot, tell = (options) => this.#tell(options.onSnapshot ?? options.onUpdate, snapshot)) {
    const isNew = !this.#places.has(snapshot.topic);
    const place = this.#place(snapshot.topic);
    if (place.from === "before") this.#rejoin(place, snapshot);
    else if (isNew && this.#wasAway && !this.#hasForgotten) this.#missed(place, snapshot);
    if (place.seq === undefined || place.seq < snapshot.seq || place.epoch !== snapshot.epoch) place.seq = snapshot.seq;
    place.epoch = snapshot.epoch;
    const mine = place.subscriptions.filter((one) => one === this.#acked);
    for (const one of mine.length ? mine : place.subscriptions) {
      if (one.agreed) tell(one.options);
    }
  }

  /** A topic that came into being during a loss: says what went before its last value. @param {Place} place @param {Mark} snapshot */
  #missed(place, { topic, seq }) {
    if (seq < 2) return;
    const skip = { topic, from: 1, to: seq - 1, why: "reconnect" };
    for (const one of place.subscriptions) if (one === this.#acked || one.misses) this.#tell(one.options.onSkip, skip);
  }

  /**
   * A topic goes on after a loss, though not where it was left: says what is missing.
   * @param {Place} place
   * @param {Mark} next
   * @param {number} [to] the last that is missing
   */
  #rejoin(place, next, to = next.seq - 1) {
    Object.assign(place, { from: "here", again: undefined });
    const { seq, epoch } = place;
    place.seq = undefined;
    if (seq === undefined) return;
    const goesOn = next.seq >= seq && (next.epoch === undefined || epoch === undefined || next.epoch === epoch);
    if (!goesOn) {
      const reset = { topic: next.topic, epoch: next.epoch, seq: next.seq, why: "reconnect" };
      for (const one of place.subscriptions) this.#tell(one.options.onReset, reset);
    } else if (to > seq && this.#isGapless(place)) {
      const skip = { topic: next.topic, from: seq + 1, to, why: "reconnect" };
      for (const one of place.subscriptions) this.#tell(one.options.onSkip, skip);
    }
  }

  /** @param {Skip} skip */
  #skip(skip) {
    if (skip.why === "too_large") {
      // It stands in the place of an update; or of a snapshot, which says the epoch, as a topic's first publication does.
      const mark = { topic: skip.topic, seq: skip.to, epoch: skip.epoch };
      const tell = (/** @type {SubscriptionOptions} */ options) => this.#tell(options.onSkip, skip);
      const known = this.#places.get(skip.topic);
      const isFirst = skip.to === 1 && (!known || (known.from === "here" && known.seq === 0));
      return skip.epoch === undefined || isFirst ? this.#update(mark, tell) : this.#snapshot(mark, tell);
    }
    const place = this.#place(skip.topic);
    place.seq = skip.to;
    for (const one of place.subscriptions) if (one.agreed) this.#tell(one.options.onSkip, skip);
  }

  /** @param {Reset} reset */
  #reset(reset) {
    const place = this.#place(reset.topic);
    Object.assign(place, { epoch: reset.epoch, seq: reset.seq, from: "here", again: undefined });
    for (const one of place.subscriptions) this.#tell(one.options.onReset, reset);
  }

  /** What must not happen: something is missing in between. Comes back for it. @param {Mark} update @param {number} from */
  #gap(update, from) {
    const what = { topic: update.topic, from, to: update.seq - 1 };
    const error = new StentorError("gap", `${what.topic}: ${from} to ${what.to} did not arrive; subscribing again`, what);
    for (const one of this.#place(update.topic).subscriptions) {
      this.#tell(one.options.onError ?? this.#options.onError, error);
    }
    if (this.#socket) this.#giveUp("a gap");
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
  return from instanceof Map ? from : Object.entries(from ?? {});
}

/** What a message consists of, as far as one has to know to find a field: names and other strings, and brackets. */
const TOKENS = /"(?:[^"\\]|\\.)*"(\s*:)?|[[\]{}]/g;

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

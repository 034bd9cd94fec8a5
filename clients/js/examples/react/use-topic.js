// A hook for React: the newest value of a topic, drawn at most once a frame however often it comes.
//
//     const quote = useTopic(client, "q.demo.DUP");          // {topic, seq, ts, data, …}, or undefined before there is one
//     const quotes = useTopics(client, "q.demo.*");           // a Map from topics to such
//
// Components that want the same name share one subscription, which ends with the last of them.
import { useCallback, useSyncExternalStore } from "react";

/** @typedef {import("stentor-client").Stentor} Stentor */
/** @typedef {import("stentor-client").Update} Update */

/** Of each client the names that are shown. @type {WeakMap<Stentor, Map<string, Shown>>} */
const clients = new WeakMap();

/** A name that is shown, and who is told. */
class Shown {
  /** A new one for each frame in which something came. @type {Map<string, Update>} */
  values = new Map();
  /** @type {Map<string, Update | undefined>} */ #news = new Map();
  /** @type {Set<() => void>} */ #told = new Set();
  /** @type {import("stentor-client").Subscription | undefined} */ #subscription;
  #frame = 0;
  #client;
  #name;
  #options;

  /** @param {Stentor} client @param {string} name @param {{rate?: number}} options */
  constructor(client, name, options) {
    this.#client = client;
    this.#name = name;
    this.#options = options;
  }

  /** @param {() => void} tell */
  show(tell) {
    this.#told.add(tell);
    this.#subscription ??= this.#client.subscribe(this.#name, {
      ...this.#options,
      mode: "latest",
      onUpdate: (update) => this.#came(update.topic, update),
      onReset: ({ topic }) => this.#came(topic, undefined),
    });
    return () => {
      this.#told.delete(tell);
      if (this.#told.size) return;
      this.#subscription?.unsubscribe();
      this.#subscription = undefined;
      cancelAnimationFrame(this.#frame);
      this.#frame = 0;
      this.#news.clear();
      this.values = new Map();
    };
  }

  /** @param {string} topic @param {Update | undefined} update */
  #came(topic, update) {
    this.#news.set(topic, update);
    // A page that isn't looked at has no frames: what came stays one value for each topic.
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      const values = new Map(this.values);
      for (const [topic, update] of this.#news) {
        if (update) values.set(topic, update);
        else values.delete(topic);
      }
      this.#news.clear();
      this.values = values;
      for (const tell of this.#told) tell();
    });
  }
}

/** @param {Stentor} client @param {string} name @param {{rate?: number}} options */
function shown(client, name, options) {
  const names = clients.get(client) ?? new Map();
  clients.set(client, names);
  const one = names.get(name) ?? new Shown(client, name, options);
  names.set(name, one);
  return one;
}

/**
 * The newest values of all topics that a name stands for.
 * @param {Stentor} client
 * @param {string} name a topic or a pattern
 * @param {{rate?: number}} [options] of who shows this name first
 * @returns {Map<string, Update>}
 */
export function useTopics(client, name, options = {}) {
  const one = shown(client, name, options);
  const subscribe = useCallback((/** @type {() => void} */ tell) => one.show(tell), [one]);
  return useSyncExternalStore(subscribe, () => one.values);
}

/**
 * The newest value of a topic.
 * @param {Stentor} client
 * @param {string} topic
 * @param {{rate?: number}} [options]
 * @returns {Update | undefined}
 */
export function useTopic(client, topic, options = {}) {
  return useTopics(client, topic, options).get(topic);
}

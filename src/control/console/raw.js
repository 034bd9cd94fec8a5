/**
 * A payload's own text, taken apart without touching its digits: `JSON.parse` makes doubles of numbers, and 100.10, 1e400 and
 * 8389766145050669870 are none. What is shown is what was published.
 */

/** Characters looked at for one row: a payload may have megabytes, and a frame has no time for them. */
const LOOK_MAX = 20_000;

/** Strings, whole, and what else has a meaning of its own. */
const TOKENS = /"(?:[^"\\]|\\.)*"|[^\s"[\]{},:]+|[[\]{},:]/g;

/**
 * The fields of an object, or the items of an array by their numbers, each with its own text: as many as are asked for, and none
 * that lies beyond the first {@link LOOK_MAX} characters. What is neither has none.
 * @param {string} json
 * @param {number} most
 * @returns {{fields: [string, string][], isWhole: boolean}}
 */
export function parts(json, most = Infinity, look = LOOK_MAX) {
  /** @type {[string, string][]} */
  const fields = [];
  const text = json.length > look ? json.slice(0, look) : json;
  const open = /^\s*[[{]/.exec(text)?.[0].at(-1);
  if (!open) return { fields, isWhole: true };
  let [depth, begin, key] = [0, -1, ""];
  TOKENS.lastIndex = 0;
  for (let found; (found = TOKENS.exec(text)); ) {
    const [token] = found;
    const isEnd = token === "}" || token === "]";
    if (isEnd) depth -= 1;
    const isPart = depth === 0 ? isEnd : depth === 1 && token === ",";
    if (isPart && begin >= 0) {
      fields.push([open === "[" ? String(fields.length) : key, text.slice(begin, found.index).trimEnd()]);
      begin = -1;
      if (fields.length >= most) return { fields, isWhole: isEnd };
    } else if (depth === 1 && begin < 0 && !isEnd && token !== ",") {
      if (open === "[") begin = found.index;
      else if (token === ":") begin = TOKENS.lastIndex + (/^\s*/.exec(text.slice(TOKENS.lastIndex, TOKENS.lastIndex + 40))?.[0].length ?? 0);
      else key = JSON.parse(token);
    }
    if (token === "{" || token === "[") depth += 1;
    if (isEnd && depth === 0) return { fields, isWhole: true };
  }
  return { fields, isWhole: false };
}

/** The text of what lies at the end of a path of keys; that of none is the payload itself. @param {string} json @param {string[]} path @returns {string | undefined} */
export function at(json, [key, ...rest]) {
  if (key === undefined) return json;
  // As JSON.parse has it: of fields of one name the last.
  const own = parts(json, Infinity, Infinity).fields.findLast(([name]) => name === key);
  return own && at(own[1], rest);
}

/**
 * A path as it is shown: `bid`, `book.bid`, `levels.0`. What could be taken for several keys, or for none, is in quotes, so that two
 * paths never look alike.
 * @param {string[]} path
 */
export function shownPath(path) {
  return path.map((key) => (/^[^."]+$/.test(key) ? key : JSON.stringify(key))).join(".");
}

/** Whether a value's text is a number. @param {string} text */
export function isNumber(text) {
  return /^-?\d/.test(text);
}

/** A value as it is shown: text without its quotes, all else as it was published. @param {string} text */
export function shown(text) {
  return text.startsWith('"') ? JSON.parse(text) : text;
}

/** Figures as people read them: three digits and a unit. */

const THOUSANDS = ["", " k", " M", " G"];
const BYTES = ["B", "KiB", "MiB", "GiB", "TiB"];

/** @param {number} value */
export function count(value) {
  if (value < 9999.5) return digits(value).replace(/\.0$/, "");
  let nth = 0;
  for (; value >= 999.5 && nth < THOUSANDS.length - 1; nth += 1) value /= 1000;
  return digits(value) + THOUSANDS[nth];
}

/** So many of something, which is called `one` where there is one. @param {number} value @param {string} one */
export function counted(value, one) {
  return `${count(value)} ${named(value, one)}`;
}

/** Only what they are called. @param {number} value @param {string} one */
export function named(value, one) {
  return count(value) === "1" ? one : `${one}s`;
}

/** @param {number} value */
export function bytes(value) {
  let nth = 0;
  for (; value >= 1023.5 && nth < BYTES.length - 1; nth += 1) value /= 1024;
  return `${nth ? digits(value) : Math.round(value)} ${BYTES[nth]}`;
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds < 1e-3) return `${digits(seconds * 1e6)} µs`;
  if (seconds < 1) return `${digits(seconds * 1e3)} ms`;
  if (seconds < 120) return `${digits(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** @param {number} value */
function digits(value) {
  if (value === 0 || value >= 99.95) return value.toFixed(0);
  return value.toFixed(value >= 9.995 ? 1 : 2).replace(/(\.\d)0$/, "$1");
}

/** The time of day of a `ts`, in microseconds since the Unix epoch. @param {number} ts */
export function clock(ts) {
  const date = new Date(ts / 1000);
  return `${date.toLocaleTimeString([], { hour12: false })}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** As much of a text as fits, with a mark where some was left out: the beginning of a number would be another one. @param {string} text @param {number} most @param {(text: string) => number} width */
export function fitting(text, most, width) {
  if (width(text) <= most) return text;
  let [fits, tooLong] = [0, text.length];
  while (tooLong - fits > 1) {
    const half = (fits + tooLong) >> 1;
    if (width(`${text.slice(0, half)}…`) <= most) fits = half;
    else tooLong = half;
  }
  return `${text.slice(0, fits)}…`;
}

/** The decimals that a number is written with. @param {number} value */
export function decimals(value) {
  const text = String(value);
  const dot = text.indexOf(".");
  return dot < 0 || text.includes("e") ? 0 : text.length - dot - 1;
}

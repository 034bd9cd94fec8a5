/**
 * The box to publish from. It publishes over HTTP: who shows a wrong token on a WebSocket is closed, and somebody who only watches has
 * no use for one.
 */

/** @param {(id: string) => any} at */
export function publishing(at) {
  at("publish").addEventListener("submit", async (/** @type {Event} */ event) => {
    event.preventDefault();
    const said = at("published");
    const [topic, text] = [at("to").value.trim(), at("data").value.trim()];
    const wrong = wrongDots(topic);
    if (wrong) {
      said.textContent = `Not published: Not a topic: ${wrong}.`;
      return at("to").focus();
    }
    try {
      JSON.parse(text);
    } catch (error) {
      said.textContent = `The message is not JSON: ${/** @type {Error} */ (error).message}`;
      return at("data").focus();
    }
    said.textContent = "";
    try {
      said.textContent = await publish(topic, text, at("token").value);
    } catch (error) {
      said.textContent = `Perhaps not published: ${/** @type {Error} */ (error).message}`;
    }
  });
}

/**
 * What is wrong with a name's dots, in the server's words. In an address, `.` and `..` are taken for the way to another page, before anything
 * is sent; all else about names the server says by itself.
 * @param {string} topic
 */
export function wrongDots(topic) {
  if (!topic) return "a name must have at least one character, found none";
  const at = topic.split(".").indexOf("");
  const before = topic.split(".").slice(0, Math.max(0, at)).join(".");
  return at < 0 ? "" : `an empty segment at byte ${before.length + (at ? 1 : 0)}: dots stand between segments, one at a time`;
}

/** What came of it, in a sentence. @param {string} topic @param {string} json @param {string} token */
async function publish(topic, json, token) {
  /** @type {Record<string, string>} */
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const url = `publish/${encodeURIComponent(topic)}`;
  const answer = await fetch(url, { method: "POST", body: json, headers, signal: AbortSignal.timeout(10_000) });
  const said = await answer.text();
  if (!answer.ok) return `Not published: ${said.trim()}`;
  const taken = JSON.parse(said);
  return `Published: message ${taken.seq} of ${taken.topic}.`;
}

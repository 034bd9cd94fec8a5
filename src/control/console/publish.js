/** The box to publish from. */

/** @param {(id: string) => any} at @param {import("./stentor.js").Stentor} client */
export function publishing(at, client) {
  let shown = "";
  at("publish").addEventListener("submit", async (/** @type {Event} */ event) => {
    event.preventDefault();
    const said = at("published");
    const text = at("data").value.trim();
    try {
      JSON.parse(text);
    } catch (error) {
      said.textContent = `The message is not JSON: ${/** @type {Error} */ (error).message}`;
      return at("data").focus();
    }
    said.textContent = "";
    try {
      const token = at("token").value;
      if (token && token !== shown) await client.authenticate(token);
      shown = token;
      const { topic, seq } = await client.publishJson(at("to").value.trim(), text);
      said.textContent = `Published: message ${seq} of ${topic}.`;
    } catch (error) {
      const { code, message } = /** @type {import("./stentor.js").StentorError} */ (error);
      said.textContent = `Not published: ${message} (${code})`;
    }
  });
}

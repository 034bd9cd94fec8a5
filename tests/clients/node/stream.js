// Hundreds of publications of one pattern, got by all of its subscribers byte for byte: quotes that are like those before, and some that are too short or too long to be compressed
// with them. So a server that shares streams of compression (`--compression shared`) begins one, and begins it anew several times.
'use strict';

const count = 900;
const atOnce = 30;

// JSON as it is written, not as somebody would write it again.
function quote(n) {
  if (n % 10 === 9) return `{"n": ${n}}`;
  const noise = (length) => Array.from({ length }, (_, at) => String.fromCharCode(48 + ((7919 * at * at + 31 * n * at) % 43))).join('').replaceAll('\\', '-');
  if (n % 50 === 48) return `{"n":${n},"noise":"${noise(7000)}"}`;
  const levels = Array.from({ length: 6 }, (_, at) => `[${100 + (n % 7)}.${(7919 * n * n + at) % 90 + 10},${((n * 37 + at) % 500) + 1}00]`);
  return `{"n":${n},"venue":"XNAS","text":"grüße","bids":[${levels}], "asks":[${levels.reverse()}],"last":1.50}`;
}

async function next(client, type) {
  for (;;) {
    const text = await client.next();
    if (text.startsWith('{"type":"error"')) throw new Error(text);
    if (text.startsWith(`{"type":"${type}"`)) return text;
  }
}

// Clients have a name, send(text) and next(), a promise of a message; they are connected to /ws. Returns how many messages each got.
async function stream(subscribers, publisher, topic) {
  for (const client of subscribers) client.send(JSON.stringify({ op: 'sub', id: 1, topics: [`${topic}.*`] }));
  for (const client of subscribers) await next(client, 'ack');
  for (let first = 0; first < count; first += atOnce) {
    const round = Array.from({ length: atOnce }, (_, at) => [`${topic}.${(first + at) % 5}`, quote(first + at)]);
    for (const [name, data] of round) publisher.send(`{"op":"pub","topic":"${name}","data":${data}}`);
    for (const client of subscribers) {
      for (const [name, data] of round) {
        const got = await next(client, 'update');
        if (!got.startsWith(`{"type":"update","topic":"${name}",`) || !got.endsWith(`,"data":${data}}`)) {
          throw new Error(`${client.name} got ${got.slice(0, 300)} for ${data.slice(0, 80)}`);
        }
      }
    }
  }
  return count;
}

module.exports = { stream };

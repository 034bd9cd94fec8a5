// Texts that get much shorter, hardly shorter, and not at all, sent by each of some clients of one topic, and got by all.
'use strict';

const texts = (name) => [
  `${name}, short`,
  `${name}: {"bid":189.21,"ask":189.23,"venue":"XNAS"} grüße `.repeat(20),
  Array.from({ length: 3000 }, (_, n) => String.fromCharCode(33 + ((7919 * n * n + name.length) % 90))).join(''),
];

// Clients have a name, send(text) and next(), a promise of a message. Returns how many each got.
async function exchange(clients) {
  let count = 0;
  for (const [n, publisher] of clients.entries()) {
    for (const text of texts(publisher.name ?? `client ${n}`)) {
      publisher.send(text);
      count += 1;
      for (const client of clients) {
        const got = await client.next();
        if (got !== text) throw new Error(`${client.name} got ${got.slice(0, 80)} of ${publisher.name}`);
      }
    }
  }
  return count;
}

module.exports = { exchange };

// The conversation of ../README.md, over a function that opens a socket: `open(path, protocol)` gives a promise of
// { send(text or Buffer), next(): promise of a message, ping?(): promise of the pong, close(code), closed: promise of the code }.
'use strict';
const assert = require('node:assert/strict');

// Messages, as they come or as they are waited for.
class Inbox {
  #messages = [];
  #waiting = null;

  put(message) {
    this.#messages.push(message);
    this.#waiting?.();
  }

  async next() {
    while (this.#messages.length === 0) await new Promise((resolve) => { this.#waiting = resolve; });
    return this.#messages.shift();
  }
}

async function converse(open, topic) {
  const ws = await open('/ws', 'stentor.v1.json');
  const until = async (type) => {
    for (;;) {
      const message = JSON.parse(await ws.next());
      assert.notEqual(message.type, 'error', message.message);
      if (message.type === type) return message;
    }
  };
  const say = (command) => ws.send(JSON.stringify(command));

  assert.equal((await until('hello')).version, 1);
  say({ op: 'sub', id: 1, topics: [topic] });
  assert.equal((await until('ack')).id, 1);
  say({ op: 'pub', topic, data: { bid: 1.5 } });
  assert.deepEqual((await until('update')).data, { bid: 1.5 });

  const raw = await open(`/raw/${topic}`);
  raw.send('grüße');
  assert.equal(await raw.next(), 'grüße');
  assert.equal((await until('update')).data, 'grüße');
  const bytes = Buffer.from([0, 255, 1, 2]);
  raw.send(bytes);
  assert.deepEqual(await raw.next(), bytes);
  assert.equal((await until('update')).base64, bytes.toString('base64'));

  if (ws.ping) await ws.ping();
  say({ op: 'ping', id: 'p' });
  assert.equal((await until('pong')).id, 'p');
  for (let beats = 0; beats < 3; beats++) await until('heartbeat');

  raw.close(1000);
  assert.equal(await raw.closed, 1000);
  ws.send(bytes);
  assert.equal(await ws.closed, 1003);
}

// Runs it, and ends the process with what came of it.
function run(name, open) {
  const topic = `clients.${name}`;
  converse((path, protocol) => open(`ws://${process.argv[2]}${path}`, protocol), topic).then(
    () => process.exit(0),
    (error) => { console.error(error.message); process.exit(1); },
  );
}

module.exports = { Inbox, run };

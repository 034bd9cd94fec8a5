// The conversation of ../README.md, for Node and for a page. `open(url, protocol)` gives a promise of a socket:
// { send(text or bytes), next(): promise of a message, ping?(): promise of the pong, close(code), closed: promise of the code }.
'use strict';

// Messages, as they come or as they are waited for.
class Inbox {
  #messages = [];
  #wake = () => {};

  put(message) {
    this.#messages.push(message);
    this.#wake();
  }

  async next() {
    while (this.#messages.length === 0) await new Promise((resolve) => { this.#wake = resolve; });
    return this.#messages.shift();
  }
}

function expect(found, expected) {
  if (found !== expected) throw new Error(`expected ${expected}, found ${found}`);
}

async function converse(open, base, topic) {
  const ws = await open(`${base}/ws`, 'stentor.v1.json');
  const until = async (type) => {
    for (;;) {
      const message = JSON.parse(await ws.next());
      if (message.type === 'error') throw new Error(message.message);
      if (message.type === type) return message;
    }
  };
  const say = (command) => ws.send(JSON.stringify(command));

  expect((await until('hello')).version, 1);
  say({ op: 'sub', id: 1, topics: [topic] });
  expect((await until('ack')).id, 1);
  say({ op: 'pub', topic, data: { bid: 1.5 } });
  expect((await until('update')).data.bid, 1.5);

  const raw = await open(`${base}/raw/${topic}`);
  raw.send('grüße');
  expect(await raw.next(), 'grüße');
  expect((await until('update')).data, 'grüße');
  const bytes = new Uint8Array([0, 255, 1, 2]);
  raw.send(bytes);
  expect([...await raw.next()].join(), '0,255,1,2');
  expect((await until('update')).base64, 'AP8BAg==');

  if (ws.ping) await ws.ping();
  say({ op: 'ping', id: 'p' });
  expect((await until('pong')).id, 'p');
  for (let beats = 0; beats < 3; beats++) await until('heartbeat');

  raw.close(1000);
  expect(await raw.closed, 1000);
  ws.send(bytes);
  expect(await ws.closed, 1003);
}

// Ends the process with what came of a promise.
function end(promise) {
  promise.then(() => process.exit(0), (error) => {
    console.error(error.message);
    process.exit(1);
  });
}

function run(name, open) {
  end(converse(open, process.argv[2], `clients.${name}`));
}

module.exports = { Inbox, converse, end, run };

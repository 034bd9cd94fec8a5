// npm's `ws` with compression, and every window and parameter that it can offer: all of them, and one without, are subscribers of a
// topic; each publishes on it, compressed, and everybody gets the same. Then they are subscribers of a pattern, on which one publishes.
'use strict';
const WebSocket = require('ws');
const { Inbox } = require('./conversation.js');
const { exchange } = require('./texts.js');
const { stream } = require('./stream.js');

const base = process.argv[2];
const topic = `clients.compression.node.${base.startsWith('wss') ? 'tls' : 'clear'}`;

function* offers() {
  yield [{}, true];
  for (let bits = 9; bits <= 15; bits += 1) {
    yield [{ serverMaxWindowBits: bits, threshold: 0 }, true];
    yield [{ clientMaxWindowBits: bits, threshold: 0 }, true];
  }
  yield [{ serverMaxWindowBits: 8 }, false];
  yield [{ serverNoContextTakeover: true, clientNoContextTakeover: true, threshold: 0 }, true];
  yield [false, false];
}

async function open(url, [perMessageDeflate, isTaken]) {
  const name = JSON.stringify(perMessageDeflate);
  const socket = new WebSocket(url, { perMessageDeflate });
  const inbox = new Inbox();
  socket.on('message', (data) => inbox.put(data.toString()));
  await new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject));
  if ((socket.extensions === 'permessage-deflate') !== isTaken) throw new Error(`${name}: ${socket.extensions}`);
  return { name, socket, send: (text) => socket.send(text), next: () => inbox.next() };
}

async function converse() {
  const openAll = async (url) => {
    const clients = [];
    for (const offer of offers()) clients.push(await open(url, offer));
    return clients;
  };
  const clients = await openAll(`${base}/raw/${topic}`);
  let count = await exchange(clients);
  clients.forEach((client) => client.socket.close());
  const subscribers = await openAll(`${base}/ws`);
  const publisher = await open(`${base}/ws`, [false, false]);
  count += await stream(subscribers, publisher, topic);
  [...subscribers, publisher].forEach((client) => client.socket.close());
  return `${clients.length} clients, ${count} messages each`;
}

console.log(`ws ${require('ws/package.json').version}, compression (Node ${process.versions.node})`);
const patience = setTimeout(() => { throw new Error('it takes too long'); }, 40_000);
converse().then((told) => { console.log(told); clearTimeout(patience); }, (error) => { console.error(error); process.exit(1); });

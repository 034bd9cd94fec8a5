// What clients do that offer compression by themselves, and let no program say how: browsers, and Node. Texts on a topic between some of them, one of which declines it in the
// address; then many publications of a pattern.
'use strict';
const { exchange } = require('./texts.js');
const { stream } = require('./stream.js');

async function compress(open, base, topic) {
  const url = `${base}/raw/${topic}`;
  const clients = [await open(url), await open(`${url}?compress=0`), await open(url)];
  const agreed = clients.map((client) => client.extensions.split(';')[0]).join();
  if (agreed !== 'permessage-deflate,,permessage-deflate') throw new Error(`agreed on ${agreed}`);
  await exchange(clients);
  const publisher = await open(`${base}/ws?compress=0`);
  const subscribers = [await open(`${base}/ws?compress=0`)];
  while (subscribers.length < 10) subscribers.push(await open(`${base}/ws`));
  await stream(subscribers, publisher, topic);
  for (const client of [...clients, ...subscribers, publisher]) client.close(1000);
}

module.exports = { compress };

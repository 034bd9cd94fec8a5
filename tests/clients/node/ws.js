// npm's `ws`.
'use strict';
const WebSocket = require('ws');
const { Inbox, run } = require('./conversation.js');

console.log(`ws ${require('ws/package.json').version} (Node ${process.versions.node})`);
run('ws', async (url, protocol) => {
  const socket = new WebSocket(url, protocol);
  const inbox = new Inbox();
  socket.on('message', (data, binary) => inbox.put(binary ? data : data.toString()));
  const closed = new Promise((resolve) => socket.on('close', resolve));
  await new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject));
  return {
    closed,
    send: (data) => socket.send(data),
    next: () => inbox.next(),
    close: (code) => socket.close(code),
    ping: () => new Promise((resolve) => { socket.once('pong', resolve); socket.ping('?'); }),
  };
});

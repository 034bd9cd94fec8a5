// A socket with the interface that browsers have, and Node's own client.
'use strict';
const { Inbox } = require('./conversation.js');

async function open(url, protocol) {
  const socket = new WebSocket(url, protocol ?? []);
  socket.binaryType = 'arraybuffer';
  const inbox = new Inbox();
  socket.addEventListener('message', ({ data }) => inbox.put(typeof data === 'string' ? data : new Uint8Array(data)));
  const closed = new Promise((resolve) => { socket.addEventListener('close', ({ code }) => resolve(code)); });
  await new Promise((resolve, reject) => {
    socket.addEventListener('open', resolve);
    socket.addEventListener('error', () => reject(new Error(`${url} did not open`)));
  });
  return {
    closed,
    extensions: socket.extensions,
    send: (data) => socket.send(data),
    next: () => inbox.next(),
    close: (code) => socket.close(code),
  };
}

module.exports = { open };

// The WebSocket that Node brings itself: the browsers' interface, which has no pings. Up to Node 21 it needs --experimental-websocket.
'use strict';
const { Inbox, run } = require('./conversation.js');

const flags = process.execArgv.filter((flag) => flag.includes('websocket')).map((flag) => ` ${flag}`).join('');
console.log(`undici ${process.versions.undici}, the built-in client (Node ${process.versions.node}${flags})`);
run('node', async (url, protocol) => {
  const socket = new WebSocket(url, protocol ?? []);
  socket.binaryType = 'arraybuffer';
  const inbox = new Inbox();
  socket.addEventListener('message', ({ data }) => inbox.put(typeof data === 'string' ? data : Buffer.from(data)));
  const closed = new Promise((resolve) => socket.addEventListener('close', ({ code }) => resolve(code)));
  await new Promise((resolve, reject) => {
    socket.addEventListener('open', resolve);
    socket.addEventListener('error', () => reject(new Error('it did not open')));
  });
  return {
    closed,
    send: (data) => socket.send(data),
    next: () => inbox.next(),
    close: (code) => socket.close(code),
  };
});

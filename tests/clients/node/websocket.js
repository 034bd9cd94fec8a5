// npm's `websocket` (WebSocket-Node).
'use strict';
const { client: Client } = require('websocket');
const { Inbox, run } = require('./conversation.js');

console.log(`websocket ${require('websocket/package.json').version} (Node ${process.versions.node})`);
run('websocket', async (url, protocol) => {
  const client = new Client();
  const inbox = new Inbox();
  const connecting = new Promise((resolve, reject) => {
    client.on('connectFailed', reject);
    // Listening begins here and not a turn later: the first message may have come with the handshake's answer.
    client.on('connect', (connection) => {
      connection.on('message', (message) => inbox.put(message.type === 'utf8' ? message.utf8Data : message.binaryData));
      resolve(connection);
    });
  });
  client.connect(url, protocol);
  const connection = await connecting;
  return {
    closed: new Promise((resolve) => connection.on('close', resolve)),
    send: (data) => (typeof data === 'string' ? connection.sendUTF(data) : connection.sendBytes(Buffer.from(data))),
    next: () => inbox.next(),
    close: (code) => connection.close(code),
    ping: () => new Promise((resolve) => { connection.once('pong', resolve); connection.ping('?'); }),
  };
});

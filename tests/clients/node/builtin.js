// The WebSocket that Node brings itself: the browsers' interface, which has no pings. Up to Node 21 it needs --experimental-websocket.
'use strict';
const { run } = require('./conversation.js');
const { open } = require('./standard.js');

const flags = process.execArgv.filter((flag) => flag.includes('websocket')).map((flag) => ` ${flag}`).join('');
console.log(`undici ${process.versions.undici}, the built-in client (Node ${process.versions.node}${flags})`);
run('node', open);

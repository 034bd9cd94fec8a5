// The WebSocket that Node brings itself, which offers compression by itself.
'use strict';
const { end } = require('./conversation.js');
const { compress } = require('./offered.js');
const { open } = require('./standard.js');

const base = process.argv[2];
console.log(`undici ${process.versions.undici}, the built-in client, compression (Node ${process.versions.node})`);
end(compress(open, base, `clients.compression.undici.${base.split(':')[0]}`));

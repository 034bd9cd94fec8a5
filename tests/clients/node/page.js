// What a browser evaluates on the server's page: the conversation, and then texts between a client that offers compression, as browsers do by
// themselves, and one that declines it in the address.
'use strict';
const fs = require('node:fs');
const path = require('node:path');

// The files for Node, with as much of its modules as they use.
function script(topic) {
  const module = (name) => {
    const source = fs.readFileSync(path.join(__dirname, name), 'utf8');
    return `(() => { const module = {}; ${source}; modules['./${name}'] = module.exports; })();`;
  };
  return `(async () => {
    const modules = {};
    const require = (name) => modules[name];
    ${module('conversation.js')}
    ${module('standard.js')}
    ${module('texts.js')}
    const base = location.origin.replace('http', 'ws');
    const { open } = modules['./standard.js'];
    await modules['./conversation.js'].converse(open, base, '${topic}');
    const url = base + '/raw/${topic}.compression';
    const clients = [await open(url), await open(url + '?compress=0'), await open(url)];
    const agreed = clients.map((client) => client.extensions.split(';')[0]).join();
    if (agreed !== 'permessage-deflate,,permessage-deflate') throw new Error('agreed on ' + agreed);
    await modules['./texts.js'].exchange(clients);
  })()`;
}

module.exports = { script };

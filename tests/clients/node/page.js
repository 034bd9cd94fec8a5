// What a browser evaluates on the server's page: the conversation, and then what clients do that offer compression by themselves, as browsers do.
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
    ${module('stream.js')}
    ${module('offered.js')}
    const base = location.origin.replace('http', 'ws');
    const { open } = modules['./standard.js'];
    await modules['./conversation.js'].converse(open, base, '${topic}');
    await modules['./offered.js'].compress(open, base, '${topic}.compression');
  })()`;
}

module.exports = { script };

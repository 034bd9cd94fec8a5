// A headless Firefox, named by the variable FIREFOX: on the server's page it holds the conversation, and has texts compressed, driven by WebDriver
// BiDi. With TLS it takes whatever certificate it is shown.
'use strict';
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');
const WebSocket = require('ws');
const { end } = require('./conversation.js');
const { script } = require('./page.js');

const base = process.argv[2];

// Starts the browser; where BiDi is spoken is among the first things that it says.
async function start(profile) {
  const browser = spawn(process.env.FIREFOX, ['--headless', '--no-remote', '--profile', profile, '--remote-debugging-port', '0', 'about:blank'], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, HOME: profile, MOZ_CRASHREPORTER_DISABLE: '1' },
  });
  const url = await new Promise((resolve, reject) => {
    readline.createInterface(browser.stderr).on('line', (line) => {
      const found = line.match(/^WebDriver BiDi listening on (.*)/);
      if (found) resolve(found[1]);
    });
    browser.on('error', reject).on('exit', () => reject(new Error('the browser ended')));
  });
  return { browser, url };
}

async function drive(url) {
  const socket = new WebSocket(`${url}/session`, { perMessageDeflate: false });
  await new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject));
  const waiting = new Map();
  socket.on('message', (text) => {
    const message = JSON.parse(text);
    waiting.get(message.id)?.(message);
  });
  let asked = 0;
  const ask = async (method, params) => {
    const id = ++asked;
    const answer = new Promise((resolve) => { waiting.set(id, resolve); });
    socket.send(JSON.stringify({ id, method, params }));
    const { type, message, result } = await answer;
    if (type === 'error') throw new Error(`${method}: ${message}`);
    return result;
  };

  const { capabilities } = await ask('session.new', { capabilities: { alwaysMatch: { acceptInsecureCerts: true } } });
  console.log(`Firefox ${capabilities.browserVersion} (headless)`);
  const { context } = await ask('browsingContext.create', { type: 'tab' });
  await ask('browsingContext.navigate', { context, url: `${base.replace('ws', 'http')}/`, wait: 'complete' });
  const { type, exceptionDetails } = await ask('script.evaluate', {
    expression: script(`clients.firefox.${base.split(':')[0]}`), target: { context }, awaitPromise: true,
  });
  if (type !== 'success') throw new Error(exceptionDetails.text);
}

async function main() {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'stentor-firefox-'));
  const { browser, url } = await start(profile);
  try {
    await drive(url);
  } finally {
    const gone = new Promise((resolve) => browser.on('exit', resolve));
    browser.kill();
    await gone;
    // Its helpers may still write for a moment after it has gone; what is left over then is the system's to sweep.
    try {
      fs.rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
    } catch {}
  }
}

end(main());

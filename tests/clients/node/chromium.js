// A headless Chromium, named by the variable CHROMIUM: on the server's page it holds the conversation, and has texts compressed, driven
// through its debugging protocol. With TLS it takes the certificate whose key has the SHA-256 in CHROMIUM_KEY (base64 of its SubjectPublicKeyInfo), and no
// other that it doesn't trust.
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

// Starts the browser; where its debugging protocol is spoken is among the first things that it says.
async function start(profile) {
  const browser = spawn(process.env.CHROMIUM, [
    '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--remote-debugging-port=0', `--user-data-dir=${profile}`,
    `--ignore-certificate-errors-spki-list=${process.env.CHROMIUM_KEY ?? ''}`,
  ], { stdio: ['ignore', 'ignore', 'pipe'] });
  const url = await new Promise((resolve, reject) => {
    readline.createInterface(browser.stderr).on('line', (line) => {
      const found = line.match(/^DevTools listening on (.*)/);
      if (found) resolve(found[1]);
    });
    browser.on('error', reject).on('exit', () => reject(new Error('the browser ended')));
  });
  return { browser, url };
}

async function drive(url) {
  const socket = new WebSocket(url, { perMessageDeflate: false });
  await new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject));
  const waiting = new Map();
  let loaded;
  const load = new Promise((resolve) => { loaded = resolve; });
  socket.on('message', (text) => {
    const message = JSON.parse(text);
    if (message.method === 'Page.loadEventFired') loaded();
    waiting.get(message.id)?.(message);
  });
  let asked = 0;
  const ask = async (method, params = {}, sessionId = undefined) => {
    const id = ++asked;
    const answer = new Promise((resolve) => { waiting.set(id, resolve); });
    socket.send(JSON.stringify({ id, method, params, sessionId }));
    const { error, result } = await answer;
    if (error) throw new Error(`${method}: ${error.message}`);
    return result;
  };

  console.log(`Chromium ${(await ask('Browser.getVersion')).product.split('/')[1]} (headless)`);
  const { targetId } = await ask('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await ask('Target.attachToTarget', { targetId, flatten: true });
  await ask('Page.enable', {}, sessionId);
  await ask('Page.navigate', { url: `${base.replace('ws', 'http')}/` }, sessionId);
  await load;
  const { exceptionDetails } = await ask('Runtime.evaluate', { expression: script(`clients.chromium.${base.split(':')[0]}`), awaitPromise: true }, sessionId);
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
}

async function main() {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'stentor-chromium-'));
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

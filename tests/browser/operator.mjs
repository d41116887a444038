// The status page of an admin listener that wants a key, in a real Chromium: it says why a policy was refused, its links show
// what they lead to, and no address ever has the key in it.

import { strict as assert } from 'node:assert';
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';

const { chromium } = createRequire(`${process.env.TEST_TOOLS}/node/`)('playwright-core');

const { values: options } = parseArgs({ options: {
  url: { type: 'string' },
  key: { type: 'string' },
  job: { type: 'string' },
  reason: { type: 'string' },
} });

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] });
const tab = await browser.newPage();
tab.setDefaultTimeout(120_000);
const addresses = [];
tab.on('request', (request) => addresses.push(request.url()));
tab.on('dialog', (dialog) => dialog.accept(options.key));
await tab.goto(options.url);
await tab.locator('#reasons').filter({ hasText: options.reason }).waitFor();

for (const [name, part] of [[options.job, `"prompt_id": "${options.job}"`], ['metrics', 'comfy_router_']]) {
  await tab.getByRole('link', { name, exact: true }).click();
  const sheet = tab.locator('dialog[open] pre');
  await sheet.filter({ hasText: part }).waitFor();
  await tab.getByRole('button', { name: 'close' }).click();
  await sheet.waitFor({ state: 'hidden' });
}
assert.equal(new URL(tab.url()).pathname, '/', 'it is still the status page');
assert(addresses.every((address) => !address.includes(options.key)), addresses.join('\n'));
await browser.close();
console.log('ok');

// What the Node.js scripts share. Each is called as SCRIPT URL WORKFLOW.json..., runs the workflows, and writes each
// picture that it gets to a file whose name it prints.

import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

/** A package of the test tools. */
export const published = createRequire(`${process.env.TEST_TOOLS}/node/`);

export const [url, ...files] = process.argv.slice(2);
export const workflows = files.map((file) => JSON.parse(readFileSync(file, 'utf8')));

let kept = 0;

export function keep(picture) {
  kept += 1;
  const name = `picture-${kept}.png`;
  writeFileSync(name, Buffer.from(picture));
  console.log(name);
}

export async function keepFrom(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  keep(await answer.arrayBuffer());
}

// The story that the stock page's user goes through, in a real Chromium, against the router at --url:
//
//   TEST_TOOLS=$PWD/target/test-tools node tests/browser/story.mjs --url http://127.0.0.1:7188 --release 1.35.9 \
//       --shots DIR [--workflow FILE] [--instance URL]...
//
// With --instance (two emulated ones) executions are paced and counted. Without, the two instances are real ones, which need
// no model for `workflows/pictures.json`, and the router is fresh: what the story waits to see must last, so its runs are made
// longer, and jobs of an earlier story would be in the lists.
// Each chapter prints a line and leaves screenshots; the first thing that is not as it should be ends it with status 1.

import { strict as assert } from 'node:assert';
import { mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { Instances, RealInstances } from './instances.mjs';
import { PATIENCE_MS, StockPage } from './page.mjs';

const { chromium } = createRequire(`${process.env.TEST_TOOLS}/node/`)('playwright-core');

const { values: options } = parseArgs({ options: {
  url: { type: 'string' },
  release: { type: 'string' },
  shots: { type: 'string' },
  workflow: { type: 'string' },
  instance: { type: 'string', multiple: true },
} });

const QUIET = [
  '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync',
];

/** What the page asks for and does without, on a ComfyUI that nobody has used yet too. */
const MISSING_ON_ANY = [
  /^404 \/user\.css$/, /^404 \/api\/userdata/, /^404 \/templates\//, /^404 \/docs\//, /^404 \/assets\/sorted-custom-node-map\.json$/,
];

/** How long a run of a real instance should take, at least; the machine may become faster than it was when that was seen. */
const RUN_MS = 60_000;

const emulated = options.instance !== undefined;
const workflow = options.workflow
  ?? new URL(`workflows/${emulated ? 'diffusion' : 'pictures'}.json`, import.meta.url).pathname;
const world = emulated ? new Instances(options.instance) : new RealInstances();

/** How many times as long a run takes as the workflow's file has it. */
let length = 1;
/** How many have succeeded. */
let runs = 0;

/** A browser of its own: nothing shared with another but the router. */
async function visitor(browser, name) {
  // The queue panel of 1.27 makes rows only as far as they are to be seen, and real instances have run once more.
  const viewport = { width: 1400, height: emulated ? 860 : 1300 };
  const context = await browser.newContext({ viewport, locale: 'en-US' });
  await context.route((url) => !url.href.startsWith(options.url) && url.protocol.startsWith('http'), (route) => route.abort());
  const page = await StockPage.open(context, options.url, options.release, options.shots);
  page.name = name;
  await page.load(workflow);
  await page.lengthen(length);
  return page;
}

/** Waits until the panel's rows are these, in any order; rows of `ignore` kinds aside. */
async function listed(page, wanted) {
  const count = (rows, kind) => rows.filter((row) => row === kind).length;
  await page.until(`${JSON.stringify(wanted)} in the queue panel`, async () => {
    const rows = await page.panel.rows();
    return Object.entries(wanted).every(([kind, number]) => count(rows, kind) === number);
  });
}

async function ownPicture(page, preview, before) {
  const saved = await page.pictureOn(await page.nodeOf('SaveImage'), before);
  const far = saved.split(',').some((part, at) => Math.abs(part - preview.split(',')[at]) > 4);
  assert(!far, `the saved picture ${saved} is the one of the preview ${preview}`);
  return saved;
}

/** One run, watched: progress, preview, picture. Gives the picture's colour, which is not the one of the run before. */
async function watchedRun(page, before) {
  await world.hold();
  const prompt = await page.run();
  if (emulated) await page.until('an execution at the gate', async () => (await world.held()) === 1);
  await world.steps(7);
  await page.title(emulated ? /\[35%\]/ : /\[[1-9]\d?%\]/);
  const preview = await page.pictureOn(await page.nodeOf('KSampler', 'SaveImageWebsocket'));
  await page.shot('2-progress-and-preview');
  await world.open();
  await page.ended(prompt);
  const saved = await ownPicture(page, preview, before);
  await page.title(/^(?!.*%)/);
  await page.shot('3-picture');
  runs += 1;
  return saved;
}

/** Real ones do not stop at gates: a run must last until all that there is to see of it has been seen. How much longer one must
 * be is found out by a run; gives the colour of its picture. */
async function lengthen(page) {
  if (emulated) return;
  const begun = Date.now();
  await page.ended(await page.run());
  runs += 1;
  length = Math.max(4, RUN_MS / (Date.now() - begun));
  await page.lengthen(length);
  return page.pictureOn(await page.nodeOf('SaveImage'));
}

/** Several jobs: two run, two wait; one that waits and the one that is shown running are cancelled. */
async function queueAndHistory(page) {
  await world.hold();
  const prompts = [];
  for (let at = 0; at < 4; at += 1) prompts.push(await page.run());
  await page.panel.show();
  await listed(page, { running: 2, pending: 2, done: runs });
  await page.shot('4-queue');
  await page.cancelPending();
  await listed(page, { running: 2, pending: 1 });
  await page.cancelCurrent();
  await listed(page, { running: 2, pending: 0, failed: 1 });
  await page.shot('5-queue-after-cancelling');
  if (emulated) {
    await page.until('both executions at their gates', async () => (await world.held()) === 2);
    assert.deepEqual(await world.outcomes(), { success: 1, interrupted: 1, running: 2 });
  }
  await world.open();
  await listed(page, { running: 0, pending: 0, failed: 1, done: runs + 2 });
  await page.shot('6-history');
  await page.panel.hide();
  const ends = prompts.map((prompt) => page.heardOf(prompt).filter((kind) => /success|interrupted|error/.test(kind)).join());
  assert.deepEqual([...ends].sort(), ['', 'execution_interrupted', 'execution_success', 'execution_success']);
}

/** The page is reloaded in mid-run: it finds its job again and sees it end. */
async function reloaded(page, before) {
  await world.hold();
  const prompt = await page.run();
  if (emulated) await page.until('an execution at the gate', async () => (await world.held()) === 1);
  await world.steps(5);
  await page.title(emulated ? /\[25%\]/ : /\[\d+%\]/);
  await page.reload();
  await world.steps(3);
  await page.title(emulated ? /\[40%\]/ : /\[\d+%\]/);
  await page.shot('7-reloaded-in-mid-run');
  await world.open();
  await page.ended(prompt);
  const saved = await page.pictureOn(await page.nodeOf('SaveImage'));
  assert.notEqual(saved, before, 'the picture of this run, not of an earlier one');
  await page.shot('8-ended-after-reload');
}

/** Two browsers run one job each; one cancels its own; the other's is untouched, and neither hears of the other's. */
async function twoBrowsers(first, second) {
  await world.hold();
  const kept = await first.run();
  if (emulated) await first.until('an execution at the gate', async () => (await world.held()) === 1);
  const cancelled = await second.run();
  await second.title(/%\]/);
  await first.panel.show();
  await listed(first, { running: 2 });
  await first.shot('9-first-of-two-browsers');
  await first.panel.hide();
  await second.cancelCurrent();
  await second.ended(cancelled);
  await second.shot('10-second-has-cancelled');
  await world.open();
  await first.ended(kept);
  await first.pictureOn(await first.nodeOf('SaveImage'));
  await first.shot('11-first-has-its-picture');
  assert(first.heardOf(kept).includes('execution_success'));
  assert(second.heardOf(cancelled).includes('execution_interrupted'));
  assert.deepEqual([first.heardOf(cancelled), second.heardOf(kept)], [[], []], "no events of another browser's job");
}

/** An error of the page of 0.3.64 on any server, while it registers its settings. */
const OWN_ERROR = "Cannot read properties of undefined (reading 'id')";

function wellBehaved(page) {
  const errors = page.scriptErrors.filter((error) => error !== OWN_ERROR);
  assert.deepEqual(errors, [], `${page.name}: errors of the page's scripts`);
  const odd = page.failures.filter((failure) => !MISSING_ON_ANY.some((like) => like.test(failure)));
  assert.deepEqual(odd, [], `${page.name}: requests that failed`);
  assert(page.frames > 0 || page.name !== 'first', 'previews came over the websocket');
}

async function story(browser) {
  const first = await visitor(browser, 'first');
  await first.shot('1-loaded');
  console.log('ok: the page opens and loads a workflow');
  const saved = await watchedRun(first, await lengthen(first));
  console.log('ok: a run shows progress, a preview and its picture');
  await queueAndHistory(first);
  console.log('ok: queue and history are shown, one of several is cancelled');
  await reloaded(first, saved);
  console.log('ok: reloaded in mid-run, it sees the end');
  const second = await visitor(browser, 'second');
  await twoBrowsers(first, second);
  console.log("ok: two browsers, each with its own jobs");
  [first, second].forEach(wellBehaved);
  if (emulated) assert.deepEqual(await world.outcomes(), { success: 5, interrupted: 2 }, 'what really ran');
}

await mkdir(options.shots, { recursive: true });
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: QUIET, timeout: PATIENCE_MS });
try {
  await story(browser);
} catch (error) {
  for (const [at, page] of browser.contexts().flatMap((context) => context.pages()).entries()) {
    await page.screenshot({ path: `${options.shots}/failed-${at}.png` }).catch(() => {});
  }
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser.close();
}

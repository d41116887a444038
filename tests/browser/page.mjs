// ComfyUI's stock page in one tab of a Chromium, as its user sees and uses it. Whatever differs between the releases of
// the page is in `panels`.

import { readFile } from 'node:fs/promises';

/** How long anything may take before the story fails: many times what a slow machine needs. Real instances take minutes. */
export const PATIENCE_MS = process.argv.includes('--instance') ? 240_000 : 1_200_000;
/** A click on something that the page draws anew meanwhile is tried again. */
const CLICK_MS = 10_000;

/** The same for a thing that must be there soon once another is. */
const POLL_MS = 100;

export class StockPage {
  /** Opens the router's address in a tab of `context` and waits until the page is ready for its user. */
  static async open(context, url, release, shots) {
    const tab = await context.newPage();
    tab.setDefaultTimeout(PATIENCE_MS);
    const page = new StockPage(tab, url, release, shots);
    page.#watch();
    await tab.goto(url);
    await page.#ready();
    return page;
  }

  constructor(tab, url, release, shots) {
    this.tab = tab;
    this.url = url;
    this.panel = panels(release, tab);
    this.shots = shots;
    /** Answers of the router that were no success, and errors of the page's own scripts. */
    this.failures = [];
    this.scriptErrors = [];
    /** Text messages of the websocket, and how many binary ones. */
    this.heard = [];
    this.frames = 0;
    /** What this tab posted to /prompt and was answered. */
    this.posted = [];
  }

  #watch() {
    if (process.env.TRACE) this.tab.on('request', (r) => r.method() !== 'GET' && console.log(r.method(), r.url(), r.postData()?.slice(0, 150)));
    this.tab.on('pageerror', (error) => this.scriptErrors.push(error.message));
    this.tab.on('response', (answer) => this.#answered(answer));
    this.tab.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => {
      if (typeof payload === 'string') this.heard.push(JSON.parse(payload));
      else this.frames += 1;
    }));
  }

  async #answered(answer) {
    if (!answer.url().startsWith(this.url)) return;
    const { pathname } = new URL(answer.url());
    if (answer.status() >= 400) this.failures.push(`${answer.status()} ${pathname}`);
    if (pathname === '/api/prompt' && answer.status() === 200) {
      this.posted.push((await answer.json()).prompt_id);
    }
  }

  async #ready() {
    await this.tab.waitForFunction(() => window.app?.graph && document.querySelector('#comfy-file-input'));
    // A first visit opens the templates, which its user closes.
    const dialog = this.tab.locator('.p-dialog-mask').first();
    const close = dialog.locator('button.p-dialog-close-button:visible, button.size-10:visible').first();
    await this.until('the page is free of dialogs', async () => {
      await this.tab.waitForLoadState('networkidle');
      if (!(await dialog.isVisible())) return true;
      await close.click({ timeout: 2_000 }).catch(() => {});
      return false;
    });
  }

  /** Polls until `look` gives something. */
  async until(what, look) {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const found = await look();
      if (found) return found;
      if (Date.now() > deadline) {
        await this.shot('failed');
        throw new Error(`not within ${PATIENCE_MS / 1000} s: ${what}; queue panel: ${JSON.stringify(await this.panel.rows().catch(() => null))}, title ${await this.tab.title()}`);
      }
      await new Promise((go) => setTimeout(go, POLL_MS));
    }
  }

  async shot(name) {
    await this.tab.screenshot({ path: `${this.shots}/${name}.png` });
  }

  /** As the menu's Open does. */
  async load(file) {
    const nodes = JSON.parse(await readFile(file, 'utf8')).nodes.length;
    await this.tab.setInputFiles('#comfy-file-input', file);
    await this.until('the workflow is loaded', () =>
      this.tab.evaluate((nodes) => window.app.graph.nodes.length === nodes, nodes));
  }

  /** Presses Run, on a graph that no instance has in its cache; gives the prompt's id. */
  async run() {
    await this.tab.evaluate(varied);
    const before = this.posted.length;
    await this.tab.getByRole('button', { name: 'Run', exact: true }).first().click();
    await this.until('the prompt is accepted', () => this.posted.length > before);
    return this.posted[before];
  }

  /** Presses the red cross beside Run. */
  async cancelCurrent() {
    await this.tab.getByRole('button', { name: 'Cancel current run' }).first().click();
  }

  /** Cancels one of the jobs that wait, in the panel. */
  async cancelPending() {
    const pending = async () => (await this.panel.rows()).filter((row) => row === 'pending').length;
    const before = await pending();
    let pressed = false;
    await this.until('a waiting job is cancelled', async () => {
      if ((await pending()) < before) return true;
      // A row that is drawn anew under the pointer is lost to it.
      pressed ||= await this.panel.cancelPending().then(() => true, () => false);
      return false;
    });
  }

  /** Makes every run of a graph of pictures take this many times as long. */
  async lengthen(factor) {
    await this.tab.evaluate((factor) => {
      const source = window.app.graph.nodes.find(({ type }) => type === 'EmptyImage');
      const batch = source?.widgets.find(({ name }) => name === 'batch_size');
      if (batch) batch.value = Math.min(4096, Math.ceil(batch.value * factor));
    }, factor);
  }

  async reload() {
    await this.tab.reload();
    await this.#ready();
  }

  /** Waits until the tab's title, which counts the progress, is like this. */
  async title(like) {
    await this.until(`a title like ${like}`, async () => like.test(await this.tab.title()));
  }

  /**
   * Waits until the node shows a picture, on the canvas and not only in the page's memory; gives its colour.
   * `otherThan`: a colour that was there before.
   */
  async pictureOn(node, otherThan) {
    return this.until(`a picture on node ${node}`, async () => {
      const colour = await this.tab.evaluate(colourOfNode, node);
      if (!colour || colour === otherThan) return null;
      const screen = (await this.tab.screenshot()).toString('base64');
      const seen = await this.tab.evaluate(pixelsOf, { screen, colour });
      return seen > 5_000 ? colour : null;
    });
  }

  /** The id of the first node of one of these classes. */
  async nodeOf(...classes) {
    return this.tab.evaluate((classes) => window.app.graph.nodes.find((node) => classes.includes(node.type)).id, classes);
  }

  /** What the websocket said of this prompt, kind by kind. */
  heardOf(prompt) {
    return this.heard.filter((message) => message.data?.prompt_id === prompt).map((message) => message.type);
  }

  /** Waits for the event that ends a prompt's story. */
  async ended(prompt) {
    await this.until(`the end of ${prompt}`, () => this.heard.some(({ type, data }) =>
      type === 'executing' && data.prompt_id === prompt && data.node === null));
  }
}

/* These run inside the page. */

/** Changes the colour of an EmptyImage; a sampler's seed changes by itself. */
function varied() {
  const colour = window.app.graph.nodes.find(({ type }) => type === 'EmptyImage')?.widgets.find(({ name }) => name === 'color');
  if (colour) colour.value = (colour.value + 0x2f1d35) % 0x1000000;
}

function colourOfNode(id) {
  const image = window.app.graph.getNodeById(id)?.imgs?.[0];
  if (!image?.complete || !image.naturalWidth) return null;
  const canvas = new OffscreenCanvas(1, 1).getContext('2d');
  canvas.drawImage(image, 0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)].join();
}

async function pixelsOf({ screen, colour }) {
  const bytes = Uint8Array.from(atob(screen), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: 'image/png' }));
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
  canvas.drawImage(bitmap, 0, 0);
  const { data } = canvas.getImageData(0, 0, bitmap.width, bitmap.height);
  const wanted = colour.split(',').map(Number);
  let seen = 0;
  for (let at = 0; at < data.length; at += 4) {
    if (wanted.every((part, channel) => Math.abs(data[at + channel] - part) <= 3)) seen += 1;
  }
  return seen;
}

/** The panel that lists the queue and the history: open and close it, its rows, and cancelling from it. */
function panels(release, tab) {
  return release.startsWith('1.27.') ? new QueueTab(tab) : new JobQueue(tab);
}

class JobQueue {
  constructor(tab) {
    this.tab = tab;
    this.root = tab.getByRole('button', { name: 'Show assets' }).locator('xpath=ancestor::*[3]');
  }

  async show() {
    if (!(await this.root.isVisible())) await this.tab.getByRole('button', { name: 'Expand job queue' }).first().click();
    await this.root.waitFor();
  }

  async hide() {
    if (await this.root.isVisible()) await this.tab.getByRole('button', { name: 'Expand job queue' }).first().click();
  }

  async rows() {
    return this.root.locator('div[title]').evaluateAll((titles) => titles.map((title) => {
      const row = title.parentElement.parentElement;
      const image = row.querySelector('img');
      if (image) return image.complete && image.naturalWidth > 0 ? 'done' : 'done, no picture yet';
      if (row.querySelector('[class*="lucide--zap"]')) return 'running';
      if (row.querySelector('[class*="lucide--alert"]')) return 'failed';
      return 'pending';
    }));
  }

  async cancelPending() {
    const row = this.root.locator('div[title^="In queue"], div[title^="Job added"]').first();
    await row.hover({ timeout: CLICK_MS });
    await row.locator('xpath=ancestor::*[2]').getByRole('button', { name: 'Cancel' }).click({ timeout: CLICK_MS });
  }
}

class QueueTab {
  constructor(tab) {
    this.tab = tab;
    this.root = tab.locator('.sidebar-content-container').filter({ hasText: 'QUEUE' });
  }

  async show() {
    if (!(await this.root.isVisible())) await this.tab.getByRole('button', { name: 'Queue (q)' }).first().click();
    await this.root.waitFor();
  }

  async hide() {
    if (await this.root.isVisible()) await this.tab.getByRole('button', { name: 'Queue (q)' }).first().click();
  }

  async rows() {
    return this.root.locator('.task-item').evaluateAll((items) => items.map((item) => {
      if (item.querySelector('.p-tag-secondary')) return 'pending';
      if (item.querySelector('.p-tag-info')) return 'running';
      if (!item.querySelector('.p-tag-success')) return 'failed';
      const image = item.querySelector('img');
      return image?.complete && image.naturalWidth > 0 ? 'done' : 'done, no picture yet';
    }));
  }

  async cancelPending() {
    await this.root.locator('.task-item').filter({ hasText: 'Pending' }).first().click({ button: 'right', timeout: CLICK_MS });
    await this.tab.getByRole('menuitem', { name: 'Delete' }).click({ timeout: CLICK_MS });
  }
}

// The emulated instances behind the router: executions stop at their gates until the story lets them go.

export class Instances {
  constructor(urls) {
    this.urls = urls;
  }

  async #each(path, change) {
    const answers = this.urls.map(async (url) => {
      const request = change && { method: 'POST', body: JSON.stringify(change) };
      const answer = await fetch(url + path, request);
      if (!answer.ok) throw new Error(`${url}${path}: ${answer.status}`);
      return answer.json();
    });
    return Promise.all(answers);
  }

  /** From now on samplers stop before each step. */
  async hold() {
    await this.#each('/emulator/gate', { hold: true, each: 'step' });
  }

  /** Lets each sampler that is held now go this many steps. */
  async steps(count) {
    const gates = await this.#each('/emulator/gate');
    const held = new Instances(this.urls.filter((_, at) => gates[at].held > 0));
    await held.#each('/emulator/gate', { release: count });
  }

  async open() {
    await this.#each('/emulator/gate', { open: true });
  }

  async held() {
    const gates = await this.#each('/emulator/gate');
    return gates.reduce((sum, gate) => sum + gate.held, 0);
  }

  /** Every execution ever started, by how it ended. */
  async outcomes() {
    const all = await this.#each('/emulator/executions');
    const outcomes = all.flatMap(({ executions }) => executions.map(({ outcome }) => outcome ?? 'running'));
    return Object.fromEntries([...new Set(outcomes)].map((kind) => [kind, outcomes.filter((one) => one === kind).length]));
  }
}

/** Real ones run as fast as they can; there the story waits for what it wants to see. */
export class RealInstances {
  async hold() {}
  async steps() {}
  async open() {}
  async outcomes() {}
}

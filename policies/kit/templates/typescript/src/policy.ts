// Interactive jobs first, on cool cards that have the models.

import type { Lifecycle } from "comfy-router:policy/lifecycle@0.1.1";
import type { Priority } from "comfy-router:policy/priority@0.1.1";
import type { Routing } from "comfy-router:policy/routing@0.1.1";
import type { Candidate, Job } from "comfy-router:policy/types@0.1.1";

// A card this hot comes last. Lives as long as this guest does, as every variable of a module does.
let hotC = 83;

export const lifecycle: Lifecycle = {
  // `settings` is the `[policy.settings]` table of the router's configuration, as JSON. What is thrown is a text: it is
  // shown to the operator, and this version does not serve.
  configure(settings) {
    for (const [name, value] of Object.entries<unknown>(JSON.parse(settings))) {
      if (name !== "hot_c") throw `unknown setting ${name}, known is hot_c`;
      if (typeof value !== "number") throw "hot_c must be a number";
      hotC = value;
    }
  },
};

const POINTS = { interactive: 200, standard: 100, batch: 0 };

export const priority: Priority = {
  // Effective priority = score + ageing x seconds waited: with ageing, nothing waits for ever.
  prioritize(job) {
    return { score: POINTS[job.class], ageingPerSecond: 1, reason: job.class };
  },
};

export const routing: Routing = {
  // Rows of `candidates`, best first. Instances that cannot run the job are not among them.
  route(job, candidates) {
    const rows = candidates.map((candidate, row) => ({ row, candidate })).filter(({ candidate }) => candidate.freeSlots > 0);
    rows.sort((a, b) => compare(job, a.candidate, b.candidate));
    const best = rows[0];
    // The router asks again earlier when an instance changes.
    if (best === undefined) return { answer: { tag: "hold", val: 1_000 }, reason: "no instance has room" };
    const reason = hasModels(job, best.candidate) ? "models loaded" : "cool";
    return { answer: { tag: "ranked", val: rows.map(({ row }) => row) }, reason };
  },
};

/** Below 0 when `a` is better. */
function compare(job: Job, a: Candidate, b: Candidate): number {
  return (
    Number(isHot(a)) - Number(isHot(b)) ||
    Number(hasModels(job, b)) - Number(hasModels(job, a)) ||
    a.running + a.pending - b.running - b.pending
  );
}

/** A temperature that is not known counts as cool. */
function isHot(candidate: Candidate): boolean {
  return candidate.temperatureC !== null && candidate.temperatureC >= hotC;
}

function hasModels(job: Job, candidate: Candidate): boolean {
  return job.models > 0 && candidate.modelsResident >= job.models;
}

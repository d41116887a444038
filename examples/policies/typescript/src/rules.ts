// The rules themselves, pure: the same view, settings and heat give the same answer.

import type { RouteDecision } from "comfy-router:policy/routing@0.1.1";
import type { Candidate, Job } from "comfy-router:policy/types@0.1.1";
import type { Settings } from "./settings.js";

/** An older temperature says nothing about now. */
const FRESH_MS = 10_000;
/** What a recent failure counts as, so that an instance that fails fast does not look fast. */
const FAILURE_MS = 5_000;
/** Until the next look, when there is nothing better to wait for. */
const LOOK_AGAIN_MS = 1_000;

const CLASS_POINTS = { interactive: 200, standard: 100, batch: 0 };

/** Points and why. A class is 100 points, `front` more than any class, and a client's `number` less than a class. */
export function score(job: Job): [number, string] {
  const number = Number.isFinite(job.number) ? job.number! : 0;
  const points = CLASS_POINTS[job.class] + Math.min(40, Math.max(-40, -number));
  return job.front ? [points + 1_000, "front of the queue"] : [points, job.class];
}

/** Which instances are too hot. Two thresholds, so that a card at one of them does not flap. */
export class Heat {
  #hot = new Set<number>();

  note(candidates: Candidate[], settings: Settings): void {
    for (const candidate of candidates) {
      const celsius = temperature(candidate);
      if (celsius === null) continue; // Not known: as it was.
      if (celsius >= settings.hot_c) this.#hot.add(candidate.instance);
      else if (celsius <= settings.cool_c) this.#hot.delete(candidate.instance);
    }
  }

  has(candidate: Candidate): boolean {
    return this.#hot.has(candidate.instance);
  }
}

function temperature(candidate: Candidate): number | null {
  const fresh = candidate.readingAgeMs !== null && candidate.readingAgeMs <= FRESH_MS;
  return fresh ? candidate.temperatureC : null;
}

export function route(job: Job, candidates: Candidate[], heat: Heat, settings: Settings): RouteDecision {
  const rows = candidates.map((candidate, row) => ({ row, candidate, end: end(job, candidate, settings) }));
  const cool = rows.filter(({ candidate }) => !heat.has(candidate));
  const free = cool.filter(({ candidate }) => candidate.freeSlots > 0);
  free.sort((a, b) => a.end - b.end || jobs(a.candidate) - jobs(b.candidate));
  const best = free[0];
  if (best === undefined) return withoutRoom(job, candidates, settings);

  let busy: { end: number; freeInMs: number } | null = null;
  for (const { candidate, end } of cool) {
    if (candidate.freeSlots > 0 || job.models === 0 || !hasAll(job, candidate) || candidate.freeInMs === null) continue;
    const freeInMs = candidate.freeInMs;
    if (busy === null || end < busy.end || (end === busy.end && freeInMs < busy.freeInMs)) busy = { end, freeInMs };
  }
  if (busy !== null && busy.end < best.end && job.waitedMs + busy.freeInMs <= settings.max_extra_wait_ms) {
    return hold(Math.max(busy.freeInMs, 50), `models are loaded where a slot is free in ${busy.freeInMs} ms`);
  }
  return ranked(free.map(({ row }) => row), reason(job, best.candidate));
}

/** Nobody cool has room: a hot card is better than no card at all, but only after a while. */
function withoutRoom(job: Job, candidates: Candidate[], settings: Settings): RouteDecision {
  const hot = [...candidates.keys()].filter((row) => candidates[row]!.freeSlots > 0);
  if (hot.length === 0) return hold(LOOK_AGAIN_MS, "no instance has room");
  if (job.waitedMs < settings.max_extra_wait_ms) return hold(LOOK_AGAIN_MS, "free instances are cooling down");
  const celsius = (row: number) => temperature(candidates[row]!) ?? 0;
  hot.sort((a, b) => celsius(a) - celsius(b));
  return ranked(hot, "no cool instance in time");
}

/** Predicted time until the job would be done there. */
function end(job: Job, candidate: Candidate, settings: Settings): number {
  const wait = candidate.freeSlots > 0 ? 0 : (candidate.freeInMs ?? 0);
  const load = hasAll(job, candidate) ? 0 : (candidate.loadMs ?? settings.assumed_load_ms);
  const run = candidate.runMs ?? job.runMs ?? 0;
  return wait + load + run + FAILURE_MS * candidate.failures;
}

function hasAll(job: Job, candidate: Candidate): boolean {
  return candidate.modelsResident >= job.models;
}

function jobs(candidate: Candidate): number {
  return candidate.running + candidate.pending;
}

function reason(job: Job, candidate: Candidate): string {
  if (job.models === 0) return "no models needed";
  if (hasAll(job, candidate)) return "models loaded";
  return `${candidate.modelsResident} of ${job.models} models loaded`;
}

function ranked(rows: number[], reason: string): RouteDecision {
  return { answer: { tag: "ranked", val: rows }, reason };
}

function hold(ms: number, reason: string): RouteDecision {
  return { answer: { tag: "hold", val: ms }, reason };
}

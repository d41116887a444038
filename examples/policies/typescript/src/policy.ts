// House rules: classes that age, models where they are loaded, cards that may cool down, and a quota for each tenant.
//
// This file is the seam to the router; the rules are in `rules.ts` and `settings.ts`.

import { write } from "comfy-router:policy/log@0.1.1";
import { tenantName } from "comfy-router:policy/queue@0.1.1";
import { get, increment } from "comfy-router:policy/state@0.1.1";
import type { Admission } from "comfy-router:policy/admission@0.1.1";
import type { Feedback } from "comfy-router:policy/feedback@0.1.1";
import type { Lifecycle } from "comfy-router:policy/lifecycle@0.1.1";
import type { Priority } from "comfy-router:policy/priority@0.1.1";
import type { Routing } from "comfy-router:policy/routing@0.1.1";
import { Heat, route, score } from "./rules.js";
import { defaults, parse } from "./settings.js";

// Live as long as this guest does. What must survive a new version or a restart is in `state` instead.
let settings = defaults;
let heat = new Heat();

export const lifecycle: Lifecycle = {
  configure(json) {
    settings = parse(json);
    heat = new Heat();
  },
};

export const admission: Admission = {
  admit(job) {
    const quota = settings.quota_s;
    if (quota === 0) return { tag: "admit" };
    const tenant = nameOf(job.tenant);
    const used = Number(get(usedKey(tenant)) ?? 0);
    if (used < quota) return { tag: "admit" };
    const reason = `${tenant} has used ${Math.trunc(used)} of ${Math.trunc(quota)} GPU seconds`;
    return { tag: "reject", val: { status: 429, retryAfterS: 60, reason } };
  },
};

export const priority: Priority = {
  prioritize(job) {
    const [points, reason] = score(job);
    return { score: points, ageingPerSecond: settings.ageing_per_second, reason };
  },
};

export const routing: Routing = {
  route(job, candidates) {
    heat.note(candidates, settings);
    return route(job, candidates, heat, settings);
  },
};

export const feedback: Feedback = {
  observe(outcomes) {
    if (settings.quota_s === 0) return;
    for (const outcome of outcomes) {
      const key = usedKey(nameOf(outcome.tenant));
      try {
        // The time to live counts from the first job of a window, so the sum is forgotten when the window ends.
        increment(key, outcome.runMs / 1000, Math.trunc(settings.quota_window_s * 1000));
      } catch (refusal) {
        write("warn", `${key} is not counted: ${String(refusal)}`);
      }
    }
  },
};

// By name, because an index means something else after a restart.
function usedKey(tenant: string): string {
  return `used/${tenant}`;
}

function nameOf(tenant: number): string {
  return tenantName(tenant) ?? `tenant ${tenant}`;
}

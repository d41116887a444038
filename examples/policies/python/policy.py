"""House rules: classes that age, models where they are loaded, cards that may cool down, and a quota for each tenant.

This file is the seam to the router; the rules are in `rules` and `settings`.
"""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.admission import AdmissionDecision_Admit, AdmissionDecision_Reject, Rejection
from wit_world.exports.priority import PriorityDecision
from wit_world.imports import log, queue, state

import rules
from settings import Settings

# Live as long as this guest does. What must survive a new version or a restart is in `state` instead.
settings = Settings()
heat = rules.Heat()


class Lifecycle(exports.Lifecycle):
    def configure(self, json):
        global settings, heat
        try:
            settings, heat = Settings.parse(json), rules.Heat()
        except ValueError as error:
            raise Err(str(error))


class Admission(exports.Admission):
    def admit(self, job, load):
        if settings.quota_s == 0:
            return AdmissionDecision_Admit()
        tenant = tenant_name(job.tenant)
        used = float(state.get(used_key(tenant)) or 0)
        if used < settings.quota_s:
            return AdmissionDecision_Admit()
        reason = f"{tenant} has used {int(used)} of {int(settings.quota_s)} GPU seconds"
        return AdmissionDecision_Reject(Rejection(429, 60, reason))


class Priority(exports.Priority):
    def prioritize(self, job):
        points, reason = rules.score(job)
        return PriorityDecision(points, settings.ageing_per_second, reason)


class Routing(exports.Routing):
    def route(self, job, candidates):
        heat.note(candidates, settings)
        return rules.route(job, candidates, heat, settings)


class Feedback(exports.Feedback):
    def observe(self, outcomes):
        if settings.quota_s == 0:
            return
        for outcome in outcomes:
            key = used_key(tenant_name(outcome.tenant))
            try:
                # The time to live counts from the first job of a window, so the sum is forgotten when the window ends.
                state.increment(key, outcome.run_ms / 1000, int(settings.quota_window_s * 1000))
            except Err as refusal:
                log.write(log.Level.WARN, f"{key} is not counted: {refusal.value}")


def used_key(tenant):
    """By name, because an index means something else after a restart."""
    return f"used/{tenant}"


def tenant_name(tenant):
    name = queue.tenant_name(tenant)
    return f"tenant {tenant}" if name is None else name

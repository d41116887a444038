"""Interactive jobs first, on cool cards that have the models."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.priority import PriorityDecision
from wit_world.exports.routing import RouteAnswer_Hold, RouteAnswer_Ranked, RouteDecision
from wit_world.imports.types import JobClass

# A card this hot comes last. Lives as long as this guest does, as every global does.
hot_c = 83.0

CLASSES = {
    JobClass.INTERACTIVE: (200, "interactive"),
    JobClass.STANDARD: (100, "standard"),
    JobClass.BATCH: (0, "batch"),
}


class Lifecycle(exports.Lifecycle):
    def configure(self, settings):
        """Take the `[policy.settings]` table of the router's configuration, as JSON.

        An `Err` is shown to the operator, and this version does not serve.
        """
        global hot_c
        for name, value in json.loads(settings).items():
            if name != "hot_c":
                raise Err(f"unknown setting {name}, known is hot_c")
            if not isinstance(value, (int, float)):
                raise Err("hot_c must be a number")
            hot_c = float(value)


class Priority(exports.Priority):
    def prioritize(self, job):
        """Effective priority = score + ageing x seconds waited: with ageing, nothing waits for ever."""
        score, reason = CLASSES[job.class_]
        return PriorityDecision(score, 1, reason)


class Routing(exports.Routing):
    def route(self, job, candidates):
        """Rows of `candidates`, best first. Instances that cannot run the job are not among them."""
        rows = [row for row, candidate in enumerate(candidates) if candidate.free_slots > 0]
        if not rows:
            # The router asks again earlier when an instance changes.
            return RouteDecision(RouteAnswer_Hold(1_000), "no instance has room")
        rows.sort(key=lambda row: rank(job, candidates[row]))
        reason = "models loaded" if has_models(job, candidates[rows[0]]) else "cool"
        return RouteDecision(RouteAnswer_Ranked(rows), reason)


def rank(job, candidate):
    """Lower is better. A temperature that is not known counts as cool."""
    hot = candidate.temperature_c is not None and candidate.temperature_c >= hot_c
    return hot, not has_models(job, candidate), candidate.running + candidate.pending


def has_models(job, candidate):
    return job.models > 0 and candidate.models_resident >= job.models

"""The rules themselves, pure: the same view, settings and heat give the same answer."""

from math import isfinite

from wit_world.exports.routing import RouteAnswer_Hold, RouteAnswer_Ranked, RouteDecision
from wit_world.imports.types import JobClass

# An older temperature says nothing about now.
FRESH_MS = 10_000
# What a recent failure counts as, so that an instance that fails fast does not look fast.
FAILURE_MS = 5_000
# Until the next look, when there is nothing better to wait for.
LOOK_AGAIN_MS = 1_000

CLASSES = {
    JobClass.INTERACTIVE: (200, "interactive"),
    JobClass.STANDARD: (100, "standard"),
    JobClass.BATCH: (0, "batch"),
}


def score(job):
    """Points and why. A class is 100 points, `front` more than any class, and a client's `number` less than a class."""
    points, name = CLASSES[job.class_]
    number = job.number if job.number is not None and isfinite(job.number) else 0
    points += min(40, max(-40, -number))
    return (points + 1_000, "front of the queue") if job.front else (points, name)


class Heat:
    """Which instances are too hot. Two thresholds, so that a card at one of them does not flap."""

    def __init__(self):
        self.hot = set()

    def note(self, candidates, settings):
        for candidate in candidates:
            celsius = temperature(candidate)
            if celsius is None:
                continue  # Not known: as it was.
            if celsius >= settings.hot_c:
                self.hot.add(candidate.instance)
            elif celsius <= settings.cool_c:
                self.hot.discard(candidate.instance)


def temperature(candidate):
    age = candidate.reading_age_ms
    return candidate.temperature_c if age is not None and age <= FRESH_MS else None


def route(job, candidates, heat, settings):
    ends = [end(job, candidate, settings) for candidate in candidates]
    cool = [row for row, candidate in enumerate(candidates) if candidate.instance not in heat.hot]
    free = [row for row in cool if candidates[row].free_slots > 0]
    if not free:
        return without_room(job, candidates, settings)
    free.sort(key=lambda row: (ends[row], jobs(candidates[row])))
    best = free[0]
    busy = [
        (ends[row], candidates[row].free_in_ms)
        for row in cool
        if candidates[row].free_slots == 0
        and job.models > 0
        and has_all(job, candidates[row])
        and candidates[row].free_in_ms is not None
    ]
    if busy:
        ends_there, free_in_ms = min(busy)
        if ends_there < ends[best] and job.waited_ms + free_in_ms <= settings.max_extra_wait_ms:
            return hold(max(free_in_ms, 50), f"models are loaded where a slot is free in {free_in_ms} ms")
    return ranked(free, reason(job, candidates[best]))


def without_room(job, candidates, settings):
    """Nobody cool has room: a hot card is better than no card at all, but only after a while."""
    hot = [row for row, candidate in enumerate(candidates) if candidate.free_slots > 0]
    if not hot:
        return hold(LOOK_AGAIN_MS, "no instance has room")
    if job.waited_ms < settings.max_extra_wait_ms:
        return hold(LOOK_AGAIN_MS, "free instances are cooling down")
    hot.sort(key=lambda row: temperature(candidates[row]) or 0)
    return ranked(hot, "no cool instance in time")


def end(job, candidate, settings):
    """Predicted time until the job would be done there."""
    wait = 0 if candidate.free_slots > 0 else candidate.free_in_ms or 0
    run = candidate.run_ms if candidate.run_ms is not None else job.run_ms or 0
    return wait + load(job, candidate, settings) + run + FAILURE_MS * candidate.failures


def load(job, candidate, settings):
    if has_all(job, candidate):
        return 0
    return settings.assumed_load_ms if candidate.load_ms is None else candidate.load_ms


def has_all(job, candidate):
    return candidate.models_resident >= job.models


def jobs(candidate):
    return candidate.running + candidate.pending


def reason(job, candidate):
    if job.models == 0:
        return "no models needed"
    if has_all(job, candidate):
        return "models loaded"
    return f"{candidate.models_resident} of {job.models} models loaded"


def ranked(rows, why):
    return RouteDecision(RouteAnswer_Ranked(rows), why)


def hold(ms, why):
    return RouteDecision(RouteAnswer_Hold(ms), why)

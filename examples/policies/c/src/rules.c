#include "rules.h"

#include <math.h>
#include <stdio.h>

// An older temperature says nothing about now.
static const uint32_t fresh_ms = 10000;
// What a recent failure counts as, so that an instance that fails fast does not look fast.
static const uint64_t failure_ms = 5000;
// Until the next look, when there is nothing better to wait for.
static const uint32_t look_again_ms = 1000;

double score(const job_t *job, const char **reason) {
    double points = 100;
    *reason = "standard";
    if (job->class_ == TYPES_JOB_CLASS_INTERACTIVE) points = 200, *reason = "interactive";
    if (job->class_ == TYPES_JOB_CLASS_BATCH) points = 0, *reason = "batch";
    if (job->number.is_some && isfinite(job->number.val)) points += fmin(40, fmax(-40, -job->number.val));
    if (job->front) points += 1000, *reason = "front of the queue";
    return points;
}

static bool temperature(const candidate_t *candidate, double *celsius) {
    if (!candidate->temperature_c.is_some || !candidate->reading_age_ms.is_some) return false;
    if (candidate->reading_age_ms.val > fresh_ms) return false;
    *celsius = candidate->temperature_c.val;
    return true;
}

void note(heat_t *heat, candidates_t candidates, const settings_t *settings) {
    for (size_t row = 0; row < candidates.count; row++) {
        const candidate_t *candidate = &candidates.of[row];
        double celsius;
        // Not known, or between the thresholds: as it was.
        if (candidate->instance >= MOST_INSTANCES || !temperature(candidate, &celsius)) continue;
        if (celsius >= settings->hot_c) heat->hot[candidate->instance] = true;
        else if (celsius <= settings->cool_c) heat->hot[candidate->instance] = false;
    }
}

static bool is_hot(const heat_t *heat, const candidate_t *candidate) {
    return candidate->instance < MOST_INSTANCES && heat->hot[candidate->instance];
}

static bool has_all(const job_t *job, const candidate_t *candidate) {
    return candidate->models_resident >= job->models;
}

static uint64_t jobs(const candidate_t *candidate) {
    return (uint64_t)candidate->running + candidate->pending;
}

// Predicted time until the job would be done there.
static uint64_t end(const job_t *job, const candidate_t *candidate, const settings_t *settings) {
    uint64_t wait = candidate->free_slots == 0 && candidate->free_in_ms.is_some ? candidate->free_in_ms.val : 0;
    uint64_t load = candidate->load_ms.is_some ? candidate->load_ms.val : (uint64_t)settings->assumed_load_ms;
    uint64_t run = candidate->run_ms.is_some ? candidate->run_ms.val : job->run_ms.is_some ? job->run_ms.val : 0;
    return wait + (has_all(job, candidate) ? 0 : load) + run + failure_ms * candidate->failures;
}

static void hold(decision_t *decision, uint32_t ms, const char *reason) {
    decision->count = 0;
    decision->hold_ms = ms;
    snprintf(decision->reason, sizeof decision->reason, "%s", reason);
}

// Keeps the rows in order, best first: by `key`, then by `tie`, then as they came.
static void insert(decision_t *decision, uint32_t row, const double *key, const double *tie) {
    size_t at = decision->count++;
    for (; at > 0; at--) {
        uint32_t before = decision->rows[at - 1];
        if (key[before] < key[row] || (key[before] == key[row] && tie[before] <= tie[row])) break;
        decision->rows[at] = before;
    }
    decision->rows[at] = row;
}

// Nobody cool has room: a hot card is better than no card at all, but only after a while.
static void without_room(
    const job_t *job, candidates_t candidates, const settings_t *settings, double *key, double *tie, decision_t *decision
) {
    decision->count = 0;
    for (uint32_t row = 0; row < candidates.count; row++) {
        if (candidates.of[row].free_slots == 0) continue;
        key[row] = tie[row] = 0;
        temperature(&candidates.of[row], &key[row]);
        insert(decision, row, key, tie);
    }
    if (decision->count == 0) hold(decision, look_again_ms, "no instance has room");
    else if (job->waited_ms < (uint64_t)settings->max_extra_wait_ms)
        hold(decision, look_again_ms, "free instances are cooling down");
    else snprintf(decision->reason, sizeof decision->reason, "no cool instance in time");
}

static void explain(const job_t *job, const candidate_t *best, decision_t *decision) {
    char *reason = decision->reason;
    if (job->models == 0) snprintf(reason, sizeof decision->reason, "no models needed");
    else if (has_all(job, best)) snprintf(reason, sizeof decision->reason, "models loaded");
    else snprintf(reason, sizeof decision->reason, "%u of %u models loaded", best->models_resident, job->models);
}

void route(
    const job_t *job, candidates_t candidates, const heat_t *heat, const settings_t *settings, decision_t *decision
) {
    // Milliseconds of 32 bits are exact in a double.
    double ends[candidates.count + 1], tie[candidates.count + 1];
    bool busy = false;
    double busy_end = 0;
    uint32_t free_in = 0;
    decision->count = 0;
    for (uint32_t row = 0; row < candidates.count; row++) {
        const candidate_t *candidate = &candidates.of[row];
        ends[row] = (double)end(job, candidate, settings);
        tie[row] = (double)jobs(candidate);
        if (is_hot(heat, candidate)) continue;
        if (candidate->free_slots > 0) insert(decision, row, ends, tie);
        else if (job->models > 0 && has_all(job, candidate) && candidate->free_in_ms.is_some) {
            uint32_t in = candidate->free_in_ms.val;
            if (!busy || ends[row] < busy_end || (ends[row] == busy_end && in < free_in))
                busy = true, busy_end = ends[row], free_in = in;
        }
    }
    if (decision->count == 0) {
        without_room(job, candidates, settings, ends, tie, decision);
        return;
    }
    uint32_t best = decision->rows[0];
    bool patient = (uint64_t)job->waited_ms + free_in <= (uint64_t)settings->max_extra_wait_ms;
    if (busy && busy_end < ends[best] && patient) {
        char reason[80];
        snprintf(reason, sizeof reason, "models are loaded where a slot is free in %u ms", free_in);
        hold(decision, free_in > 50 ? free_in : 50, reason);
        return;
    }
    explain(job, &candidates.of[best], decision);
}

// The rules themselves, pure: the same view, settings and heat give the same answer.
#pragma once

#include "policy.h"
#include "settings.h"

typedef types_job_t job_t;
typedef types_candidate_t candidate_t;

// An instance has a bit that says it is too hot. Two thresholds, so that a card at one of them does not flap.
enum { MOST_INSTANCES = 1024 };
typedef struct {
    bool hot[MOST_INSTANCES];
} heat_t;

typedef struct {
    size_t count;
    const candidate_t *of;
} candidates_t;

// Points and why. A class is 100 points, `front` more than any class, and a client's `number` less than a class.
double score(const job_t *job, const char **reason);

void note(heat_t *heat, candidates_t candidates, const settings_t *settings);

// What was decided. `rows` has room for all candidates; with none used, the job is held for `hold_ms`.
typedef struct {
    uint32_t *rows;
    size_t count;
    uint32_t hold_ms;
    char reason[80];
} decision_t;

void route(const job_t *job, candidates_t candidates, const heat_t *heat, const settings_t *settings, decision_t *decision);

// Interactive jobs first, on cool cards that have the models.
//
// Memory: what the router passes belongs to the policy, which frees it; what the policy answers is freed by the bindings.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"

// A card this hot comes last. Lives as long as this guest does, as every static does.
static double hot_c = 83;

// Takes `{}` or `{"hot_c": NUMBER}`.
static bool parse(char *text, char *message, size_t room) {
    char name[41], rest[2];
    if (sscanf(text, " { %1[}]", rest) == 1) return true;
    if (sscanf(text, " { \"%40[^\"]\" : ", name) != 1) {
        snprintf(message, room, "the settings are no object");
    } else if (strcmp(name, "hot_c") != 0) {
        snprintf(message, room, "unknown setting %s, known is hot_c", name);
    } else if (sscanf(text, " { \"hot_c\" : %lf %1[}]", &hot_c, rest) != 2) {
        snprintf(message, room, "hot_c must be a number");
    } else {
        return true;
    }
    return false;
}

// `settings` is the `[policy.settings]` table of the router's configuration, as JSON. An error is shown to the operator, and
// this version does not serve.
bool exports_lifecycle_configure(policy_string_t *settings, policy_string_t *error) {
    char message[120];
    char *text = strndup((const char *)settings->ptr, settings->len);
    bool right = parse(text, message, sizeof message);
    if (!right) policy_string_dup(error, message);
    free(text);
    policy_string_free(settings);
    return right;
}

// Effective priority = score + ageing x seconds waited: with ageing, nothing waits for ever.
void exports_priority_prioritize(exports_priority_job_t *job, exports_priority_priority_decision_t *answer) {
    static const double points[] = {
        [TYPES_JOB_CLASS_INTERACTIVE] = 200, [TYPES_JOB_CLASS_STANDARD] = 100, [TYPES_JOB_CLASS_BATCH] = 0};
    static const char *const names[] = {
        [TYPES_JOB_CLASS_INTERACTIVE] = "interactive", [TYPES_JOB_CLASS_STANDARD] = "standard", [TYPES_JOB_CLASS_BATCH] = "batch"};
    answer->score = points[job->class_];
    answer->ageing_per_second = 1;
    policy_string_dup(&answer->reason, names[job->class_]);
}

static bool has_models(const types_job_t *job, const types_candidate_t *candidate) {
    return job->models > 0 && candidate->models_resident >= job->models;
}

// Lower is better. A temperature that is not known counts as cool.
static uint64_t rank(const types_job_t *job, const types_candidate_t *candidate) {
    bool hot = candidate->temperature_c.is_some && candidate->temperature_c.val >= hot_c;
    uint64_t jobs = (uint64_t)candidate->running + candidate->pending;
    return ((uint64_t)hot << 41) + ((uint64_t)!has_models(job, candidate) << 40) + jobs;
}

// Rows of the candidates, best first. Instances that cannot run the job are not among them.
void exports_routing_route(
    exports_routing_job_t *job, exports_routing_list_candidate_t *candidates, exports_routing_route_decision_t *answer
) {
    uint32_t *rows = malloc(sizeof *rows * (candidates->len + 1));
    size_t count = 0;
    for (uint32_t row = 0; row < candidates->len; row++) {
        if (candidates->ptr[row].free_slots == 0) continue;
        size_t at = count++;
        for (; at > 0 && rank(job, &candidates->ptr[rows[at - 1]]) > rank(job, &candidates->ptr[row]); at--)
            rows[at] = rows[at - 1];
        rows[at] = row;
    }
    if (count > 0) {
        bool loaded = has_models(job, &candidates->ptr[rows[0]]);
        answer->answer.tag = EXPORTS_ROUTING_ROUTE_ANSWER_RANKED;
        answer->answer.val.ranked = (policy_list_u32_t){rows, count};
        policy_string_dup(&answer->reason, loaded ? "models loaded" : "cool");
    } else {
        free(rows);
        // The router asks again earlier when an instance changes.
        answer->answer.tag = EXPORTS_ROUTING_ROUTE_ANSWER_HOLD;
        answer->answer.val.hold = 1000;
        policy_string_dup(&answer->reason, "no instance has room");
    }
    exports_routing_list_candidate_free(candidates);
}

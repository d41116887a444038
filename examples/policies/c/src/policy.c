// House rules: classes that age, models where they are loaded, cards that may cool down, and a quota for each tenant.
//
// This file is the seam to the router; the rules are in rules.c and settings.c. Bindings are generated into gen by `make`.
//
// Memory: what the router passes belongs to the policy, which frees it; what the policy answers is freed by the bindings.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"
#include "rules.h"
#include "settings.h"

// They live as long as this guest does. What must survive a new version or a restart is in state instead.
static settings_t settings;
static heat_t heat;

bool exports_lifecycle_configure(policy_string_t *json, policy_string_t *error) {
    char message[120];
    bool right = parse_settings((const char *)json->ptr, json->len, &settings, message, sizeof message);
    policy_string_free(json);
    if (!right) policy_string_dup(error, message);
    heat = (heat_t){0};
    return right;
}

// By name, because an index means something else after a restart.
static void tenant_name(uint32_t tenant, char *name, size_t room) {
    policy_string_t known;
    if (!queue_tenant_name(tenant, &known)) {
        snprintf(name, room, "tenant %u", tenant);
        return;
    }
    snprintf(name, room, "%.*s", (int)known.len, (const char *)known.ptr);
    policy_string_free(&known);
}

// A text that stays ours.
static policy_string_t borrowed(char *text) {
    return (policy_string_t){(uint8_t *)text, strlen(text)};
}

static double used_by(const char *tenant) {
    char key[240], number[32];
    snprintf(key, sizeof key, "used/%s", tenant);
    policy_string_t name = borrowed(key), value;
    if (!state_get(&name, &value)) return 0;
    snprintf(number, sizeof number, "%.*s", (int)value.len, (const char *)value.ptr);
    policy_string_free(&value);
    return strtod(number, NULL);
}

void exports_admission_admit(
    exports_admission_job_t *job, exports_admission_load_t *load, exports_admission_admission_decision_t *answer
) {
    (void)load;
    answer->tag = EXPORTS_ADMISSION_ADMISSION_DECISION_ADMIT;
    if (settings.quota_s == 0) return;
    char tenant[200], reason[300];
    tenant_name(job->tenant, tenant, sizeof tenant);
    double used = used_by(tenant);
    if (used < settings.quota_s) return;
    snprintf(reason, sizeof reason, "%s has used %.0f of %.0f GPU seconds", tenant, (double)(uint64_t)used,
             (double)(uint64_t)settings.quota_s);
    answer->tag = EXPORTS_ADMISSION_ADMISSION_DECISION_REJECT;
    answer->val.reject.status = 429;
    answer->val.reject.retry_after_s = (policy_option_u32_t){true, 60};
    policy_string_dup(&answer->val.reject.reason, reason);
}

void exports_priority_prioritize(exports_priority_job_t *job, exports_priority_priority_decision_t *answer) {
    const char *reason;
    answer->score = score(job, &reason);
    answer->ageing_per_second = settings.ageing_per_second;
    policy_string_dup(&answer->reason, reason);
}

void exports_routing_route(
    exports_routing_job_t *job, exports_routing_list_candidate_t *list, exports_routing_route_decision_t *answer
) {
    candidates_t candidates = {list->len, list->ptr};
    decision_t decision = {.rows = malloc(sizeof(uint32_t) * (list->len + 1))};
    note(&heat, candidates, &settings);
    route(job, candidates, &heat, &settings, &decision);
    exports_routing_list_candidate_free(list);
    if (decision.count > 0) {
        answer->answer.tag = EXPORTS_ROUTING_ROUTE_ANSWER_RANKED;
        answer->answer.val.ranked = (policy_list_u32_t){decision.rows, decision.count};
    } else {
        answer->answer.tag = EXPORTS_ROUTING_ROUTE_ANSWER_HOLD;
        answer->answer.val.hold = decision.hold_ms;
        free(decision.rows);
    }
    policy_string_dup(&answer->reason, decision.reason);
}

static void count(uint32_t tenant, double seconds) {
    char name[200], key[240], line[300];
    tenant_name(tenant, name, sizeof name);
    snprintf(key, sizeof key, "used/%s", name);
    policy_string_t at = borrowed(key);
    // The time to live counts from the first job of a window, so the sum is forgotten when the window ends.
    uint32_t window = (uint32_t)(settings.quota_window_s * 1000);
    double sum;
    state_refusal_t refusal;
    if (state_increment(&at, seconds, &window, &sum, &refusal)) return;
    snprintf(line, sizeof line, "%s is not counted: refusal %u", key, refusal);
    policy_string_t message = borrowed(line);
    log_write(LOG_LEVEL_WARN, &message);
}

void exports_feedback_observe(exports_feedback_list_outcome_t *outcomes) {
    for (size_t i = 0; settings.quota_s > 0 && i < outcomes->len; i++)
        count(outcomes->ptr[i].tenant, outcomes->ptr[i].run_ms / 1000.0);
    exports_feedback_list_outcome_free(outcomes);
}

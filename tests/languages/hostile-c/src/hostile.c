// Misbehaves on purpose in `route`, in the ways of C: `{"do": "wild-write"}`. For tests of the host's limits.
//
// Without "always" it spares the load gate, whose sample views are dated 2023.

#include <stdlib.h>
#include <string.h>

#include "policy.h"

static const double TODAY_MS = 1.75e12;

static char settings[200];

// Not for the compiler to know.
static void (*volatile nothing)(void);
static void *volatile eaten;

bool exports_lifecycle_configure(policy_string_t *json, policy_string_t *error) {
    (void)error;
    size_t len = json->len < sizeof settings - 1 ? json->len : sizeof settings - 1;
    memcpy(settings, json->ptr, len);
    settings[len] = 0;
    policy_string_free(json);
    return true;
}

static bool does(const char *deed) {
    return (strstr(settings, "always") || clock_now_ms() > TODAY_MS) && strstr(settings, deed);
}

static int deep(volatile int *above) {
    volatile int frame[256];
    frame[0] = *above + 1;
    if (frame[0] < 0) return 0;
    return deep(frame) + frame[1];
}

// Does what is no answer.
static void crude(void) {
    if (does("null-call")) nothing();
    if (does("wild-write")) *(volatile uint32_t *)0xfffffff0u = 1;
    if (does("overflow")) {
        volatile int bottom = 0;
        deep(&bottom);
    }
    if (does("loop")) for (volatile uint32_t n = 0;; n++) {}
    if (does("host-calls")) for (;;) random_next();
    if (does("memory")) {
        do eaten = malloc(1 << 20); while (eaten);
        __builtin_trap();
    }
}

void exports_routing_route(
    exports_routing_job_t *job, exports_routing_list_candidate_t *candidates, exports_routing_route_decision_t *answer
) {
    (void)job;
    crude();
    uint32_t *rows = malloc(sizeof *rows * 2);
    rows[0] = rows[1] = does("no-such-row") ? candidates->len : 0;
    answer->answer.tag = EXPORTS_ROUTING_ROUTE_ANSWER_RANKED;
    answer->answer.val.ranked = (policy_list_u32_t){rows, 1};
    policy_string_dup(&answer->reason, "fine");
    exports_routing_list_candidate_free(candidates);
    // Pointers and lengths that are none, and a text that is no UTF-8.
    if (does("far-list")) answer->answer.val.ranked.ptr = (uint32_t *)0xfffffff0u;
    if (does("endless-list")) answer->answer.val.ranked.len = 0x7fffffff;
    if (does("crooked-list")) answer->answer.val.ranked.ptr = (uint32_t *)((char *)rows + 1);
    if (does("no-such-tag")) answer->answer.tag = 77;
    if (does("no-utf8")) answer->reason.ptr[0] = 0xff;
    if (does("far-text")) answer->reason.len = 0xfffffff0u;
}

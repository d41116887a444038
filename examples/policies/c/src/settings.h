// What the operator may set.
#pragma once

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    double quota_s;           // GPU seconds a tenant may use in a window; 0 is no quota
    double quota_window_s;
    double ageing_per_second; // points a waiting job gains in a second; a class is 100 points
    double max_extra_wait_ms; // the most a job waits for a better instance while another is free
    double hot_c;             // a card this hot gets no new jobs until it is at cool_c again
    double cool_c;
    double assumed_load_ms;   // taken for a load nothing is known about
} settings_t;

extern const settings_t default_settings;

// Reads a JSON object of numbers. On failure the message says what is wrong.
bool parse_settings(const char *json, size_t length, settings_t *settings, char *message, size_t room);

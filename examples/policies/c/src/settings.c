#include "settings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const settings_t default_settings = {
    .quota_s = 0,
    .quota_window_s = 3600,
    .ageing_per_second = 1,
    .max_extra_wait_ms = 15000,
    .hot_c = 83,
    .cool_c = 75,
    .assumed_load_ms = 8500,
};

static const struct {
    const char *name;
    size_t offset;
} known[] = {
    {"quota_s", offsetof(settings_t, quota_s)},
    {"quota_window_s", offsetof(settings_t, quota_window_s)},
    {"ageing_per_second", offsetof(settings_t, ageing_per_second)},
    {"max_extra_wait_ms", offsetof(settings_t, max_extra_wait_ms)},
    {"hot_c", offsetof(settings_t, hot_c)},
    {"cool_c", offsetof(settings_t, cool_c)},
    {"assumed_load_ms", offsetof(settings_t, assumed_load_ms)},
};

static double *field(settings_t *settings, const char *name, size_t length) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].name) == length && memcmp(known[i].name, name, length) == 0)
            return (double *)((char *)settings + known[i].offset);
    return NULL;
}

static const char *past_space(const char *at) {
    return at + strspn(at, " \t\r\n");
}

typedef struct {
    char *text;
    size_t room;
} message_t;

static bool wrong(message_t message, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message.text, message.room, format, arguments);
    va_end(arguments);
    return false;
}

// One `"name": number`, with `at` left behind it.
static bool member(const char **at, settings_t *settings, message_t message) {
    if (**at != '"') return wrong(message, "a name in quotes is expected at %.20s", *at);
    const char *name = *at + 1;
    size_t length = strcspn(name, "\"\\");
    double *value = field(settings, name, length);
    if (value == NULL || name[length] != '"') return wrong(message, "unknown setting %.*s", (int)length, name);
    const char *colon = past_space(name + length + 1);
    if (*colon != ':') return wrong(message, "%.*s has no value", (int)length, name);
    const char *start = past_space(colon + 1);
    char *end;
    *value = strtod(start, &end);
    if (end == start || strchr("-0123456789", *start) == NULL)
        return wrong(message, "%.*s must be a number", (int)length, name);
    *at = past_space(end);
    return true;
}

static bool object(const char *at, settings_t *settings, message_t message) {
    at = past_space(at);
    if (*at != '{') return wrong(message, "the settings are no object");
    at = past_space(at + 1);
    for (bool first = true; *at != '}'; first = false) {
        if (!first) {
            if (*at != ',') return wrong(message, "a comma or the end is expected at %.20s", at);
            at = past_space(at + 1);
        }
        if (!member(&at, settings, message)) return false;
    }
    return true;
}

static bool judged(const settings_t *settings, message_t message) {
    const char *const not_negative[] = {"quota_s", "ageing_per_second", "max_extra_wait_ms", "assumed_load_ms"};
    for (size_t i = 0; i < sizeof not_negative / sizeof *not_negative; i++) {
        const char *name = not_negative[i];
        if (*field((settings_t *)settings, name, strlen(name)) < 0) return wrong(message, "%s must not be negative", name);
    }
    if (settings->quota_window_s < 1) return wrong(message, "quota_window_s must be at least 1");
    if (settings->cool_c >= settings->hot_c) return wrong(message, "cool_c must be below hot_c");
    return true;
}

bool parse_settings(const char *json, size_t length, settings_t *settings, char *message, size_t room) {
    message_t said = {message, room};
    // What comes from outside has a length and no end.
    char *text = malloc(length + 1);
    if (text == NULL) return wrong(said, "the settings are too long");
    memcpy(text, json, length);
    text[length] = 0;
    *settings = default_settings;
    bool right = object(text, settings, said) && judged(settings, said);
    free(text);
    return right;
}

// Three plugins in one, chosen by `mode` in the settings: `redact`, `sample` and `check`.

#include "plugin.h"
#include <stdlib.h>
#include <string.h>

static char mode[16], by[64];
static double keep;
static uint32_t patterns;

// The text of a setting. Enough for a flat object of strings and numbers; a plugin with more settings takes a library.
static bool setting(const plugin_string_t *json, const char *name, char *out, size_t size) {
  char key[32] = "\"", *end = (char *)json->ptr + json->len;
  strcat(strncat(key, name, sizeof key - 3), "\"");
  char *at = memmem(json->ptr, json->len, key, strlen(key));
  if (!at) return false;
  for (at += strlen(key); at < end && (*at == ' ' || *at == ':'); at++);
  bool is_text = at < end && *at == '"';
  size_t length = 0;
  for (at += is_text; at < end && length + 1 < size && (is_text ? *at != '"' : *at != ',' && *at != '}'); at++) {
    if (is_text && *at == '\\' && ++at == end) break;
    out[length++] = *at;
  }
  out[length] = 0;
  return true;
}

static bool error(plugin_string_t *err, const char *text) {
  plugin_string_dup(err, text);
  return false;
}

void exports_trommel_plugin_lifecycle_describe(exports_trommel_plugin_lifecycle_manifest_t *manifest) {
  static const char *reads[] = {"body", "severity", "trace-id"}, *writes[] = {"body", "drop"};
  memset(manifest, 0, sizeof *manifest);
  plugin_string_dup(&manifest->name, "example");
  plugin_string_dup(&manifest->version, "0.1.0");
  manifest->signals.ptr = calloc(manifest->signals.len = 1, sizeof *manifest->signals.ptr);
  manifest->signals.ptr[0] = TROMMEL_PLUGIN_TYPES_SIGNAL_LOGS;
  manifest->reads.ptr = malloc((manifest->reads.len = 3) * sizeof(plugin_string_t));
  for (int i = 0; i < 3; i++) plugin_string_dup(&manifest->reads.ptr[i], reads[i]);
  manifest->writes.ptr = malloc((manifest->writes.len = 2) * sizeof(plugin_string_t));
  for (int i = 0; i < 2; i++) plugin_string_dup(&manifest->writes.ptr[i], writes[i]);
}

bool exports_trommel_plugin_lifecycle_configure(plugin_string_t *json, plugin_string_t *err) {
  char number[32] = "", pattern[256] = "";
  if (!setting(json, "mode", mode, sizeof mode)) return error(err, "`mode` is missing: redact, sample or check");
  if (setting(json, "keep", number, sizeof number)) keep = strtod(number, NULL);
  setting(json, "pattern", pattern, sizeof pattern);
  setting(json, "by", by, sizeof by);
  plugin_string_free(json);
  if (strcmp(mode, "redact")) return true;
  plugin_string_t text;
  plugin_string_set(&text, pattern);
  plugin_list_string_t list = {&text, 1};
  return trommel_plugin_host_compile(&list, &patterns, err);
}

static void count(const char *name, uint32_t by) {
  plugin_string_t text;
  plugin_string_set(&text, name);
  trommel_plugin_host_count(&text, by);
}

// The collector searches: no string moves.
static void redact(void) {
  plugin_string_t text;
  plugin_string_set(&text, by);
  plugin_list_string_t list = {&text, 1};
  count("redacted", trommel_plugin_batch_search_and_replace(patterns, TROMMEL_PLUGIN_TYPES_PLACES_BODY, &list));
}

// Errors stay, and of the other traces the part `keep`.
static void sample(void) {
  plugin_list_u8_t severities;
  plugin_list_f64_t fractions;
  trommel_plugin_batch_severities(&severities);
  trommel_plugin_batch_trace_fractions(&fractions);
  plugin_list_u32_t dropped = {malloc(severities.len * sizeof(uint32_t)), 0};
  for (size_t row = 0; row < severities.len; row++)
    if (severities.ptr[row] < 17 && fractions.ptr[row] < 1 - keep) dropped.ptr[dropped.len++] = row;
  trommel_plugin_batch_drop(&dropped);
  count("sampled-out", dropped.len);
  free(dropped.ptr);
  plugin_list_u8_free(&severities);
  plugin_list_f64_free(&fractions);
}

static bool is_any_marked(const char *mark) {
  plugin_list_string_t bodies;
  bool found = false;
  trommel_plugin_batch_texts(TROMMEL_PLUGIN_TYPES_PLACES_BODY, &bodies);
  for (size_t i = 0; i < bodies.len; i++)
    found |= memmem(bodies.ptr[i].ptr, bodies.ptr[i].len, mark, strlen(mark)) != NULL;
  plugin_list_string_free(&bodies);
  return found;
}

bool exports_trommel_plugin_processor_process(plugin_string_t *err) {
  if (!strcmp(mode, "redact")) redact();
  if (!strcmp(mode, "sample")) sample();
  // One that fails on some records: the collector finds out which, and lets the others pass.
  if (!strcmp(mode, "check")) {
    if (is_any_marked("UNREADABLE")) return error(err, "a record is marked as unreadable");
    count("checked", trommel_plugin_batch_rows(TROMMEL_PLUGIN_TYPES_LEVEL_ITEM));
  }
  // For the tests of limits: a call that never ends on records that say so.
  if (!strcmp(mode, "spin") && is_any_marked("ENDLESS"))
    for (volatile int i = 0;; i++);
  return true;
}

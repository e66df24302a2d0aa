/* What the parts of `every_call` have in common: its device and folder, a model small enough to reckon by hand. */
#ifndef WEFT_TESTS_EVERY_CALL_H
#define WEFT_TESTS_EVERY_CALL_H

#include "check.h"

static const char *folder, *model;
static weft_device *device;
static bool gpu;
static size_t released;

static void release(void *user_data) {
  CHECK(user_data == &released);
  released++;
}

static const char *path(const char *name) {
  static char text[4][1024];
  static int turn;
  turn = (turn + 1) % 4;
  snprintf(text[turn], sizeof text[turn], "%s/%s", folder, name);
  return text[turn];
}

static bool is(weft_str text, const char *wanted) {
  return text.length == strlen(wanted) && memcmp(text.data, wanted, text.length) == 0;
}

static bool bytes_are(weft_bytes *bytes, const char *wanted) {
  const uint8_t *data = NULL;
  size_t length = 0;
  OK(weft_bytes_data(bytes, &data, &length, &err));
  bool same = length == strlen(wanted) && memcmp(data, wanted, length) == 0 && data[length] == 0;
  OK(weft_bytes_free(bytes));
  return same;
}

/* Without the optimizer's help: relu(x·w + b), w of [3, 2] as linear takes it. */
static const float W[6] = {1, -2, 0.5f, 3, -1, 0.25f}, B[3] = {0.5f, -1, 2}, X[4] = {1, 2, -3, 0.5f};

static void expected(float *y) {
  for (int r = 0; r < 2; r++)
    for (int c = 0; c < 3; c++) {
      float sum = X[r * 2] * W[c * 2] + X[r * 2 + 1] * W[c * 2 + 1] + B[c];
      y[r * 3 + c] = sum > 0 ? sum : 0;
    }
}

static bool near(const float *a, const float *b, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (fabsf(a[i] - b[i]) > 1e-5f * (1 + fabsf(b[i]))) return false;
  return true;
}

#endif

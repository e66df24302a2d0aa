/* Arguments at random: right ones, wrong ones, NULLs, freed and forged handles, huge lengths. The program that includes this is
 * written from the header's declarations (ffi/tests/abi/misuse.rs). What the preamble asks of every caller is kept: a pointer that is
 * not NULL can be read or written as far as the lengths say, or the lengths are such that no memory has them. */
#ifndef WEFT_TESTS_RANDOM_H
#define WEFT_TESTS_RANDOM_H

#include <pthread.h>
#include <stdint.h>

enum { POOL = 24, ROOM = 4096 };

struct call {
  const char *name;
  weft_status (*run)(void);
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *pool[KINDS][POOL];
static const char *folder = "", *opened = "cpu"; /* the device that objects are made over */

/* Bytes that are never written to: files of the library's own formats among them. */
static unsigned char contents[4][ROOM];
static size_t contents_length[4];

static _Thread_local uint64_t seed;
static _Thread_local void *made[KINDS];
static _Thread_local weft_error *slot;
static _Thread_local weft_session *sessions[4];
static _Thread_local size_t text_length, data_length;
static _Thread_local uint64_t scratch[ROOM / 8];
static _Thread_local weft_value values[4];

static uint64_t draw(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed * 0x2545f4914f6cdd1du >> 16;
}

static bool chance(unsigned n) { return draw() % n == 0; }

static void *any_handle(int kind) {
  switch (draw() % 16) {
    case 0: return NULL;
    case 1: return (void *)(uintptr_t)draw();
    case 2: return (void *)(uintptr_t)(draw() % 64);
    case 3: kind = (int)(draw() % KINDS); /* of another type */
  }
  pthread_mutex_lock(&lock);
  void *handle = pool[kind][draw() % POOL];
  pthread_mutex_unlock(&lock);
  return handle;
}

static void *any_result(int kind) { return chance(16) ? NULL : &made[kind]; }
static weft_error **any_err(void) { return chance(4) ? NULL : &slot; }

static size_t huge(void) { return SIZE_MAX - 1 - draw() % 1000; }
static size_t any_size(void) { return chance(4) ? huge() : draw() % 5; }
static size_t any_count(void) { return chance(8) ? huge() : draw() % 5; }
static int64_t any_int(void) {
  static const int64_t odd[] = {INT64_MIN, INT64_MAX, INT32_MAX, -100, INT64_MIN + 1};
  return chance(8) ? odd[draw() % COUNT(odd)] : (int64_t)(draw() % 7) - 2;
}
static uint32_t any_small(void) { return chance(8) ? (uint32_t)draw() : (uint32_t)(draw() % 5); }
static weft_dtype any_dtype(void) { return chance(16) ? (weft_dtype)draw() : chance(2) ? WEFT_DTYPE_F32 : (weft_dtype)(draw() % 11); }
static uint32_t any_threads(void) { return chance(4) ? 5000 + (uint32_t)(draw() % 1000) : (uint32_t)(draw() % 3); }
static double any_real(void) {
  static const double all[] = {0, 1, -1, 0.5, 1e-30, 1e300, INFINITY, -INFINITY, NAN};
  return all[draw() % COUNT(all)];
}
static weft_value any_value(void) {
  return chance(16) ? (weft_value)draw() : chance(8) ? WEFT_VALUE_NONE : (weft_value)(draw() % 6);
}
static weft_value *any_value_place(void) { return chance(16) ? NULL : &values[0]; }
static const uint32_t *any_values(void) {
  if (chance(16)) return NULL;
  for (size_t i = 0; i < 4; i++) values[i] = any_value();
  return values;
}
static const size_t *any_sizes(void) {
  static _Thread_local size_t sizes[4];
  if (chance(16)) return NULL;
  for (size_t i = 0; i < 4; i++) sizes[i] = chance(16) ? huge() : draw() % 5;
  return sizes;
}
static const int64_t *any_ints(void) {
  static _Thread_local int64_t ints[4];
  if (chance(16)) return NULL;
  for (size_t i = 0; i < 4; i++) ints[i] = any_int();
  return ints;
}
static float *any_floats(void) { return chance(16) ? NULL : (float *)scratch; }
static void *any_place(void) { return chance(16) ? NULL : scratch; }

static const char *any_text_of(const char *const *all, size_t count) {
  const char *text = all[draw() % count];
  text_length = strlen(text);
  switch (draw() % 8) {
    case 0: text_length = WEFT_NUL_TERMINATED; break;
    case 1: text_length = huge(); break;
    case 2: text_length = text_length / 2; break;
    case 3:
      if (chance(4)) text = NULL;
  }
  return text;
}

static const char GRAPH[] =
    "weft 1\ninput x: f32[1, 4]\nparam w: f32[3, 4]\nparam b: f32[3]\nstate s: f32[1, 3]\nlogits = linear(x, w, b)\n"
    "sum = add(s, logits)\nnext s = sum\n"
    "y = softmax(logits, axis=-1)\noutput y = y\nl = mean(logits, axes=[0, 1], keepdim=false)\nloss l\n";
static const char TOKENS[] =
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":"
    "{\"type\":\"Whitespace\"},\"post_processor\":null,\"decoder\":null,\"model\":{\"type\":\"WordLevel\",\"vocab\":"
    "{\"[UNK]\":0,\"hello\":1},\"unk_token\":\"[UNK]\"}}";

static const char *any_text(void) {
  static const char *const all[] = {"x", "w", "b", "y", "s", "main", "hello", "loss", "", "\xff\xc0", "a name", GRAPH, "weft 1\nx = (", "s\xc3\xa4"};
  return any_text_of(all, COUNT(all));
}
static const char *any_device(void) {
  static const char *const all[] = {"cpu", "0", "none of these", "", "CPU"};
  if (strcmp(opened, "cpu") != 0 && chance(4)) return any_text_of(&opened, 1);
  return any_text_of(all, COUNT(all));
}
static const char *any_path_that_is_none(void) {
  static const char *const bad[] = {"/dev/null/nonexistent/file", "", "/", "/dev/null/x/and/more", "\xff"};
  return any_text_of(bad, COUNT(bad));
}
static const char *any_path(void) {
  static _Thread_local char path[1100];
  if (!chance(100)) return any_path_that_is_none();
  snprintf(path, sizeof path, "%s/%d", folder, (int)(draw() % 4));
  text_length = strlen(path);
  return path;
}
static const char *any_trace(void) {
  static _Thread_local char path[1100];
  if (!chance(100)) return any_path_that_is_none();
  snprintf(path, sizeof path, "%s/trace", folder);
  text_length = strlen(path);
  return path;
}
static void *any_data(void) {
  size_t which = draw() % 4;
  data_length = contents_length[which];
  switch (draw() % 8) {
    case 0: data_length = draw() % (data_length + 1); break;
    case 1: data_length = huge(); break;
    case 2: data_length = 4 * (draw() % 17); break;
    case 3: data_length = 16; break;
    case 4: return chance(4) ? NULL : contents[which] + 1;
  }
  if (data_length > ROOM - 8 && data_length < SIZE_MAX / 2) data_length = ROOM - 8;
  return contents[which];
}
static const weft_str *any_strings(void) {
  static _Thread_local weft_str all[4];
  if (chance(16)) return NULL;
  for (size_t i = 0; i < 4; i++) {
    all[i].data = any_text();
    all[i].length = text_length;
  }
  return all;
}
static const weft_batches *any_batches(void) {
  static _Thread_local weft_batches all[4];
  if (chance(16)) return NULL;
  for (size_t i = 0; i < 4; i++) {
    all[i] = (weft_batches){{"x", 1}, contents[3], 16 * (draw() % 4), WEFT_DTYPE_F32, 0};
    if (chance(8)) all[i].data_bytes = huge();
  }
  return all;
}
static const weft_setting *any_settings(void) {
  static const char *const known[] = {"beta1", "momentum", "weight_decay", "epsilon"};
  static _Thread_local weft_setting all[4];
  if (chance(16)) return NULL;
  for (size_t i = 0; i < 4; i++) {
    all[i] = (weft_setting){{known[draw() % 4], WEFT_NUL_TERMINATED}, chance(4) ? -1 : 0.5f, chance(16)};
    if (chance(8)) all[i].name = (weft_str){any_text(), text_length};
  }
  return all;
}
static const weft_parameter_group *any_groups(void) {
  static _Thread_local weft_parameter_group all[4];
  if (chance(16)) return NULL;
  for (size_t i = 0; i < 4; i++) {
    all[i] = (weft_parameter_group){any_strings(), draw() % 5, chance(4) ? -1 : 2, chance(2) ? NAN : 0};
    if (chance(8)) all[i].names_count = huge();
  }
  return all;
}
/* Zeros but for the size and the field behind it, which is a small number. */
static void *any_structure(size_t size) {
  if (chance(16)) return NULL;
  memset(scratch, 0, 1024);
  size_t sizes[] = {size, size, size, size, size + 16, size - 8, 0, 3, huge(), 5000};
  size_t said = sizes[draw() % COUNT(sizes)];
  memcpy(scratch, &said, sizeof said);
  uint32_t field = chance(8) ? (uint32_t)draw() % 50 : (uint32_t)(draw() % 2);
  memcpy((char *)scratch + sizeof said, &field, sizeof field);
  if (chance(16)) scratch[size / 8] = draw(); /* unknown to the library */
  return scratch;
}

static void on_progress(void *user_data, size_t done, size_t all) { (void)user_data, (void)done, (void)all; }
static void on_log(void *user_data, weft_log_level level, weft_str line) { (void)user_data, (void)level, (void)line; }
static uint32_t on_tap(void *user_data, const weft_tensor_info *info, const void *data) {
  (void)user_data, (void)info, (void)data;
  return chance(4);
}

#endif

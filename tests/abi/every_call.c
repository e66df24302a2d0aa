/* Calls every function of the header that is no operation (those are called by a generated program), and checks what
 * it does.
 *
 *     every_call DEVICE FOLDER [MODEL]
 *
 * DEVICE is "cpu" or "gpu"; FOLDER is empty and may be written to; MODEL is a sentence encoder's. WEFT_TEST_STACK=BYTES calls all of it
 * on a thread with a stack of that size. */
#include <pthread.h>
#include "calls_graphs.h"
#include "calls_sessions.h"

static size_t logged;

static void hook(void *user_data, weft_log_level level, weft_str line) {
  CHECK(user_data == &logged && level >= WEFT_LOG_ERROR && level <= WEFT_LOG_DEBUG && line.length > 0);
  ENDS("weft_log_fn", line);
  logged++;
}

static void versions_and_errors(void) {
  char text[32];
  snprintf(text, sizeof text, "%d.%d.%d", WEFT_VERSION_MAJOR, WEFT_VERSION_MINOR, WEFT_VERSION_PATCH);
  CHECK(strcmp(text, weft_version()) == 0);
  CHECK(weft_abi_version() == WEFT_ABI_VERSION);
  CHECK(strcmp(weft_status_name(WEFT_STATUS_DEVICE_LOST), "WEFT_STATUS_DEVICE_LOST") == 0);
  CHECK(strcmp(weft_status_name(12345), "unknown") == 0);
  CHECK(weft_error_status(NULL) == WEFT_STATUS_OK);
  CHECK(weft_error_message(NULL).length == 0 && weft_error_call(NULL).length == 0);
  OK(weft_error_free(NULL));
  weft_device *none = NULL;
  CHECK(weft_device_open("no such device", NUL, 0, &none, &err) == WEFT_STATUS_DEVICE && none == NULL);
  CHECK(weft_error_status(err) == WEFT_STATUS_DEVICE && is(weft_error_call(err), "weft_device_open"));
  CHECK(strstr(weft_error_message(err).data, "no such device") != NULL);
  OK(weft_error_free(err));
  CHECK(weft_error_status(err) == WEFT_STATUS_HANDLE && weft_error_message(err).length == 0);
  CHECK(weft_error_free(err) == WEFT_STATUS_HANDLE);
  err = NULL;
  CHECK(weft_device_open("cpu", NUL, 0, NULL, NULL) == WEFT_STATUS_NULL);
  FAILS(WEFT_STATUS_UTF8, weft_device_open("\xff\xfe", NUL, 0, &none, &err));
  FAILS(WEFT_STATUS_ARGUMENT, weft_device_open("cpu", (size_t)1 << 20, 0, &none, &err));
}

static void devices(const char *which) {
  weft_device_list *list = NULL;
  size_t count = 0;
  OK(weft_log_set(WEFT_LOG_DEBUG, hook, &logged, NULL, &err));
  OK(weft_device_list_new(&list, &err));
  OK(weft_device_list_count(list, &count, &err));
  CHECK(count >= 1);
  weft_device_info info = {.struct_size = sizeof info};
  OK(weft_device_list_get(list, 0, &info, &err));
  CHECK(is(info.name, "cpu") && info.kind == WEFT_DEVICE_CPU && info.threads >= 1);
  FAILS(WEFT_STATUS_ARGUMENT, weft_device_list_get(list, count, &info, &err));
  info.struct_size = 3;
  FAILS(WEFT_STATUS_STRUCT, weft_device_list_get(list, 0, &info, &err));
  OK(weft_device_list_free(list));
  OK(weft_device_open(which, NUL, 2, &device, &err));
  CHECK(logged > 0);
  info.struct_size = offsetof(weft_device_info, detail); /* an older caller's */
  info.threads = 77;
  OK(weft_device_get_info(device, &info, &err));
  CHECK(info.name.length > 0 && info.threads == 77);
  info.struct_size = sizeof info;
  OK(weft_device_get_info(device, &info, &err));
  CHECK(info.detail.length > 0 && info.threads != 77);
  weft_bytes *bytes = NULL;
  weft_device *best = NULL;
  OK(weft_device_open("best", NUL, 1, &best, &err));
  OK(weft_device_passed_over(best, &bytes, &err));
  OK(weft_bytes_free(bytes));
  OK(weft_device_free(best));
  OK(weft_device_passed_over(device, &bytes, &err));
  OK(weft_bytes_free(bytes));
  OK(weft_device_profile(device, &bytes, &err));
  OK(weft_bytes_free(bytes));
  uint64_t used = 1, budget = 1;
  OK(weft_device_memory(device, &used, &budget, &err));
  if (gpu)
    OK(weft_device_set_memory_budget(device, budget, &err));
  else
    FAILS(WEFT_STATUS_DEVICE, weft_device_set_memory_budget(device, 1, &err));
  FAILS(WEFT_STATUS_HANDLE, weft_device_trim((weft_device *)bytes, &err));
  OK(weft_log_set(WEFT_LOG_OFF, NULL, NULL, NULL, &err));
  OK(weft_log_set(WEFT_LOG_WARN, hook, &logged, NULL, &err));
}

static void artifacts(const weft_compiled *compiled, const weft_weights *w) {
  weft_compiled *again = NULL;
  weft_bytes *file = NULL;
  const uint8_t *data = NULL;
  size_t length = 0, count = 0;
  OK(weft_compiled_save(compiled, path("one.weftc"), NUL, &err));
  OK(weft_compiled_load(device, path("one.weftc"), NUL, &again, &err));
  OK(weft_compiled_free(again));
  OK(weft_compiled_to_bytes(compiled, &file, &err));
  OK(weft_bytes_data(file, &data, &length, &err));
  OK(weft_compiled_from_bytes(device, data, length, &again, &err));
  OK(weft_compiled_free(again));
  FAILS(WEFT_STATUS_ARTIFACT, weft_compiled_from_bytes(device, data, length / 2, &again, &err));
  OK(weft_bytes_free(file));

  weft_artifact *a = NULL, *b = NULL;
  OK(weft_artifact_new(&a, &err));
  OK(weft_artifact_add(a, "first", NUL, compiled, &err));
  OK(weft_artifact_add(a, "second", NUL, compiled, &err));
  FAILS(WEFT_STATUS_ARGUMENT, weft_artifact_add(a, "second", NUL, compiled, &err));
  OK(weft_artifact_set_metadata(a, "model", NUL, "a small one", NUL, &err));
  OK(weft_artifact_save(a, path("two.weftc"), NUL, &err));
  OK(weft_artifact_load(device, path("two.weftc"), NUL, NULL, NULL, NULL, &b, &err));
  OK(weft_artifact_free(b));
  OK(weft_artifact_to_bytes(a, &file, &err));
  OK(weft_bytes_data(file, &data, &length, &err));
  OK(weft_artifact_from_bytes(device, data, length, &b, &err));
  OK(weft_bytes_free(file));
  OK(weft_artifact_count(b, &count, &err));
  CHECK(count == 2);
  weft_str name = {NULL, 0};
  OK(weft_artifact_name(b, 1, &name, &err));
  CHECK(is(name, "second"));
  OK(weft_artifact_metadata(b, "model", NUL, &file, &err));
  CHECK(bytes_are(file, "a small one"));
  OK(weft_artifact_get(b, "first", NUL, &again, &err));
  OK(weft_compiled_free(again));
  OK(weft_artifact_weight_count(b, &count, &err));
  CHECK(count == 2);
  weft_tensor_info info = {.struct_size = sizeof info};
  OK(weft_artifact_weight(b, 0, &info, &file, &err));
  OK(weft_bytes_free(file));
  weft_session *sessions[2] = {NULL, NULL};
  FAILS(WEFT_STATUS_ARGUMENT, weft_artifact_init_all(b, w, sessions, 1, &err));
  OK(weft_artifact_init_all(b, w, sessions, 2, &err));
  float y[6], wanted[6];
  expected(wanted);
  for (int i = 0; i < 2; i++) {
    OK(weft_session_set_input(sessions[i], "x", NUL, WEFT_DTYPE_F32, X, sizeof X, &err));
    OK(weft_session_step(sessions[i], &err));
    OK(weft_session_read_output(sessions[i], "y", NUL, WEFT_DTYPE_F32, y, sizeof y, &err));
    CHECK(near(y, wanted, 6));
    OK(weft_session_free(sessions[i]));
  }
  OK(weft_artifact_free(a));
  OK(weft_artifact_free(b));

  /* for a device that is not here */
  weft_graph *g = graph(false);
  weft_bytes *profile = NULL;
  OK(weft_device_profile(device, &profile, &err));
  OK(weft_bytes_data(profile, &data, &length, &err));
  weft_compile_options options = WEFT_COMPILE_OPTIONS_INIT;
  options.profile = (const char *)data;
  options.profile_length = length;
  weft_session *s = NULL;
  OK(weft_compile(NULL, g, &options, &again, &err));
  FAILS(WEFT_STATUS_DEVICE, weft_compiled_init_zeros(again, &s, &err));
  OK(weft_compiled_free(again));
  OK(weft_bytes_free(profile));
  OK(weft_graph_free(g));
}

static const char TOKENIZER[] =
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],\"normalizer\":null,"
    "\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"post_processor\":null,\"decoder\":null,"
    "\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"[UNK]\":0,\"hello\":1,\"world\":2},\"unk_token\":\"[UNK]\"}}";

static void texts(void) {
  weft_tokenizer *t = NULL;
  weft_encoding *e = NULL;
  weft_bytes *text = NULL;
  size_t tokens = 0;
  uint32_t pad = 9, id = 0;
  OK(weft_tokenizer_from_memory(TOKENIZER, sizeof TOKENIZER - 1, &t, &err));
  OK(weft_tokenizer_sizes(t, &tokens, &pad, &err));
  CHECK(tokens == 3 && pad == 0);
  OK(weft_tokenizer_encode(t, "world hello there", NUL, NULL, 0, 2, &e, &err));
  weft_tokens seen = {.struct_size = sizeof seen};
  OK(weft_encoding_get(e, &seen, &err));
  CHECK(seen.count == 2 && seen.ids[0] == 2 && seen.ids[1] == 1 && seen.type_ids[0] == 0 && seen.truncated == 1);
  OK(weft_tokenizer_decode(t, seen.ids, seen.count, false, &text, &err));
  CHECK(bytes_are(text, "world hello"));
  OK(weft_encoding_free(e));
  OK(weft_tokenizer_token_id(t, "hello", NUL, &id, &err));
  CHECK(id == 1);
  FAILS(WEFT_STATUS_UNKNOWN_NAME, weft_tokenizer_token_id(t, "hullo", NUL, &id, &err));
  OK(weft_tokenizer_token(t, 2, &text, &err));
  CHECK(bytes_are(text, "world"));
  OK(weft_tokenizer_free(t));
  FAILS(WEFT_STATUS_TOKENIZER, weft_tokenizer_from_memory("{}", 2, &t, &err));
  FAILS(WEFT_STATUS_IO, weft_tokenizer_load(path("not there"), NUL, &t, &err));
}

static void sentences(void) {
  weft_encoder *e = NULL;
  if (model == NULL) {
    /* every call all the same */
    weft_memory_summary summary = {.struct_size = sizeof summary};
    FAILS(WEFT_STATUS_IO, weft_encoder_open(device, path("not there"), NUL, WEFT_PRECISION_FULL, &e, &err));
    FAILS(WEFT_STATUS_NULL, weft_encoder_sizes(e, (size_t[1]){0}, (size_t[1]){0}, &err));
    FAILS(WEFT_STATUS_NULL, weft_encoder_embed(e, NULL, 0, NULL, 0, NULL, NULL, &err));
    FAILS(WEFT_STATUS_NULL, weft_encoder_set_prompt(e, "x", NUL, &err));
    FAILS(WEFT_STATUS_NULL, weft_encoder_set_prompt_name(e, NULL, 0, &err));
    FAILS(WEFT_STATUS_NULL, weft_encoder_add_artifact(e, NULL, &err));
    FAILS(WEFT_STATUS_NULL, weft_encoder_memory_summary(e, &summary, &err));
    OK(weft_encoder_free(e));
    return;
  }
  size_t components = 0, most = 0, told = 0;
  OK(weft_encoder_open(device, model, NUL, WEFT_PRECISION_FULL, &e, &err));
  OK(weft_encoder_sizes(e, &components, &most, &err));
  CHECK(components > 0 && most > 0);
  const weft_str all[2] = {{"The cat sits outside", NUL}, {"A cat is sitting outdoors", NUL}};
  float *vectors = malloc(2 * components * sizeof(float)), cosine = 0, length = 0;
  CHECK(vectors != NULL);
  OK(weft_encoder_embed(e, all, 2, vectors, 2 * components, count_kernels, &told, &err));
  for (size_t i = 0; i < components; i++) {
    cosine += vectors[i] * vectors[components + i];
    length += vectors[i] * vectors[i];
  }
  CHECK(told > 0 && fabsf(length - 1) < 1e-4f && cosine > 0.7f && cosine < 1);
  /* a prompt changes vectors, none and a model's empty one do not */
  const float first = vectors[0];
  OK(weft_encoder_set_prompt(e, "query: ", NUL, &err));
  OK(weft_encoder_embed(e, all, 2, vectors, 2 * components, NULL, NULL, &err));
  CHECK(fabsf(vectors[0] - first) > 1e-5f);
  OK(weft_encoder_set_prompt_name(e, "query", NUL, &err));
  OK(weft_encoder_embed(e, all, 2, vectors, 2 * components, NULL, NULL, &err));
  CHECK(fabsf(vectors[0] - first) < 1e-6f);
  FAILS(WEFT_STATUS_UNKNOWN_NAME, weft_encoder_set_prompt_name(e, "no such prompt", NUL, &err));
  OK(weft_encoder_set_prompt_name(e, NULL, 0, &err));
  OK(weft_encoder_set_prompt(e, NULL, 0, &err));
  FAILS(WEFT_STATUS_ARGUMENT, weft_encoder_embed(e, all, 2, vectors, components, NULL, NULL, &err));
  weft_memory_summary summary = {.struct_size = sizeof summary};
  OK(weft_encoder_memory_summary(e, &summary, &err));
  CHECK(summary.total_bytes > 1000000);
  weft_artifact *a = NULL;
  OK(weft_artifact_new(&a, &err));
  FAILS(WEFT_STATUS_ARGUMENT, weft_encoder_add_artifact(e, a, &err));
  OK(weft_artifact_free(a));
  OK(weft_encoder_free(e));
  free(vectors);
}

static int every_call(int argc, char **argv) {
  CHECK(argc == 3 || argc == 4);
  gpu = strcmp(argv[1], "gpu") == 0;
  folder = argv[2];
  model = argc == 4 ? argv[3] : NULL;
  versions_and_errors();
  devices(argv[1]);
  weft_weights *w = weights();
  graphs();
  states();
  weft_compiled *compiled = compile();
  run(compiled, w);
  refused();
  training(w);
  artifacts(compiled, w);
  texts();
  sentences();
  OK(weft_compiled_free(compiled));
  OK(weft_weights_free(w));
  /* the tensor that was lent at the beginning is needed no longer */
  CHECK(released == 1);
  OK(weft_log_set(WEFT_LOG_OFF, NULL, NULL, NULL, &err));
  OK(weft_device_free(device));
  printf("every call\n");
  return 0;
}

struct arguments {
  int count;
  char **values;
};

static void *on_a_thread(void *given) {
  struct arguments *a = given;
  return (void *)(intptr_t)every_call(a->count, a->values);
}

int main(int argc, char **argv) {
  const char *stack = getenv("WEFT_TEST_STACK");
  if (stack == NULL) return every_call(argc, argv);
  pthread_attr_t attributes;
  pthread_t thread;
  void *outcome = NULL;
  struct arguments a = {argc, argv};
  CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, (size_t)atol(stack)) == 0);
  CHECK(pthread_create(&thread, &attributes, on_a_thread, &a) == 0 && pthread_join(thread, &outcome) == 0);
  CHECK(pthread_attr_destroy(&attributes) == 0);
  return (int)(intptr_t)outcome;
}

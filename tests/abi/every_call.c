/* Calls every function of the header that is no operation (those are called by a generated program), and checks what
 * it does.
 *
 *     every_call DEVICE FOLDER [MODEL]
 *
 * DEVICE is "cpu" or "gpu"; FOLDER is empty and may be written to; MODEL is a sentence encoder's. */
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

static size_t logged;

static void hook(void *user_data, weft_log_level level, weft_str line) {
  CHECK(user_data == &logged && level >= WEFT_LOG_ERROR && level <= WEFT_LOG_DEBUG && line.length > 0);
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
  weft_bytes *bytes = NULL;
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

static weft_weights *weights(void) {
  weft_weights *w = NULL, *again = NULL;
  size_t count = 0;
  OK(weft_weights_new(&w, &err));
  OK(weft_weights_insert(w, "w", NUL, WEFT_DTYPE_F32, (size_t[]){3, 2}, 2, W, sizeof W, &err));
  OK(weft_weights_insert_borrowed(w, "b", NUL, WEFT_DTYPE_F32, (size_t[]){3}, 1, B, sizeof B, release, &released, &err));
  FAILS(WEFT_STATUS_LENGTH, weft_weights_insert(w, "c", NUL, WEFT_DTYPE_F32, (size_t[]){4}, 1, B, sizeof B, &err));
  FAILS(WEFT_STATUS_ARGUMENT, weft_weights_insert(w, "c", NUL, 99, (size_t[]){3}, 1, B, sizeof B, &err));
  /* what fails releases nothing */
  FAILS(WEFT_STATUS_LENGTH, weft_weights_insert_borrowed(w, "c", NUL, WEFT_DTYPE_F32, (size_t[]){4}, 1, B, sizeof B, release, &released, &err));
  CHECK(released == 0);
  OK(weft_weights_count(w, &count, &err));
  CHECK(count == 2);
  weft_tensor_info info = {.struct_size = sizeof info};
  const void *data = NULL;
  OK(weft_weights_get(w, 0, &info, &data, &err));
  CHECK(is(info.name, "b") && info.rank == 1 && info.shape[0] == 3 && info.bytes == 12 && data == (const void *)B);
  OK(weft_weights_find(w, "w", NUL, &info, NULL, &err));
  CHECK(info.rank == 2 && info.shape[0] == 3 && info.shape[1] == 2 && info.dtype == WEFT_DTYPE_F32);
  FAILS(WEFT_STATUS_UNKNOWN_NAME, weft_weights_find(w, "x", NUL, &info, &data, &err));
  OK(weft_weights_set_metadata(w, "made by", NUL, "every_call", NUL, &err));
  weft_bytes *text = NULL;
  OK(weft_weights_metadata(w, "made by", NUL, &text, &err));
  CHECK(bytes_are(text, "every_call"));
  FAILS(WEFT_STATUS_UNKNOWN_NAME, weft_weights_metadata(w, "kept by", NUL, &text, &err));
  OK(weft_weights_save(w, path("w.safetensors"), NUL, &err));
  OK(weft_weights_load(path("w.safetensors"), NUL, &again, &err));
  OK(weft_weights_find(again, "w", NUL, &info, &data, &err));
  CHECK(memcmp(data, W, sizeof W) == 0);
  OK(weft_weights_free(again));
  FAILS(WEFT_STATUS_IO, weft_weights_load(path("not there"), NUL, &again, &err));
  weft_bytes *file = NULL;
  const uint8_t *bytes = NULL;
  size_t length = 0;
  OK(weft_weights_to_bytes(w, &file, &err));
  OK(weft_bytes_data(file, &bytes, &length, &err));
  OK(weft_weights_from_memory(bytes, length, &again, &err));
  OK(weft_weights_free(again));
  FAILS(WEFT_STATUS_SAFETENSORS, weft_weights_from_memory(bytes, length - 1, &again, &err));
  OK(weft_weights_from_buffer(bytes, length, release, &released, &again, &err));
  OK(weft_weights_count(again, &count, &err));
  CHECK(count == 2 && released == 0);
  OK(weft_weights_free(again));
  CHECK(released == 1);
  released = 0;
  OK(weft_bytes_free(file));
  return w;
}

static weft_graph *graph(bool loss) {
  weft_graph *g = NULL;
  weft_value x = WEFT_VALUE_NONE, w = WEFT_VALUE_NONE, b = WEFT_VALUE_NONE, y = WEFT_VALUE_NONE;
  OK(weft_graph_new(&g, &err));
  OK(weft_graph_input(g, "x", NUL, WEFT_DTYPE_F32, (size_t[]){2, 2}, 2, &x, &err));
  OK(weft_graph_parameter(g, "w", NUL, WEFT_DTYPE_F32, (size_t[]){3, 2}, 2, true, &w, &err));
  OK(weft_graph_parameter(g, "b", NUL, WEFT_DTYPE_F32, (size_t[]){3}, 1, true, &b, &err));
  OK(weft_op_linear(g, x, w, b, &y, &err));
  OK(weft_graph_name(g, y, "linear", NUL, &err));
  OK(weft_op_relu(g, y, &y, &err));
  OK(weft_graph_output(g, "y", NUL, y, &err));
  weft_tensor_info info = {.struct_size = sizeof info};
  OK(weft_graph_value_info(g, y, &info, &err));
  CHECK(info.rank == 2 && info.shape[0] == 2 && info.shape[1] == 3);
  if (loss) {
    int64_t axes[] = {0, 1};
    weft_value l = WEFT_VALUE_NONE;
    OK(weft_op_mean(g, y, axes, 2, false, &l, &err));
    OK(weft_graph_set_loss(g, l, &err));
  }
  return g;
}

static void graphs(void) {
  weft_graph *g = graph(false), *again = NULL;
  weft_bytes *text = NULL, *text2 = NULL;
  const uint8_t *data = NULL, *data2 = NULL;
  size_t length = 0, length2 = 0;
  OK(weft_graph_text(g, &text, &err));
  OK(weft_bytes_data(text, &data, &length, &err));
  OK(weft_graph_parse((const char *)data, length, &again, &err));
  OK(weft_graph_text(again, &text2, &err));
  OK(weft_bytes_data(text2, &data2, &length2, &err));
  CHECK(length == length2 && memcmp(data, data2, length) == 0);
  OK(weft_bytes_free(text));
  OK(weft_bytes_free(text2));
  OK(weft_graph_free(again));
  FAILS(WEFT_STATUS_PARSE, weft_graph_parse("weft 1\nnonsense", NUL, &again, &err));
  /* an error of the building stays: later calls and compile tell of it */
  weft_value x = WEFT_VALUE_NONE, y = WEFT_VALUE_NONE;
  OK(weft_graph_input(g, "x2", NUL, WEFT_DTYPE_F32, (size_t[]){5, 7}, 2, &x, &err));
  FAILS(WEFT_STATUS_OP, weft_op_matmul(g, x, x, false, false, &y, &err));
  CHECK(y == WEFT_VALUE_NONE);
  FAILS(WEFT_STATUS_OP, weft_op_relu(g, y, &y, &err));
  FAILS(WEFT_STATUS_OP, weft_graph_output(g, "z", NUL, y, &err));
  weft_compiled *compiled = NULL;
  FAILS(WEFT_STATUS_OP, weft_compile(device, g, NULL, &compiled, &err));
  OK(weft_graph_free(g));

  OK(weft_graph_new(&g, &err));
  OK(weft_graph_input(g, "x", NUL, WEFT_DTYPE_F32, (size_t[]){1, 1, 8, 8}, 4, &x, &err));
  OK(weft_graph_cnn(g, x, (size_t[]){2, 3}, 2, 4, &y, &err));
  OK(weft_graph_mlp(g, y, (size_t[]){4, 5}, 2, &y, &err));
  weft_tensor_info info = {.struct_size = sizeof info};
  OK(weft_graph_value_info(g, y, &info, &err));
  CHECK(info.rank == 2 && info.shape[1] == 5);
  OK(weft_graph_free(g));
}

/* A state that counts by a constant of 2 and a scalar of 0.5, multiplied. */
static void states(void) {
  weft_graph *g = NULL;
  weft_value s = WEFT_VALUE_NONE, two = WEFT_VALUE_NONE, half = WEFT_VALUE_NONE, sum = WEFT_VALUE_NONE;
  const float twos[2] = {2, 2};
  OK(weft_graph_new(&g, &err));
  OK(weft_graph_state(g, "s", NUL, WEFT_DTYPE_F32, (size_t[]){2}, 1, &s, &err));
  OK(weft_graph_constant(g, WEFT_DTYPE_F32, (size_t[]){2}, 1, twos, sizeof twos, &two, &err));
  OK(weft_graph_scalar(g, 0.5, WEFT_DTYPE_F32, &half, &err));
  OK(weft_op_mul(g, two, half, &two, &err));
  OK(weft_op_add(g, s, two, &sum, &err));
  OK(weft_graph_set_state(g, s, sum, &err));
  OK(weft_graph_output(g, "sum", NUL, sum, &err));
  weft_compiled *compiled = NULL;
  weft_session *session = NULL;
  OK(weft_compile(device, g, NULL, &compiled, &err));
  OK(weft_compiled_init_zeros(compiled, &session, &err));
  float now[2] = {0}, then[2] = {10, 20};
  for (int i = 0; i < 3; i++) OK(weft_session_step(session, &err));
  OK(weft_session_read_state(session, "s", NUL, now, sizeof now, &err));
  CHECK(now[0] == 3 && now[1] == 3);
  OK(weft_session_write_state(session, "s", NUL, then, sizeof then, &err));
  OK(weft_session_step(session, &err));
  OK(weft_session_read_output_at(session, 0, WEFT_DTYPE_F32, now, sizeof now, &err));
  CHECK(now[0] == 11 && now[1] == 21);
  OK(weft_session_reset_state(session, &err));
  OK(weft_session_read_state(session, "s", NUL, now, sizeof now, &err));
  CHECK(now[0] == 0 && now[1] == 0);
  FAILS(WEFT_STATUS_UNKNOWN_NAME, weft_session_write_state(session, "t", NUL, then, sizeof then, &err));
  FAILS(WEFT_STATUS_LENGTH, weft_session_read_state(session, "s", NUL, now, 4, &err));
  OK(weft_session_free(session));
  OK(weft_compiled_free(compiled));
  OK(weft_graph_free(g));
}

static void count_kernels(void *user_data, size_t done, size_t all) {
  CHECK(done <= all);
  ++*(size_t *)user_data;
}

static weft_compiled *compile(void) {
  weft_graph *g = graph(false);
  weft_compiled *compiled = NULL;
  weft_cancel *cancel = NULL;
  size_t told = 0, count = 0;
  bool cached = true;
  weft_compile_options options = WEFT_COMPILE_OPTIONS_INIT;
  options.progress = count_kernels;
  options.progress_user_data = &told;
  options.cache_folder = path("cache");
  OK(weft_cancel_new(&cancel, &err));
  options.cancel = cancel;
  OK(weft_compile(device, g, &options, &compiled, &err));
  CHECK(told > 0);
  OK(weft_compiled_was_cached(compiled, &cached, &err));
  CHECK(!cached);
  OK(weft_compiled_free(compiled));
  OK(weft_compile(device, g, &options, &compiled, &err));
  OK(weft_compiled_was_cached(compiled, &cached, &err));
  CHECK(cached);
  OK(weft_cancel_request(cancel, &err));
  options.cache_folder = NULL;
  weft_compiled *none = NULL;
  FAILS(WEFT_STATUS_CANCELLED, weft_compile(device, g, &options, &none, &err));
  OK(weft_cancel_free(cancel));
  options.cancel = NULL;
  options.precision = 9;
  FAILS(WEFT_STATUS_ARGUMENT, weft_compile(device, g, &options, &none, &err));
  options.precision = WEFT_PRECISION_FULL;
  options.struct_size = 0;
  FAILS(WEFT_STATUS_STRUCT, weft_compile(device, g, &options, &none, &err));
  OK(weft_compiled_port_count(compiled, WEFT_PORT_PARAMETER, &count, &err));
  CHECK(count == 2);
  weft_tensor_info info = {.struct_size = sizeof info};
  OK(weft_compiled_port(compiled, WEFT_PORT_INPUT, 0, &info, &err));
  CHECK(is(info.name, "x") && info.bytes == 16);
  weft_memory_summary summary = {.struct_size = sizeof summary};
  OK(weft_compiled_memory_summary(compiled, &summary, &err));
  CHECK(summary.buffers > 0 && summary.total_bytes >= summary.largest_bytes);
  OK(weft_graph_free(g));
  return compiled;
}

static uint32_t taps;

static uint32_t tap(void *user_data, const weft_tensor_info *info, const void *data) {
  CHECK(user_data == &taps && info->bytes > 0 && data != NULL);
  return ++taps > 100;
}

static uint32_t tap_once(void *user_data, const weft_tensor_info *info, const void *data) {
  (void)info, (void)data;
  /* the session is in use by the call that calls this */
  CHECK(weft_session_step(user_data, NULL) == WEFT_STATUS_BUSY);
  CHECK(weft_session_free(user_data) == WEFT_STATUS_BUSY);
  return 1;
}

static void run(const weft_compiled *compiled, const weft_weights *w) {
  weft_session *s = NULL, *other = NULL;
  weft_bytes *lines = NULL;
  float y[6], wanted[6];
  expected(wanted);
  OK(weft_compiled_init(compiled, w, &s, &err));
  OK(weft_session_warnings(s, &lines, &err));
  CHECK(bytes_are(lines, ""));
  size_t count = 0;
  weft_tensor_info info = {.struct_size = sizeof info};
  OK(weft_session_port_count(s, WEFT_PORT_OUTPUT, &count, &err));
  OK(weft_session_port(s, WEFT_PORT_OUTPUT, 0, &info, &err));
  CHECK(count == 1 && is(info.name, "y") && info.bytes == sizeof y);
  FAILS(WEFT_STATUS_ARGUMENT, weft_session_port(s, WEFT_PORT_OUTPUT, 1, &info, &err));
  FAILS(WEFT_STATUS_ARGUMENT, weft_session_port_count(s, 4, &count, &err));

  FAILS(WEFT_STATUS_INPUT_NOT_SET, weft_session_step(s, &err));
  FAILS(WEFT_STATUS_NOT_RUN, weft_session_read_output(s, "y", NUL, WEFT_DTYPE_F32, y, sizeof y, &err));
  FAILS(WEFT_STATUS_UNKNOWN_NAME, weft_session_set_input(s, "z", NUL, WEFT_DTYPE_F32, X, sizeof X, &err));
  FAILS(WEFT_STATUS_LENGTH, weft_session_set_input(s, "x", NUL, WEFT_DTYPE_F32, X, 3, &err));
  FAILS(WEFT_STATUS_DTYPE, weft_session_set_input(s, "x", NUL, WEFT_DTYPE_I32, X, sizeof X, &err));
  OK(weft_session_set_input(s, "x", NUL, WEFT_DTYPE_F32, X, sizeof X, &err));
  OK(weft_session_step(s, &err));
  bool done = false;
  OK(weft_session_poll(s, &done, &err));
  OK(weft_session_wait_for(s, 10000000000, &done, &err));
  CHECK(done);
  OK(weft_session_wait(s, &err));
  OK(weft_session_read_output(s, "y", NUL, WEFT_DTYPE_F32, y, sizeof y, &err));
  CHECK(near(y, wanted, 6));

  /* borrowed in, lent out */
  float *mine = malloc(sizeof X);
  CHECK(mine != NULL);
  memset(mine, 0, sizeof X);
  const void *lent = NULL;
  size_t bytes = 0;
  released = 0;
  OK(weft_session_borrow_input(s, "x", NUL, WEFT_DTYPE_F32, mine, sizeof X, release, &released, &err));
  memcpy(mine, X, sizeof X);
  OK(weft_session_step(s, &err));
  OK(weft_session_lend_output(s, "y", NUL, &lent, &bytes, &err));
  CHECK(bytes == sizeof y && near(lent, wanted, 6) && released == 0);
  memset(mine, 0, sizeof X); /* changed between steps */
  OK(weft_session_step(s, &err));
  OK(weft_session_lend_output(s, "y", NUL, &lent, &bytes, &err));
  CHECK(near(lent, (float[]){0.5f, 0, 2, 0.5f, 0, 2}, 6));
  FAILS(WEFT_STATUS_LENGTH, weft_session_borrow_input(s, "x", NUL, WEFT_DTYPE_F32, mine, 4, release, &released, &err));
  CHECK(released == 0);
  OK(weft_session_set_input(s, "x", NUL, WEFT_DTYPE_F32, X, sizeof X, &err));
  CHECK(released == 1);
  free(mine);
  released = 0;

  /* a second session over the same weights */
  weft_parameters *parameters = NULL;
  weft_weights *now = NULL;
  OK(weft_session_parameters(s, &parameters, &err));
  OK(weft_compiled_init_shared(compiled, parameters, &other, &err));
  OK(weft_session_set_input(other, "x", NUL, WEFT_DTYPE_F32, X, sizeof X, &err));
  const float zeros[3] = {0}, *data = NULL;
  float b[3];
  OK(weft_session_set_parameter(s, "b", NUL, zeros, 3, &err));
  OK(weft_session_step(other, &err));
  OK(weft_session_read_output(other, "y", NUL, WEFT_DTYPE_F32, y, sizeof y, &err));
  CHECK(fabsf(y[2] - (wanted[2] - B[2] > 0 ? wanted[2] - B[2] : 0)) < 1e-5f);
  OK(weft_session_read_parameter(other, "b", NUL, b, 3, &err));
  CHECK(memcmp(b, zeros, sizeof b) == 0);
  FAILS(WEFT_STATUS_LENGTH, weft_session_read_parameter(other, "b", NUL, b, 2, &err));
  OK(weft_parameters_to_weights(parameters, &now, &err));
  OK(weft_weights_find(now, "b", NUL, &info, (const void **)&data, &err));
  CHECK(memcmp(data, zeros, sizeof b) == 0);
  OK(weft_weights_free(now));
  OK(weft_parameters_free(parameters));
  OK(weft_session_free(other));
  OK(weft_session_set_parameter(s, "b", NUL, B, 3, &err));

  /* looking inside */
  weft_memory_summary summary = {.struct_size = sizeof summary};
  OK(weft_session_memory_summary(s, &summary, &err));
  CHECK(summary.total_bytes >= sizeof W);
  OK(weft_trace_start(&err));
  OK(weft_session_set_profiling(s, WEFT_PROFILING_DISPATCH, &err));
  for (int i = 0; i < 4; i++) OK(weft_session_step(s, &err));
  weft_profile *profile = NULL;
  uint64_t nanoseconds = 0;
  size_t parts = 0;
  OK(weft_session_profile(s, &profile, &err));
  OK(weft_profile_total(profile, &nanoseconds, &parts, &err));
  CHECK(gpu ? parts > 0 : parts == 0 && nanoseconds == 0);
  weft_profile_part part = {.struct_size = sizeof part};
  if (parts > 0) OK(weft_profile_get(profile, 0, &part, &err));
  FAILS(WEFT_STATUS_ARGUMENT, weft_profile_get(profile, parts, &part, &err));
  OK(weft_profile_free(profile));
  OK(weft_trace_finish(path("trace.json"), NUL, &err));
  OK(weft_session_observe(s, tap, &taps, &err));
  CHECK(taps > 0);
  FAILS(WEFT_STATUS_CANCELLED, weft_session_observe(s, tap_once, s, &err));
  size_t bad = 1;
  lines = (weft_bytes *)1;
  OK(weft_session_first_not_finite(s, &lines, &bad, &err));
  CHECK(lines == NULL && bad == 0);
  const float infinite[4] = {INFINITY, 1, 1, 1};
  OK(weft_session_set_input(s, "x", NUL, WEFT_DTYPE_F32, infinite, sizeof infinite, &err));
  OK(weft_session_first_not_finite(s, &lines, &bad, &err));
  CHECK(lines != NULL && bad >= 1);
  OK(weft_bytes_free(lines));

  /* in the background and back */
  bool suspended = true;
  OK(weft_session_set_input(s, "x", NUL, WEFT_DTYPE_F32, X, sizeof X, &err));
  OK(weft_device_is_suspended(device, &suspended, &err));
  CHECK(!suspended);
  OK(weft_session_step(s, &err));
  OK(weft_device_suspend(device, &err));
  OK(weft_device_is_suspended(device, &suspended, &err));
  CHECK(suspended == gpu);
  if (gpu) {
    FAILS(WEFT_STATUS_SUSPENDED, weft_session_step(s, &err));
    FAILS(WEFT_STATUS_SUSPENDED, weft_session_wait(s, &err));
  }
  OK(weft_device_trim(device, &err));
  OK(weft_device_resume(device, &err));
  OK(weft_session_step(s, &err));
  OK(weft_session_read_output(s, "y", NUL, WEFT_DTYPE_F32, y, sizeof y, &err));
  CHECK(near(y, wanted, 6));

  OK(weft_session_free(s));
  CHECK(weft_session_free(s) == WEFT_STATUS_HANDLE);
  FAILS(WEFT_STATUS_HANDLE, weft_session_step(s, &err));
}

static float last;

static void follow(void *user_data, size_t done, size_t all, float loss) {
  CHECK(done <= all);
  last = loss;
  if (user_data != NULL && done == 3) OK(weft_cancel_request(user_data, &err));
}

static void training(const weft_weights *w) {
  weft_graph *g = graph(true);
  weft_compiled *compiled = NULL;
  weft_session *s = NULL;
  weft_compile_options options = WEFT_COMPILE_OPTIONS_INIT;
  options.training = 1;
  OK(weft_compile(device, g, &options, &compiled, &err));
  OK(weft_compiled_init(compiled, w, &s, &err));
  OK(weft_session_set_input(s, "x", NUL, WEFT_DTYPE_F32, X, sizeof X, &err));
  OK(weft_session_step(s, &err));
  float loss = 0, y[6], sum = 0, gradient[3], wanted[3] = {0};
  OK(weft_session_loss(s, &loss, &err));
  expected(y);
  for (int i = 0; i < 6; i++) sum += y[i], wanted[i % 3] += y[i] > 0 ? 1.0f / 6 : 0;
  CHECK(fabsf(loss - sum / 6) < 1e-5f);
  OK(weft_session_read_gradient(s, "b", NUL, gradient, 3, &err));
  CHECK(near(gradient, wanted, 3));
  FAILS(WEFT_STATUS_ARGUMENT, weft_session_set_learning_rate(s, 0.1f, &err));
  weft_optimizer optimizer = WEFT_OPTIMIZER_INIT;
  optimizer.kind = WEFT_OPTIMIZER_SGD;
  optimizer.learning_rate = 1;
  OK(weft_session_set_optimizer(s, &optimizer, &err));
  OK(weft_session_set_learning_rate(s, 0.5f, &err));
  OK(weft_session_step(s, &err));
  float b[3];
  OK(weft_session_read_parameter(s, "b", NUL, b, 3, &err));
  for (int i = 0; i < 3; i++) CHECK(fabsf(b[i] - (B[i] - 0.5f * wanted[i])) < 1e-5f);
  optimizer.kind = 7;
  FAILS(WEFT_STATUS_ARGUMENT, weft_session_set_optimizer(s, &optimizer, &err));

  weft_optimizer adam = WEFT_OPTIMIZER_INIT;
  adam.learning_rate = 0.01f;
  OK(weft_session_set_optimizer(s, &adam, &err));
  float data[3 * 4];
  for (int i = 0; i < 12; i++) data[i] = X[i % 4];
  weft_batches batches[] = {{{"x", NUL}, data, sizeof data, WEFT_DTYPE_F32, 0}};
  weft_train_options how = WEFT_TRAIN_OPTIONS_INIT;
  how.epochs = 5;
  how.progress = follow;
  float before = loss;
  OK(weft_session_train(s, batches, 1, &how, &err));
  CHECK(last < before);
  weft_cancel *cancel = NULL;
  OK(weft_cancel_new(&cancel, &err));
  how.cancel = cancel;
  how.progress_user_data = cancel;
  FAILS(WEFT_STATUS_CANCELLED, weft_session_train(s, batches, 1, &how, &err));
  batches[0].data_bytes = 20;
  FAILS(WEFT_STATUS_ARGUMENT, weft_session_train(s, batches, 1, NULL, &err));
  OK(weft_cancel_free(cancel));
  OK(weft_session_free(s));
  OK(weft_compiled_free(compiled));
  OK(weft_graph_free(g));
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

int main(int argc, char **argv) {
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

/* A part of `every_call`: sessions, how they are looked into, and how they train. */
#ifndef WEFT_TESTS_CALLS_SESSIONS_H
#define WEFT_TESTS_CALLS_SESSIONS_H

#include "calls_graphs.h"

static uint32_t taps;

static uint32_t tap(void *user_data, const weft_tensor_info *info, const void *data) {
  CHECK(user_data == &taps && info->bytes > 0 && data != NULL);
  ENDS("weft_tap_fn", info->name);
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
  weft_weights *more = NULL;
  float y[6], wanted[6];
  expected(wanted);
  OK(weft_compiled_init(compiled, w, &s, &err));
  OK(weft_session_warnings(s, &lines, &err));
  CHECK(bytes_are(lines, ""));
  OK(weft_weights_new(&more, &err));
  OK(weft_weights_insert(more, "w", NUL, WEFT_DTYPE_F32, (size_t[]){3, 2}, 2, W, sizeof W, &err));
  OK(weft_weights_insert(more, "b", NUL, WEFT_DTYPE_F32, (size_t[]){3}, 1, B, sizeof B, &err));
  OK(weft_weights_insert(more, "c", NUL, WEFT_DTYPE_F32, (size_t[]){3}, 1, B, sizeof B, &err));
  OK(weft_compiled_init(compiled, more, &other, &err));
  OK(weft_session_warnings(other, &lines, &err));
  CHECK(bytes_are(lines, "weight \"c\" (f32[3]) is not used by the graph"));
  OK(weft_session_free(other));
  OK(weft_weights_free(more));
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
  OK(weft_trace_flush(&err));
  FILE *trace = getenv("WEFT_TRACE") ? fopen(getenv("WEFT_TRACE"), "r") : NULL;
  CHECK((trace != NULL) == (getenv("WEFT_TRACE") != NULL));
  if (trace != NULL) CHECK(fgetc(trace) == '{' && fclose(trace) == 0);
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

/* a step that is refused leaves nothing behind, wherever it is told */
static void refused(void) {
  weft_graph *g = NULL;
  weft_compiled *compiled = NULL;
  weft_session *s = NULL;
  OK(weft_graph_parse("weft 1\ninput ids: u32[2]\nconst table: f32[3, 1] = [1, 2, 4]\nstate n: f32[2, 1]\n"
                      "rows = embedding(table, ids)\nmore = add(n, rows)\nnext n = more\noutput y = more\n",
                      NUL, &g, &err));
  OK(weft_compile(device, g, NULL, &compiled, &err));
  OK(weft_compiled_init_zeros(compiled, &s, &err));
  const uint32_t good[2] = {0, 2}, bad[2] = {1, 7};
  float n[2];
  OK(weft_session_set_input(s, "ids", NUL, WEFT_DTYPE_U32, good, sizeof good, &err));
  OK(weft_session_step(s, &err));
  OK(weft_session_set_input(s, "ids", NUL, WEFT_DTYPE_U32, bad, sizeof bad, &err));
  weft_status status = weft_session_step(s, &err);
  if (status == WEFT_STATUS_OK) status = weft_session_wait(s, &err);
  CHECK(status == WEFT_STATUS_INDEX_OUT_OF_RANGE);
  const char *message = weft_error_message(err).data;
  CHECK(strstr(message, "index 7 at position 1") != NULL && strstr(message, "step 2") != NULL);
  OK(weft_error_free(err));
  err = NULL;
  FAILS(WEFT_STATUS_NOT_RUN, weft_session_read_output(s, "y", NUL, WEFT_DTYPE_F32, n, sizeof n, &err));
  OK(weft_session_read_state(s, "n", NUL, n, sizeof n, &err));
  CHECK(n[0] == 1 && n[1] == 4);
  OK(weft_session_set_input(s, "ids", NUL, WEFT_DTYPE_U32, good, sizeof good, &err));
  OK(weft_session_step(s, &err));
  OK(weft_session_read_output(s, "y", NUL, WEFT_DTYPE_F32, n, sizeof n, &err));
  CHECK(n[0] == 2 && n[1] == 8);
  OK(weft_session_free(s));
  OK(weft_compiled_free(compiled));
  OK(weft_graph_free(g));
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

  /* settings that would ruin weights, one at a time */
  const float rates[] = {NAN, INFINITY, -1}, decays[] = {NAN, 1, 2, -0.5f}, epsilons[] = {NAN, INFINITY, -1e-8f};
  for (int i = 0; i < 3; i++) {
    weft_optimizer wrong = WEFT_OPTIMIZER_INIT;
    wrong.learning_rate = rates[i];
    FAILS(WEFT_STATUS_ARGUMENT, weft_session_set_optimizer(s, &wrong, &err));
    wrong.kind = WEFT_OPTIMIZER_SGD;
    FAILS(WEFT_STATUS_ARGUMENT, weft_session_set_optimizer(s, &wrong, &err));
    FAILS(WEFT_STATUS_ARGUMENT, weft_session_set_learning_rate(s, rates[i], &err));
  }
  for (int i = 0; i < 8; i++) {
    weft_optimizer wrong = WEFT_OPTIMIZER_INIT;
    *(i % 2 ? &wrong.beta1 : &wrong.beta2) = decays[i / 2];
    FAILS(WEFT_STATUS_ARGUMENT, weft_session_set_optimizer(s, &wrong, &err));
  }
  for (int i = 0; i < 3; i++) {
    weft_optimizer wrong = WEFT_OPTIMIZER_INIT;
    wrong.epsilon = epsilons[i];
    FAILS(WEFT_STATUS_ARGUMENT, weft_session_set_optimizer(s, &wrong, &err));
  }

  /* optimizers by name, with settings and groups; their states */
  weft_bytes *known = NULL;
  OK(weft_optimizer_names(&known, &err));
  const uint8_t *names = NULL;
  size_t names_length = 0;
  OK(weft_bytes_data(known, &names, &names_length, &err));
  CHECK(strstr((const char *)names, "sgd\nadam\nadamw\n") == (const char *)names);
  OK(weft_bytes_free(known));
  weft_setting decay[] = {{{"weight_decay", NUL}, 0.5f, 0}, {{"momentum", NUL}, 0.5f, 0}};
  weft_str members[] = {{"b", NUL}};
  weft_parameter_group group = {members, 1, 0.5f, 0};
  FAILS(WEFT_STATUS_UNKNOWN_NAME, weft_session_set_optimizer_named(s, "ada", NUL, 1, NULL, 0, NULL, 0, &err));
  FAILS(WEFT_STATUS_UNKNOWN_NAME, weft_session_set_optimizer_named(s, "lion", NUL, 1, decay, 2, NULL, 0, &err));
  FAILS(WEFT_STATUS_ARGUMENT, weft_session_set_optimizer_named(s, "lion", NUL, NAN, NULL, 0, NULL, 0, &err));
  OK(weft_session_set_optimizer_named(s, "sgd", NUL, 0.5f, decay, 2, &group, 1, &err));
  uint64_t made = 7;
  OK(weft_session_optimizer_steps(s, &made, &err));
  CHECK(made == 0);
  float momentum[3] = {1, 2, 3}, read[3];
  OK(weft_session_write_optimizer_state(s, "momentum_buffer", NUL, "b", NUL, momentum, 3, &err));
  FAILS(WEFT_STATUS_LENGTH, weft_session_write_optimizer_state(s, "momentum_buffer", NUL, "b", NUL, momentum, 2, &err));
  weft_weights *states = NULL;
  OK(weft_session_save_optimizer(s, &states, &err));
  OK(weft_session_read_parameter(s, "b", NUL, b, 3, &err));
  for (int again = 0; again < 2; again++) {
    float at[3];
    OK(weft_session_read_parameter(s, "b", NUL, at, 3, &err));
    OK(weft_session_step(s, &err));
    OK(weft_session_read_gradient(s, "b", NUL, gradient, 3, &err));
    OK(weft_session_read_optimizer_state(s, "momentum_buffer", NUL, "b", NUL, read, 3, &err));
    for (int i = 0; i < 3; i++) CHECK(fabsf(read[i] - (0.5f * momentum[i] + gradient[i])) < 1e-5f);
    OK(weft_session_read_parameter(s, "b", NUL, b, 3, &err));
    for (int i = 0; i < 3; i++) CHECK(fabsf(b[i] - (at[i] - 0.25f * read[i])) < 1e-5f);
    OK(weft_session_optimizer_steps(s, &made, &err));
    CHECK(made == 1);
    OK(weft_session_restore_optimizer(s, states, &err));
  }

  weft_optimizer adam = WEFT_OPTIMIZER_INIT;
  adam.learning_rate = 0.01f;
  OK(weft_session_set_optimizer(s, &adam, &err));
  FAILS(WEFT_STATUS_MISSING_WEIGHT, weft_session_restore_optimizer(s, states, &err));
  OK(weft_weights_free(states));
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

#endif

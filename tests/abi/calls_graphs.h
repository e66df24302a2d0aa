/* A part of `every_call`: weights, graphs, and what is compiled of them. */
#ifndef WEFT_TESTS_CALLS_GRAPHS_H
#define WEFT_TESTS_CALLS_GRAPHS_H

#include "every_call.h"

#include <pthread.h>

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
  weft_weights *half = NULL;
  OK(weft_weights_to_dtype(w, WEFT_DTYPE_F16, &half, &err));
  OK(weft_weights_find(half, "w", NUL, &info, &data, &err));
  CHECK(info.dtype == WEFT_DTYPE_F16 && info.bytes == sizeof W / 2);
  OK(weft_weights_save(half, path("half.safetensors"), NUL, &err));
  OK(weft_weights_free(half));
  OK(weft_weights_load_as(path("half.safetensors"), NUL, WEFT_DTYPE_F32, &again, &err));
  OK(weft_weights_find(again, "w", NUL, &info, &data, &err));
  CHECK(info.dtype == WEFT_DTYPE_F32 && info.bytes == sizeof W);
  FAILS(WEFT_STATUS_ARGUMENT, weft_weights_to_dtype(again, WEFT_DTYPE_I32, &half, &err));
  FAILS(WEFT_STATUS_ARGUMENT, weft_weights_load_as(path("half.safetensors"), NUL, 99, &half, &err));
  OK(weft_weights_free(again));
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

/* A batch norm over [2, 1]: for training, or by the running statistics of the session that trains. */
static weft_session *batch_norm(weft_session *trained) {
  const bool training = trained == NULL;
  weft_graph *g = NULL;
  weft_compiled *compiled = NULL;
  weft_session *session = NULL;
  weft_parameters *parameters = NULL;
  weft_states *states = NULL;
  weft_value x = WEFT_VALUE_NONE, scale = WEFT_VALUE_NONE, bias = WEFT_VALUE_NONE, y = WEFT_VALUE_NONE;
  const float one = 1, zero = 0;
  OK(weft_graph_new(&g, &err));
  OK(weft_graph_input(g, "x", NUL, WEFT_DTYPE_F32, (size_t[]){2, 1}, 2, &x, &err));
  OK(weft_graph_constant(g, WEFT_DTYPE_F32, (size_t[]){1}, 1, &one, sizeof one, &scale, &err));
  OK(weft_graph_constant(g, WEFT_DTYPE_F32, (size_t[]){1}, 1, &zero, sizeof zero, &bias, &err));
  if (training) {
    OK(weft_graph_batch_norm_tracking(g, "norm", NUL, x, scale, bias, 0.1, 0.0, &y, &err));
  } else {
    OK(weft_graph_batch_norm_tracked(g, "norm", NUL, x, scale, bias, 0.0, &y, &err));
  }
  OK(weft_graph_output(g, "y", NUL, y, &err));
  OK(weft_compile(device, g, NULL, &compiled, &err));
  OK(weft_graph_free(g));
  if (training) {
    OK(weft_compiled_init_zeros(compiled, &session, &err));
  } else {
    OK(weft_session_parameters(trained, &parameters, &err));
    OK(weft_session_states(trained, &states, &err));
    OK(weft_compiled_init_shared_states(compiled, parameters, NULL, states, &session, &err));
    OK(weft_states_free(states));
    OK(weft_parameters_free(parameters));
  }
  OK(weft_compiled_free(compiled));
  return session;
}

static void running_statistics(void) {
  const float x[] = {1, 3};
  float y[2], mean = 0, variance = 0;
  weft_session *training = batch_norm(NULL);
  OK(weft_session_set_input(training, "x", NUL, WEFT_DTYPE_F32, x, sizeof x, &err));
  OK(weft_session_step(training, &err));
  OK(weft_session_read_output(training, "y", NUL, WEFT_DTYPE_F32, y, sizeof y, &err));
  CHECK(y[0] == -1 && y[1] == 1);
  /* 0.9 times 0 and 0.1 times 2; 0.9 times 1 and 0.1 times 2 */
  OK(weft_session_read_state(training, "norm.running_mean", NUL, &mean, sizeof mean, &err));
  OK(weft_session_read_state(training, "norm.running_var", NUL, &variance, sizeof variance, &err));
  CHECK(mean > 0.19999f && mean < 0.20001f && variance > 1.09999f && variance < 1.10001f);
  weft_session *evaluation = batch_norm(training);
  const float known[] = {0.2f, 0.2f};
  OK(weft_session_set_input(evaluation, "x", NUL, WEFT_DTYPE_F32, known, sizeof known, &err));
  OK(weft_session_step(evaluation, &err));
  OK(weft_session_read_output(evaluation, "y", NUL, WEFT_DTYPE_F32, y, sizeof y, &err));
  CHECK(y[0] > -1e-4f && y[0] < 1e-4f);
  OK(weft_session_free(evaluation));
  OK(weft_session_free(training));
  /* a channel of one value has no variance; momenta are from 0 to 1 */
  weft_graph *g = NULL;
  weft_value v = WEFT_VALUE_NONE, made = WEFT_VALUE_NONE;
  OK(weft_graph_new(&g, &err));
  OK(weft_graph_input(g, "x", NUL, WEFT_DTYPE_F32, (size_t[]){1, 1}, 2, &v, &err));
  OK(weft_graph_input(g, "c", NUL, WEFT_DTYPE_F32, (size_t[]){1}, 1, &made, &err));
  FAILS(WEFT_STATUS_OP, weft_graph_batch_norm_tracking(g, "norm", NUL, v, made, made, 0.1, 0.0, &v, &err));
  OK(weft_graph_free(g));
}

static void graphs(void) {
  running_statistics();
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

struct stepper {
  weft_session *session;
  weft_status status;
};

enum { EACH = 50 };

static void *steps(void *given) {
  struct stepper *s = given;
  for (int i = 0; i < EACH && s->status == WEFT_STATUS_OK; i++) s->status = weft_session_step(s->session, NULL);
  if (s->status == WEFT_STATUS_OK) s->status = weft_session_wait(s->session, NULL);
  return NULL;
}

static uint32_t tap_states(void *user_data, const weft_tensor_info *info, const void *data) {
  (void)info, (void)data;
  /* the step has its states in its hands */
  float s[2];
  CHECK(weft_states_read(user_data, "s", NUL, s, sizeof s, NULL) == WEFT_STATUS_ARGUMENT);
  CHECK(weft_states_reset(user_data, NULL) == WEFT_STATUS_ARGUMENT);
  return 0;
}

/* Sessions of two graphs over one set of states, on threads of their own. The state "s" grows by 1 with each step of `session`. */
static void shared_states(const weft_compiled *compiled, weft_session *session) {
  weft_graph *g = NULL;
  weft_compiled *more = NULL, *wrong = NULL;
  weft_session *other = NULL, *third = NULL;
  weft_parameters *parameters = NULL;
  weft_states *states = NULL, *own = NULL;
  weft_weights *w = NULL, *saved = NULL;
  OK(weft_session_parameters(session, &parameters, &err));
  OK(weft_session_states(session, &states, &err));
  /* another graph: "s" grows by a parameter, which the set of weights lacks, and "t" is its own */
  OK(weft_graph_parse("weft 1\nparam by: f32[1]\nstate s: f32[2]\nstate t: f32[1]\nnow = add(s, by)\nnext s = now\n"
                      "one = add(t, by)\nnext t = one\noutput y = now\n",
                      NUL, &g, &err));
  OK(weft_compile(device, g, NULL, &more, &err));
  OK(weft_graph_free(g));
  const float by = 1000;
  FAILS(WEFT_STATUS_MISSING_WEIGHT, weft_compiled_init_shared_states(more, parameters, NULL, states, &other, &err));
  OK(weft_weights_new(&w, &err));
  FAILS(WEFT_STATUS_MISSING_WEIGHT, weft_compiled_init_shared_with(more, parameters, w, &other, &err));
  OK(weft_weights_insert(w, "by", NUL, WEFT_DTYPE_F32, (size_t[]){1}, 1, &by, sizeof by, &err));
  OK(weft_compiled_init_shared_states(more, parameters, w, states, &other, &err));
  size_t count = 0;
  OK(weft_states_count(states, &count, &err));
  weft_tensor_info info = {.struct_size = sizeof info};
  OK(weft_states_get(states, 1, &info, &err));
  CHECK(count == 2 && is(info.name, "t") && info.bytes == 4 && info.dtype == WEFT_DTYPE_F32);
  FAILS(WEFT_STATUS_ARGUMENT, weft_states_get(states, 2, &info, &err));

  pthread_t threads[2];
  struct stepper steppers[2] = {{session, WEFT_STATUS_OK}, {other, WEFT_STATUS_OK}};
  for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, steps, &steppers[i]) == 0);
  for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0 && steppers[i].status == WEFT_STATUS_OK);
  float s[2] = {0}, t = 0;
  OK(weft_states_read(states, "s", NUL, s, sizeof s, &err));
  OK(weft_states_read(states, "t", NUL, &t, sizeof t, &err));
  CHECK(s[0] == EACH * (1 + by) && s[1] == s[0] && t == EACH * by);
  FAILS(WEFT_STATUS_LENGTH, weft_states_read(states, "s", NUL, s, 4, &err));
  FAILS(WEFT_STATUS_UNKNOWN_NAME, weft_states_read(states, "u", NUL, s, sizeof s, &err));
  OK(weft_session_observe(other, tap_states, states, &err));

  /* saved, written, begun anew, restored */
  OK(weft_states_write(states, "s", NUL, (float[]){5, 6}, 8, &err));
  FAILS(WEFT_STATUS_LENGTH, weft_states_write(states, "s", NUL, s, 4, &err));
  FAILS(WEFT_STATUS_UNKNOWN_NAME, weft_states_write(states, "u", NUL, s, sizeof s, &err));
  OK(weft_states_save(states, &saved, &err));
  OK(weft_states_reset(states, &err));
  OK(weft_session_read_state(session, "s", NUL, s, sizeof s, &err));
  CHECK(s[0] == 0 && s[1] == 0);
  FAILS(WEFT_STATUS_MISSING_WEIGHT, weft_states_restore(states, w, &err));
  OK(weft_states_restore(states, saved, &err));
  OK(weft_session_read_state(other, "s", NUL, s, sizeof s, &err));
  CHECK(s[0] == 5 && s[1] == 6);
  OK(weft_weights_free(saved));
  weft_memory_summary set = {.struct_size = sizeof set}, one = {.struct_size = sizeof one};
  OK(weft_states_memory_summary(states, &set, &err));
  OK(weft_session_memory_summary(other, &one, &err));
  CHECK(set.total_bytes >= 12 && set.buffers == 2 && one.total_bytes > set.total_bytes);

  /* what does not fit is refused, and leaves the set as it was */
  OK(weft_graph_parse("weft 1\nstate s: f32[3]\nstate new: f32[1]\nz = add(s, new)\noutput y = z\n", NUL, &g, &err));
  OK(weft_compile(device, g, NULL, &wrong, &err));
  FAILS(WEFT_STATUS_LENGTH, weft_compiled_init_shared_states(wrong, parameters, NULL, states, &third, &err));
  OK(weft_compiled_free(wrong));
  OK(weft_graph_free(g));
  OK(weft_graph_parse("weft 1\nstate s: i32[2]\noutput y = s\n", NUL, &g, &err));
  OK(weft_compile(device, g, NULL, &wrong, &err));
  FAILS(WEFT_STATUS_DTYPE, weft_compiled_init_shared_states(wrong, parameters, NULL, states, &third, &err));
  OK(weft_compiled_free(wrong));
  OK(weft_graph_free(g));
  OK(weft_states_count(states, &count, &err));
  CHECK(count == 2);

  /* weights completed without states; a set that a program makes itself */
  OK(weft_compiled_init_shared_with(more, parameters, w, &third, &err));
  OK(weft_session_step(third, &err));
  OK(weft_session_read_state(session, "s", NUL, s, sizeof s, &err));
  CHECK(s[0] == 5 && s[1] == 6);
  OK(weft_session_free(third));
  OK(weft_states_new(device, &own, &err));
  OK(weft_compiled_init_shared_states(compiled, parameters, NULL, own, &third, &err));
  OK(weft_session_step(third, &err));
  OK(weft_states_read(own, "s", NUL, s, sizeof s, &err));
  CHECK(s[0] == 1 && s[1] == 1);
  OK(weft_session_free(third));
  OK(weft_states_read(own, "s", NUL, s, sizeof s, &err)); /* outlives its sessions */
  CHECK(s[0] == 1);
  OK(weft_states_free(own));
  FAILS(WEFT_STATUS_HANDLE, weft_states_count(own, &count, &err));
  FAILS(WEFT_STATUS_HANDLE, weft_states_count((weft_states *)parameters, &count, &err));
  FAILS(WEFT_STATUS_HANDLE, weft_compiled_init_shared_states(more, parameters, w, own, &third, &err));
  FAILS(WEFT_STATUS_HANDLE, weft_compiled_init_shared_states(more, parameters, w, (weft_states *)w, &third, &err));
  CHECK(weft_states_free(own) == WEFT_STATUS_HANDLE);
  OK(weft_states_free(states));
  OK(weft_session_step(other, &err)); /* the sessions keep it */
  OK(weft_session_read_state(session, "s", NUL, s, sizeof s, &err));
  CHECK(s[0] == 5 + by && s[1] == 6 + by);
  OK(weft_session_free(other));
  OK(weft_compiled_free(more));
  OK(weft_parameters_free(parameters));
  OK(weft_weights_free(w));
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
  shared_states(compiled, session);
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
  // more freedom is another entry of the cache
  weft_compiled *exact = NULL;
  FAILS(WEFT_STATUS_ARGUMENT, weft_compile_allowing(device, g, &options, 2, &exact, &err));
  OK(weft_compile_allowing(device, g, &options, WEFT_ALLOW_EXACT, &exact, &err));
  OK(weft_compiled_was_cached(exact, &cached, &err));
  CHECK(!cached);
  OK(weft_compiled_free(exact));
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

#endif

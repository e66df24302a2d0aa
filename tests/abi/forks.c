/* Forks, and uses the library in the children.
 *
 *     forks DEVICE WHEN CHILDREN
 *
 * WHEN is "idle" (a session that does nothing), "working" (other threads step, compile and fail), "thread" (another thread than the
 * first one forks) or "zygote" (the parent has called nothing; the children open DEVICE). */
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char GRAPH[] =
    "weft 1\ninput x: f32[1, 4]\nparam w: f32[3, 4]\nparam b: f32[3]\nlogits = linear(x, w, b)\n"
    "y = softmax(logits, axis=-1)\noutput y = y\nl = mean(logits, axes=[0, 1], keepdim=false)\nloss l\n";
static const float X[4] = {1, 2, 3, 4};

static const char *which, *when;
static weft_device_list *list;
static weft_device *device;
static weft_graph *graph;
static weft_weights *weights;
static weft_compiled *compiled;
static weft_session *session;
static weft_parameters *parameters;
static weft_states *states;
static weft_cancel *cancel;
static weft_error *error;
static volatile bool over;

static void fill(weft_weights *w) {
  const float elements[12] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
  OK(weft_weights_insert(w, "w", NUL, WEFT_DTYPE_F32, (size_t[]){3, 4}, 2, elements, sizeof elements, &err));
  OK(weft_weights_insert(w, "b", NUL, WEFT_DTYPE_F32, (size_t[]){3}, 1, elements, 12, &err));
}

static void check_step(weft_session *s) {
  float y[3];
  OK(weft_session_set_input(s, "x", NUL, WEFT_DTYPE_F32, X, sizeof X, &err));
  OK(weft_session_step(s, &err));
  OK(weft_session_read_output(s, "y", NUL, WEFT_DTYPE_F32, y, sizeof y, &err));
  /* softmax of 1 + 1, 2, 3 */
  CHECK(fabsf(y[0] - 0.2119416f) < 1e-5f && fabsf(y[1] - 0.2119416f) < 1e-5f && fabsf(y[2] - 0.5761169f) < 1e-5f);
}

/* A device, all that is made over it, and a step of each kind; what is there at the end is kept or freed. */
static void use(const char *name, bool keep) {
  weft_compiled *training = NULL;
  weft_session *learner = NULL;
  OK(weft_device_open(name, NUL, 2, &device, &err));
  OK(weft_graph_parse(GRAPH, NUL, &graph, &err));
  OK(weft_weights_new(&weights, &err));
  fill(weights);
  OK(weft_compile(device, graph, NULL, &compiled, &err));
  OK(weft_compiled_init(compiled, weights, &session, &err));
  OK(weft_session_parameters(session, &parameters, &err));
  OK(weft_session_states(session, &states, &err));
  OK(weft_cancel_new(&cancel, &err));
  check_step(session);
  weft_compile_options options = WEFT_COMPILE_OPTIONS_INIT;
  options.training = 1;
  OK(weft_compile(device, graph, &options, &training, &err));
  OK(weft_compiled_init(training, weights, &learner, &err));
  weft_optimizer adam = WEFT_OPTIMIZER_INIT;
  OK(weft_session_set_optimizer(learner, &adam, &err));
  OK(weft_session_set_input(learner, "x", NUL, WEFT_DTYPE_F32, X, sizeof X, &err));
  for (int i = 0; i < 3; i++) OK(weft_session_step(learner, &err));
  OK(weft_session_wait(learner, &err));
  OK(weft_session_free(learner));
  OK(weft_compiled_free(training));
  if (keep) return;
  OK(weft_cancel_free(cancel));
  OK(weft_parameters_free(parameters));
  OK(weft_states_free(states));
  OK(weft_session_free(session));
  OK(weft_compiled_free(compiled));
  OK(weft_weights_free(weights));
  OK(weft_graph_free(graph));
  OK(weft_device_free(device));
}

/* Every handle of the parent's is refused, and freeing it does nothing. */
static void refused(void) {
  weft_device_info info = {.struct_size = sizeof info};
  weft_tensor_info tensor = {.struct_size = sizeof tensor};
  weft_memory_summary summary = {.struct_size = sizeof summary};
  weft_value value = WEFT_VALUE_NONE;
  weft_session *other = NULL;
  weft_weights *more = NULL;
  weft_compiled *again = NULL;
  weft_bytes *bytes = NULL;
  size_t count = 0;
  uint64_t used = 0, budget = 0;
  bool flag = false;
  float y[3];
  const weft_status F = WEFT_STATUS_FORKED;
  FAILS(F, weft_session_step(session, &err));
  FAILS(F, weft_session_set_input(session, "x", NUL, WEFT_DTYPE_F32, X, sizeof X, &err));
  FAILS(F, weft_session_read_output(session, "y", NUL, WEFT_DTYPE_F32, y, sizeof y, &err));
  FAILS(F, weft_session_wait(session, &err));
  FAILS(F, weft_session_poll(session, &flag, &err));
  FAILS(F, weft_session_set_learning_rate(session, 0.1f, &err));
  FAILS(F, weft_session_memory_summary(session, &summary, &err));
  FAILS(F, weft_compiled_port(compiled, WEFT_PORT_INPUT, 0, &tensor, &err));
  FAILS(F, weft_compiled_init_zeros(compiled, &other, &err));
  FAILS(F, weft_parameters_to_weights(parameters, &more, &err));
  FAILS(F, weft_states_count(states, &count, &err));
  FAILS(F, weft_states_reset(states, &err));
  FAILS(F, weft_states_save(states, &more, &err));
  FAILS(F, weft_compiled_init_shared_states(compiled, parameters, NULL, states, &other, &err));
  FAILS(F, weft_weights_count(weights, &count, &err));
  FAILS(F, weft_graph_text(graph, &bytes, &err));
  FAILS(F, weft_op_relu(graph, 0, &value, &err));
  FAILS(F, weft_device_get_info(device, &info, &err));
  FAILS(F, weft_device_memory(device, &used, &budget, &err));
  FAILS(F, weft_device_suspend(device, &err));
  FAILS(F, weft_compile(device, graph, NULL, &again, &err));
  FAILS(F, weft_device_list_count(list, &count, &err));
  FAILS(F, weft_cancel_request(cancel, &err));
  CHECK(weft_error_status(error) == F && weft_error_message(error).length == 0);
  for (int twice = 0; twice < 2; twice++) {
    OK(weft_session_free(session));
    OK(weft_parameters_free(parameters));
    OK(weft_states_free(states));
    OK(weft_compiled_free(compiled));
    OK(weft_weights_free(weights));
    OK(weft_graph_free(graph));
    OK(weft_cancel_free(cancel));
    OK(weft_device_list_free(list));
    OK(weft_error_free(error));
    OK(weft_device_free(device));
  }
  FAILS(F, weft_session_step(session, &err));
}

static void child(bool by_exit) {
  alarm(60); /* what hangs is killed, and told */
  if (strcmp(when, "zygote") != 0) {
    refused();
    FAILS(WEFT_STATUS_FORKED, weft_device_open("gpu", NUL, 0, &device, &err));
    use("cpu", false);
    use("best", false);
  } else
    use(which, !by_exit);
  if (by_exit) exit(17);
  _exit(17);
}

static void *fork_them(void *children) {
  for (int i = 0; i < (int)(intptr_t)children; i++) {
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) child(i % 2 == 0);
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 17) {
      fprintf(stderr, "child %d: %s %d\n", i, WIFSIGNALED(status) ? "signal" : "exit",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
      exit(1);
    }
    /* the parent goes on as before */
    if (strcmp(when, "idle") == 0 || strcmp(when, "thread") == 0) check_step(session);
  }
  return NULL;
}

/* Steps, again and again. */
static void *steps(void *unused) {
  (void)unused;
  weft_session *s = NULL;
  OK(weft_compiled_init(compiled, weights, &s, NULL));
  while (!over) {
    CHECK(weft_session_set_input(s, "x", NUL, WEFT_DTYPE_F32, X, sizeof X, NULL) == WEFT_STATUS_OK);
    CHECK(weft_session_step(s, NULL) == WEFT_STATUS_OK);
  }
  OK(weft_session_free(s));
  return NULL;
}

/* Opens, compiles, logs and frees: what takes the library's locks. */
static void *makes(void *unused) {
  (void)unused;
  for (int i = 0; !over; i++) {
    weft_device *d = NULL;
    weft_graph *g = NULL;
    weft_compiled *c = NULL;
    char text[300];
    snprintf(text, sizeof text, "weft 1\ninput x: f32[%d, 3]\ny = relu(x)\nz = mul(y, x)\noutput z = z\n", 1 + i % 5);
    CHECK(weft_device_open(which, NUL, 2, &d, NULL) == WEFT_STATUS_OK);
    CHECK(weft_graph_parse(text, NUL, &g, NULL) == WEFT_STATUS_OK);
    CHECK(weft_compile(d, g, NULL, &c, NULL) == WEFT_STATUS_OK);
    CHECK(weft_compiled_free(c) == WEFT_STATUS_OK && weft_graph_free(g) == WEFT_STATUS_OK);
    CHECK(weft_device_free(d) == WEFT_STATUS_OK);
  }
  return NULL;
}

static void on_log(void *user_data, weft_log_level level, weft_str line) { (void)user_data, (void)level, (void)line; }

static void *fails(void *unused) {
  (void)unused;
  while (!over) {
    weft_error *e = NULL;
    CHECK(weft_session_step(NULL, &e) == WEFT_STATUS_NULL && weft_error_message(e).length > 0);
    CHECK(weft_error_free(e) == WEFT_STATUS_OK);
    OK(weft_log_set(WEFT_LOG_DEBUG, on_log, NULL, NULL, NULL));
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 4);
  which = argv[1];
  when = argv[2];
  void *children = (void *)(intptr_t)atoi(argv[3]);
  if (strcmp(when, "zygote") != 0) {
    OK(weft_device_list_new(&list, &err));
    CHECK(weft_device_open("none of these", NUL, 0, &device, &error) != WEFT_STATUS_OK);
    use(which, true);
  }
  pthread_t threads[3];
  void *(*const work[3])(void *) = {steps, makes, fails};
  if (strcmp(when, "working") == 0) {
    for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, work[i], NULL) == 0);
    fork_them(children);
    over = true;
    for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  } else if (strcmp(when, "thread") == 0) {
    CHECK(pthread_create(&threads[0], NULL, fork_them, children) == 0);
    CHECK(pthread_join(threads[0], NULL) == 0);
  } else
    fork_them(children);
  printf("forked\n");
  return 0;
}

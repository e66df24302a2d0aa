/* The main of the program that calls at random: four threads over one set of handles. */
#define FREE(type) [K_##type] = (weft_status(*)(void *))type##_free
static weft_status (*const frees[KINDS])(void *) = {
    FREE(weft_artifact), FREE(weft_bytes),  FREE(weft_cancel),  FREE(weft_compiled),   FREE(weft_device),
    FREE(weft_device_list), FREE(weft_encoder), FREE(weft_encoding), FREE(weft_error), FREE(weft_graph),
    FREE(weft_parameters), FREE(weft_profile), FREE(weft_session), FREE(weft_states), FREE(weft_tokenizer),
    FREE(weft_weights),
};

enum { THREADS = 4, REFRESH = 500 };
static size_t each, statuses[1000];

/* Puts a handle where one was, which is freed: it may be freed already, or in use. */
static void keep(int kind, void *handle) {
  pthread_mutex_lock(&lock);
  void **at = &pool[kind][draw() % POOL], *old = *at;
  *at = handle;
  pthread_mutex_unlock(&lock);
  frees[kind](old);
}

/* A call that must succeed, but for a GPU that another thread has just suspended, or whose budget it has just taken: then there
 * are no new objects this time. */
#define MADE(call)                                                                                            \
  do {                                                                                                        \
    weft_status made_ = (call);                                                                               \
    if (strcmp(opened, "cpu") != 0 && (made_ == WEFT_STATUS_SUSPENDED || made_ == WEFT_STATUS_OUT_OF_MEMORY)) \
      goto keep;                                                                                              \
    OK(made_);                                                                                                \
  } while (0)

/* Objects that work, over one another, so that calls get far. */
static void refresh(void) {
  weft_device *device = NULL;
  weft_graph *graph = NULL;
  weft_compiled *compiled = NULL;
  weft_weights *weights = NULL;
  weft_session *session = NULL;
  weft_states *states = NULL;
  weft_artifact *artifact = NULL;
  weft_tokenizer *tokenizer = NULL;
  weft_cancel *cancel = NULL;
  OK(weft_device_open(opened, NUL, 1, &device, NULL));
  OK(weft_device_resume(device, NULL));
  if (strcmp(opened, "cpu") != 0) OK(weft_device_set_memory_budget(device, (uint64_t)1 << 30, NULL));
  OK(weft_graph_parse(GRAPH, NUL, &graph, NULL));
  weft_compile_options options = WEFT_COMPILE_OPTIONS_INIT;
  options.training = chance(2);
  MADE(weft_compile(device, graph, &options, &compiled, NULL));
  OK(weft_weights_new(&weights, NULL));
  OK(weft_weights_insert(weights, "w", NUL, WEFT_DTYPE_F32, (size_t[]){3, 4}, 2, contents[3], 48, NULL));
  OK(weft_weights_insert(weights, "b", NUL, WEFT_DTYPE_F32, (size_t[]){3}, 1, contents[3], 12, NULL));
  MADE(weft_compiled_init(compiled, weights, &session, NULL));
  if (chance(2)) MADE(weft_session_set_input(session, "x", NUL, WEFT_DTYPE_F32, contents[3], 16, NULL));
  OK(weft_session_states(session, &states, NULL));
  OK(weft_artifact_new(&artifact, NULL));
  OK(weft_artifact_add(artifact, "main", NUL, compiled, NULL));
  OK(weft_tokenizer_from_memory(TOKENS, sizeof TOKENS - 1, &tokenizer, NULL));
  OK(weft_cancel_new(&cancel, NULL));
keep:
  keep(K_weft_device, device);
  keep(K_weft_graph, graph);
  keep(K_weft_compiled, compiled);
  keep(K_weft_weights, weights);
  keep(K_weft_session, session);
  keep(K_weft_states, states);
  keep(K_weft_artifact, artifact);
  keep(K_weft_tokenizer, tokenizer);
  keep(K_weft_cancel, cancel);
}

static void *work(void *number) {
  seed = (uint64_t)(uintptr_t)number * 0x9e3779b97f4a7c15u + 1;
  static size_t seen[THREADS][COUNT(statuses)];
  size_t *own = seen[(uintptr_t)number % THREADS];
  for (size_t i = 0; i < each; i++) {
    if (i % REFRESH == 0) refresh();
    const struct call *call = &calls[draw() % COUNT(calls)];
    memset(made, 0, sizeof made);
    memset(sessions, 0, sizeof sessions);
    slot = NULL;
    weft_status status = call->run();
    CHECK(status < COUNT(statuses));
    own[status]++;
    if (slot != NULL) {
      CHECK(status != WEFT_STATUS_OK && weft_error_status(slot) == status);
      if (status == WEFT_STATUS_PANIC || status == WEFT_STATUS_INTERNAL)
        printf("%s: %s\n", call->name, weft_error_message(slot).data);
      keep(K_weft_error, slot);
    }
    for (int kind = 0; kind < KINDS; kind++)
      if (made[kind] != NULL) keep(kind, made[kind]);
    for (size_t k = 0; k < COUNT(sessions); k++)
      if (sessions[k] != NULL) keep(K_weft_session, sessions[k]);
  }
  pthread_mutex_lock(&lock);
  for (size_t k = 0; k < COUNT(statuses); k++) statuses[k] += own[k];
  pthread_mutex_unlock(&lock);
  return NULL;
}

/* Files of the library's own formats, and numbers. */
static void fill(void) {
  seed = 1;
  for (int i = 0; i < 16; i++) ((float *)contents[3])[i] = (float)i / 4 - 2;
  contents_length[3] = 64;
  memcpy(contents[2], TOKENS, sizeof TOKENS);
  contents_length[2] = sizeof TOKENS - 1;
  weft_device *device = NULL;
  weft_graph *graph = NULL;
  weft_compiled *compiled = NULL;
  weft_weights *weights = NULL;
  weft_bytes *files[2] = {NULL, NULL};
  OK(weft_device_open(opened, NUL, 1, &device, NULL));
  OK(weft_graph_parse(GRAPH, NUL, &graph, NULL));
  OK(weft_compile(device, graph, NULL, &compiled, NULL));
  OK(weft_compiled_to_bytes(compiled, &files[0], NULL));
  OK(weft_weights_new(&weights, NULL));
  OK(weft_weights_insert(weights, "w", NUL, WEFT_DTYPE_F32, (size_t[]){3, 4}, 2, contents[3], 48, NULL));
  OK(weft_weights_to_bytes(weights, &files[1], NULL));
  for (int i = 0; i < 2; i++) {
    const uint8_t *data = NULL;
    size_t length = 0;
    OK(weft_bytes_data(files[i], &data, &length, NULL));
    CHECK(length < ROOM);
    memcpy(contents[i], data, length);
    contents_length[i] = length;
    OK(weft_bytes_free(files[i]));
  }
  OK(weft_weights_free(weights));
  OK(weft_compiled_free(compiled));
  OK(weft_graph_free(graph));
  OK(weft_device_free(device));
}

int main(int argc, char **argv) {
  CHECK(argc == 5);
  each = (size_t)atoll(argv[1]) / THREADS;
  uintptr_t first = (uintptr_t)atoll(argv[2]) * THREADS;
  folder = argv[3];
  opened = argv[4];
  fill();
  pthread_t threads[THREADS];
  for (uintptr_t i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, work, (void *)(first + i)) == 0);
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  for (int kind = 0; kind < KINDS; kind++)
    for (int i = 0; i < POOL; i++) frees[kind](pool[kind][i]);
  size_t all = 0;
  for (size_t k = 0; k < COUNT(statuses); k++)
    if (statuses[k] > 0) {
      all += statuses[k];
      printf("%9zu %s\n", statuses[k], weft_status_name((weft_status)k));
    }
  CHECK(all == each * THREADS);
  CHECK(statuses[WEFT_STATUS_OK] * 10 > all); /* some calls must get far */
  printf("%s\n", statuses[WEFT_STATUS_PANIC] + statuses[WEFT_STATUS_INTERNAL] > 0 ? "panics" : "statuses only");
  return 0;
}

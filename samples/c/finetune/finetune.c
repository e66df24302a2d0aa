/* Fine-tunes the classifier of digits on some more of them, with progress, and saves what it has learnt.
 *
 *     finetune samples/models/digits/model.safetensors DIGITS.csv ADAPTED.safetensors
 *
 * DIGITS.csv is samples/data/digits.csv.gz, unpacked: 64 pixels from 0 to 16 and the digit, a line each. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <weft.h>

enum { BATCH = 16, BATCHES = 8, DIGITS = BATCH * BATCHES, PIXELS = 64, CLASSES = 10 };

static weft_error *err = NULL;
static const size_t NUL = WEFT_NUL_TERMINATED;

static void try_(weft_status status) {
  if (status == WEFT_STATUS_OK) return;
  fprintf(stderr, "%s: %s\n", weft_status_name(status), weft_error_message(err).data);
  weft_error_free(err);
  exit(1);
}

/* Called after each step, on this thread. */
static void progress(void *user_data, size_t done, size_t all, float loss) {
  float *last = user_data;
  *last = loss;
  if (done == 1 || done == all) printf("step %zu of %zu, loss %.9g\n", done, all, loss);
}

/* The classifier over so many digits at once: with its loss, to learn, or with the digits' likelihoods. */
static weft_compiled *compile(weft_device *device, size_t batch, uint32_t training) {
  weft_graph *g = NULL;
  weft_compiled *compiled = NULL;
  weft_value x = WEFT_VALUE_NONE, y = WEFT_VALUE_NONE, labels = WEFT_VALUE_NONE, result = WEFT_VALUE_NONE;
  try_(weft_graph_new(&g, &err));
  weft_graph_input(g, "pixels", NUL, WEFT_DTYPE_F32, (size_t[]){batch, PIXELS}, 2, &x, NULL);
  weft_graph_mlp(g, x, (size_t[]){PIXELS, 64, CLASSES}, 3, &y, NULL);
  if (training) {
    weft_graph_input(g, "labels", NUL, WEFT_DTYPE_U32, (size_t[]){batch}, 1, &labels, NULL);
    weft_op_cross_entropy(g, y, labels, -100, 0.0, &result, NULL);
    weft_graph_set_loss(g, result, NULL);
  } else {
    weft_op_softmax(g, y, -1, &result, NULL);
    weft_graph_output(g, "probabilities", NUL, result, NULL);
  }
  weft_compile_options options = WEFT_COMPILE_OPTIONS_INIT;
  options.training = training;
  try_(weft_compile(device, g, &options, &compiled, &err));
  weft_graph_free(g);
  return compiled;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: finetune MODEL.safetensors DIGITS.csv ADAPTED.safetensors\n");
    return 2;
  }
  static float pixels[DIGITS * PIXELS];
  static uint32_t labels[DIGITS];
  FILE *digits = fopen(argv[2], "r");
  for (int i = 0; i < DIGITS * (PIXELS + 1); i++) {
    int number;
    if (digits == NULL || fscanf(digits, "%d%*[,\n]", &number) != 1) {
      fprintf(stderr, "%s holds fewer than %d digits\n", argv[2], DIGITS);
      return 1;
    }
    int digit = i / (PIXELS + 1), pixel = i % (PIXELS + 1);
    if (pixel == PIXELS)
      labels[digit] = (uint32_t)number;
    else
      pixels[digit * PIXELS + pixel] = (float)number / 16.0f;
  }
  fclose(digits);

  weft_device *device = NULL;
  weft_weights *weights = NULL;
  weft_session *learner = NULL, *classifier = NULL;
  try_(weft_device_open("cpu", NUL, 0, &device, &err));
  try_(weft_weights_load(argv[1], NUL, &weights, &err));
  weft_compiled *learns = compile(device, BATCH, 1), *answers = compile(device, 1, 0);
  try_(weft_compiled_init(learns, weights, &learner, &err));

  weft_optimizer adam = WEFT_OPTIMIZER_INIT;
  try_(weft_session_set_optimizer(learner, &adam, &err));
  float last = 0.0f;
  weft_train_options options = WEFT_TRAIN_OPTIONS_INIT;
  options.epochs = 5;
  options.progress = progress;
  options.progress_user_data = &last;
  const weft_batches data[] = {
      {{"pixels", NUL}, pixels, sizeof pixels, WEFT_DTYPE_F32, 0},
      {{"labels", NUL}, labels, sizeof labels, WEFT_DTYPE_U32, 0},
  };
  try_(weft_session_train(learner, data, 2, &options, &err));

  /* a session that answers, over the weights that the other one trains */
  weft_parameters *parameters = NULL;
  try_(weft_session_parameters(learner, &parameters, &err));
  try_(weft_compiled_init_shared(answers, parameters, &classifier, &err));
  int right = 0;
  for (int i = 0; i < DIGITS; i++) {
    const void *data_ = NULL;
    size_t bytes = 0;
    try_(weft_session_set_input(classifier, "pixels", NUL, WEFT_DTYPE_F32, pixels + i * PIXELS, PIXELS * 4, &err));
    try_(weft_session_step(classifier, &err));
    try_(weft_session_lend_output(classifier, "probabilities", NUL, &data_, &bytes, &err));
    const float *p = data_;
    uint32_t best = 0;
    for (uint32_t k = 1; k < CLASSES; k++)
      if (p[k] > p[best]) best = k;
    right += best == labels[i];
  }
  printf("%d of %d digits right\n", right, DIGITS);

  weft_weights *adapted = NULL;
  try_(weft_parameters_to_weights(parameters, &adapted, &err));
  try_(weft_weights_save(adapted, argv[3], NUL, &err));

  weft_weights_free(adapted);
  weft_parameters_free(parameters);
  weft_session_free(classifier);
  weft_session_free(learner);
  weft_compiled_free(answers);
  weft_compiled_free(learns);
  weft_weights_free(weights);
  weft_device_free(device);
  return 0;
}

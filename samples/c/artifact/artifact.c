/* Compiles once: the second run loads what the first one compiled.
 *
 *     artifact samples/graphs/classifier.weft samples/models/digits/model.safetensors CLASSIFIER.weftc
 *
 * Loads CLASSIFIER.weftc if it is there and good for this device and engine; else compiles the graph and writes it. */
#include <stdio.h>
#include <stdlib.h>
#include <weft.h>

static weft_error *err = NULL;
static const size_t NUL = WEFT_NUL_TERMINATED;

static void try_(weft_status status) {
  if (status == WEFT_STATUS_OK) return;
  fprintf(stderr, "%s: %s\n", weft_status_name(status), weft_error_message(err).data);
  weft_error_free(err);
  exit(1);
}

static weft_compiled *compile(weft_device *device, const char *path) {
  static char text[1 << 16];
  FILE *file = fopen(path, "r");
  if (file == NULL) {
    fprintf(stderr, "cannot read %s\n", path);
    exit(1);
  }
  size_t length = fread(text, 1, sizeof text, file);
  fclose(file);
  weft_graph *g = NULL;
  weft_compiled *compiled = NULL;
  try_(weft_graph_parse(text, length, &g, &err));
  try_(weft_compile(device, g, NULL, &compiled, &err));
  weft_graph_free(g);
  return compiled;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: artifact GRAPH.weft MODEL.safetensors ARTIFACT.weftc\n");
    return 2;
  }
  weft_device *device = NULL;
  weft_compiled *compiled = NULL;
  try_(weft_device_open("cpu", NUL, 0, &device, &err));
  /* not there, damaged, of another engine or device: an error like any other, and the answer is to compile */
  if (weft_compiled_load(device, argv[3], NUL, &compiled, NULL) == WEFT_STATUS_OK) {
    printf("loaded\n");
  } else {
    compiled = compile(device, argv[1]);
    try_(weft_compiled_save(compiled, argv[3], NUL, &err));
    printf("compiled\n");
  }

  weft_weights *weights = NULL;
  weft_session *session = NULL;
  try_(weft_weights_load(argv[2], NUL, &weights, &err));
  try_(weft_compiled_init(compiled, weights, &session, &err));
  float pixels[4 * 64];
  const int labels[4] = {0, 1, 2, 3};
  for (int i = 0; i < 4 * 64; i++) pixels[i] = (float)(i * 7 % 17) / 16.0f;
  try_(weft_session_set_input(session, "pixels", NUL, WEFT_DTYPE_F32, pixels, sizeof pixels, &err));
  try_(weft_session_set_input(session, "labels", NUL, WEFT_DTYPE_I32, labels, sizeof labels, &err));
  try_(weft_session_step(session, &err));
  float loss;
  try_(weft_session_loss(session, &loss, &err));
  printf("loss %.9g\n", loss);

  weft_session_free(session);
  weft_weights_free(weights);
  weft_compiled_free(compiled);
  weft_device_free(device);
  return 0;
}

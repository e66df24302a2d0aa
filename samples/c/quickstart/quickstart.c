/* Reads weights from safetensors, builds a graph by hand, compiles it and runs it.
 *
 *     quickstart samples/models/digits/model.safetensors DIGITS.csv
 *
 * DIGITS.csv is samples/data/digits.csv.gz, unpacked: 64 pixels from 0 to 16 and the digit, a line each. The first is read. */
#include <stdio.h>
#include <stdlib.h>
#include <weft.h>

static weft_error *err = NULL;

/* Ends the program with the library's message where a call fails. */
static void try_(weft_status status) {
  if (status == WEFT_STATUS_OK) return;
  fprintf(stderr, "%s: %s\n", weft_status_name(status), weft_error_message(err).data);
  weft_error_free(err);
  exit(1);
}

static const size_t NUL = WEFT_NUL_TERMINATED;

/* x through a linear layer, whose weights are named as in the file. */
static weft_value linear(weft_graph *g, weft_value x, const char *name, size_t in, size_t out) {
  weft_value w = WEFT_VALUE_NONE, b = WEFT_VALUE_NONE, y = WEFT_VALUE_NONE;
  char full[64];
  snprintf(full, sizeof full, "%s.weight", name);
  /* no status is looked at here: weft_compile tells of the first error */
  weft_graph_parameter(g, full, NUL, WEFT_DTYPE_F32, (size_t[]){out, in}, 2, true, &w, NULL);
  snprintf(full, sizeof full, "%s.bias", name);
  weft_graph_parameter(g, full, NUL, WEFT_DTYPE_F32, (size_t[]){out}, 1, true, &b, NULL);
  weft_op_linear(g, x, w, b, &y, NULL);
  return y;
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: quickstart MODEL.safetensors DIGITS.csv\n");
    return 2;
  }
  float pixels[64];
  FILE *digits = fopen(argv[2], "r");
  for (int i = 0; i < 64; i++) {
    int ink;
    if (digits == NULL || fscanf(digits, "%d,", &ink) != 1) {
      fprintf(stderr, "%s holds no digit\n", argv[2]);
      return 1;
    }
    pixels[i] = (float)ink / 16.0f;
  }
  fclose(digits);

  weft_device *device = NULL;
  try_(weft_device_open("cpu", NUL, 0, &device, &err));

  weft_graph *g = NULL;
  try_(weft_graph_new(&g, &err));
  weft_value x = WEFT_VALUE_NONE, p = WEFT_VALUE_NONE;
  weft_graph_input(g, "pixels", NUL, WEFT_DTYPE_F32, (size_t[]){1, 64}, 2, &x, NULL);
  x = linear(g, x, "layers.0", 64, 64);
  weft_op_relu(g, x, &x, NULL);
  x = linear(g, x, "layers.1", 64, 10);
  weft_op_softmax(g, x, -1, &p, NULL);
  weft_graph_output(g, "probabilities", NUL, p, NULL);

  weft_compiled *compiled = NULL;
  try_(weft_compile(device, g, NULL, &compiled, &err)); /* needs no weights */

  weft_weights *weights = NULL;
  weft_session *session = NULL;
  try_(weft_weights_load(argv[1], NUL, &weights, &err));
  try_(weft_compiled_init(compiled, weights, &session, &err));

  float probabilities[10];
  try_(weft_session_set_input(session, "pixels", NUL, WEFT_DTYPE_F32, pixels, sizeof pixels, &err));
  try_(weft_session_step(session, &err));
  try_(weft_session_read_output(session, "probabilities", NUL, WEFT_DTYPE_F32, probabilities, sizeof probabilities, &err));
  for (int i = 0; i < 10; i++) printf("%d %.9g\n", i, probabilities[i]);

  /* in any order: each keeps what it needs of the others */
  weft_device_free(device);
  weft_graph_free(g);
  weft_compiled_free(compiled);
  weft_weights_free(weights);
  weft_session_free(session);
  return 0;
}

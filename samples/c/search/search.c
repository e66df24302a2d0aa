/* Finds the passages that mean most nearly what was asked, with a sentence encoder.
 *
 *     search samples/models/minilm FILE... QUESTION
 *
 * Each line of the files is a passage. `samples/models/fetch minilm` fetches the model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft.h>

enum { MOST_PASSAGES = 10000, SHOWN = 3 };

static weft_error *err = NULL;

static void try_(weft_status status) {
  if (status == WEFT_STATUS_OK) return;
  fprintf(stderr, "%s: %s\n", weft_status_name(status), weft_error_message(err).data);
  weft_error_free(err);
  exit(1);
}

/* Adds the lines of a file that have text. */
static size_t read_lines(const char *path, weft_str *passages, size_t count) {
  FILE *file = fopen(path, "r");
  char line[4096];
  if (file == NULL) {
    fprintf(stderr, "cannot read %s\n", path);
    exit(1);
  }
  while (count < MOST_PASSAGES && fgets(line, sizeof line, file) != NULL) {
    size_t length = strcspn(line, "\r\n");
    if (length == 0) continue;
    char *copy = malloc(length);
    if (copy == NULL) exit(1);
    memcpy(copy, line, length);
    passages[count++] = (weft_str){copy, length};
  }
  fclose(file);
  return count;
}

static void progress(void *user_data, size_t done, size_t all) {
  (void)user_data;
  fprintf(stderr, "\r%zu of %zu", done, all);
  if (done == all) fprintf(stderr, "\n");
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: search MODEL_FOLDER FILE... QUESTION\n");
    return 2;
  }
  static weft_str passages[MOST_PASSAGES + 1];
  size_t count = 0;
  for (int i = 2; i < argc - 1; i++) count = read_lines(argv[i], passages, count);
  passages[count] = (weft_str){argv[argc - 1], WEFT_NUL_TERMINATED};

  weft_device *device = NULL;
  weft_encoder *encoder = NULL;
  try_(weft_device_open("cpu", WEFT_NUL_TERMINATED, 0, &device, &err));
  try_(weft_encoder_open(device, argv[1], WEFT_NUL_TERMINATED, WEFT_PRECISION_FULL, &encoder, &err));
  size_t components, max_tokens;
  try_(weft_encoder_sizes(encoder, &components, &max_tokens, &err));

  size_t elements = (count + 1) * components;
  float *embeddings = malloc(elements * sizeof *embeddings);
  float *scores = calloc(count + 1, sizeof *scores);
  if (embeddings == NULL || scores == NULL) return 1;
  try_(weft_encoder_embed(encoder, passages, count + 1, embeddings, elements, progress, NULL, &err));

  /* embeddings have length 1: their product is the cosine */
  const float *question = embeddings + count * components;
  for (size_t i = 0; i < count; i++)
    for (size_t k = 0; k < components; k++) scores[i] += embeddings[i * components + k] * question[k];
  for (size_t shown = 0; shown < SHOWN && shown < count; shown++) {
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
      if (scores[i] > scores[best]) best = i;
    printf("%.9g %.*s\n", scores[best], (int)passages[best].length, passages[best].data);
    scores[best] = -2.0f;
  }

  for (size_t i = 0; i < count; i++) free((void *)passages[i].data);
  free(embeddings);
  free(scores);
  weft_encoder_free(encoder);
  weft_device_free(device);
  return 0;
}

/* What a call through C costs: prints nanoseconds, the fastest of many rounds.
 *
 *     overhead        an empty step; giving 4 MB to an input by copy; lending them */
#include "check.h"
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

enum { ROUNDS = 300, STEPS = 1000, BYTES = 4 << 20 };

static weft_session *session(weft_device *device, const char *text) {
  weft_graph *g = NULL;
  weft_compiled *compiled = NULL;
  weft_session *s = NULL;
  OK(weft_graph_parse(text, NUL, &g, &err));
  OK(weft_compile(device, g, NULL, &compiled, &err));
  OK(weft_compiled_init_zeros(compiled, &s, &err));
  OK(weft_graph_free(g));
  OK(weft_compiled_free(compiled));
  return s;
}

#define FASTEST(rounds, times, call)                               \
  __extension__({                                                  \
    double best_ = 1e18;                                           \
    for (int r_ = 0; r_ < (rounds); r_++) {                        \
      double from_ = now();                                        \
      for (int i_ = 0; i_ < (times); i_++) OK(call);               \
      double took_ = (now() - from_) / (times);                    \
      if (took_ < best_) best_ = took_;                            \
    }                                                              \
    best_;                                                         \
  })

int main(void) {
  weft_device *device = NULL;
  OK(weft_device_open("cpu", NUL, 1, &device, &err));
  weft_session *empty = session(device, "weft 1\nconst c: f32[1] = [1.0]\noutput y = c\n");
  printf("step %.1f\n", FASTEST(ROUNDS, STEPS, weft_session_step(empty, &err)));

  weft_session *large = session(device, "weft 1\ninput x: f32[1048576]\ny = sum(x, axes=[0], keepdim=false)\noutput y = y\n");
  float *data = aligned_alloc(64, BYTES), sum = 0, wanted = 0;
  CHECK(data != NULL);
  for (int i = 0; i < BYTES / 4; i++) data[i] = (float)(i % 5), wanted += data[i];
  printf("copied %.1f\n", FASTEST(50, 1, weft_session_set_input(large, "x", NUL, WEFT_DTYPE_F32, data, BYTES, &err)));
  printf("lent %.1f\n", FASTEST(50, 10, weft_session_borrow_input(large, "x", NUL, WEFT_DTYPE_F32, data, BYTES, NULL, NULL, &err)));
  OK(weft_session_step(large, &err));
  OK(weft_session_read_output(large, "y", NUL, WEFT_DTYPE_F32, &sum, 4, &err));
  CHECK(fabsf(sum - wanted) < 1e-3f * wanted);
  data[7] += 1000; /* read where it lies */
  OK(weft_session_step(large, &err));
  OK(weft_session_read_output(large, "y", NUL, WEFT_DTYPE_F32, &sum, 4, &err));
  CHECK(fabsf(sum - wanted - 1000) < 1e-3f * wanted / 10);
  OK(weft_session_free(large));
  OK(weft_session_free(empty));
  OK(weft_device_free(device));
  free(data);
  return 0;
}

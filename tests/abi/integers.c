/* Integers of 64 bits through the library: constants as data, in a graph's text and as a scalar; inputs and outputs.
 *
 *     integers DEVICE */
#include "check.h"
#include <stdint.h>

static const int64_t C[4] = {INT64_MAX, INT64_MIN, (INT64_C(1) << 53) + 1, 1};

int main(int count, char **arguments) {
  CHECK(count == 2);
  weft_device *device = NULL;
  weft_graph *graph = NULL, *parsed = NULL, *beyond = NULL;
  weft_bytes *text = NULL;
  weft_value c, x, same, five, none_of_it;
  OK(weft_device_open(arguments[1], NUL, 2, &device, &err));
  OK(weft_graph_new(&graph, &err));
  OK(weft_graph_constant(graph, WEFT_DTYPE_I64, (size_t[]){4}, 1, C, sizeof C, &c, &err));
  OK(weft_graph_input(graph, "x", NUL, WEFT_DTYPE_I64, (size_t[]){4}, 1, &x, &err));
  OK(weft_op_eq(graph, x, c, &same, &err));
  OK(weft_graph_scalar(graph, 5, WEFT_DTYPE_I64, &five, &err));
  /* a double holds neither halves of integers nor 2^63 as an i64; a graph remembers its first error, so each has its own */
  const double refused[2] = {0.5, 9223372036854775808.0};
  for (int i = 0; i < 2; i++) {
    weft_graph *spoilt = NULL;
    OK(weft_graph_new(&spoilt, &err));
    FAILS(WEFT_STATUS_OP, weft_graph_scalar(spoilt, refused[i], WEFT_DTYPE_I64, &none_of_it, &err));
    OK(weft_graph_free(spoilt));
  }
  OK(weft_graph_output(graph, "c", NUL, c, &err));
  OK(weft_graph_output(graph, "same", NUL, same, &err));
  OK(weft_graph_output(graph, "five", NUL, five, &err));
  OK(weft_graph_text(graph, &text, &err));
  const uint8_t *form = NULL;
  size_t length = 0;
  OK(weft_bytes_data(text, &form, &length, &err));
  OK(weft_graph_parse((const char *)form, length, &parsed, &err));
  const char wrong[] = "weft 1\nconst c: i64[1] = [9223372036854775808]\noutput c = c\n";
  FAILS(WEFT_STATUS_PARSE, weft_graph_parse(wrong, NUL, &beyond, &err));

  weft_graph *both[2] = {graph, parsed};
  for (int i = 0; i < 2; i++) {
    weft_compiled *compiled = NULL;
    weft_session *session = NULL;
    weft_weights *none = NULL;
    OK(weft_weights_new(&none, &err));
    OK(weft_compile(device, both[i], NULL, &compiled, &err));
    OK(weft_compiled_init(compiled, none, &session, &err));
    const int64_t given[4] = {INT64_MAX, INT64_MIN, INT64_C(1) << 53, 1};
    OK(weft_session_set_input(session, "x", NUL, WEFT_DTYPE_I64, given, sizeof given, &err));
    OK(weft_session_step(session, &err));
    int64_t found[4], one;
    uint8_t equal[4];
    OK(weft_session_read_output(session, "c", NUL, WEFT_DTYPE_I64, found, sizeof found, &err));
    OK(weft_session_read_output(session, "same", NUL, WEFT_DTYPE_BOOL, equal, sizeof equal, &err));
    OK(weft_session_read_output(session, "five", NUL, WEFT_DTYPE_I64, &one, sizeof one, &err));
    CHECK(memcmp(found, C, sizeof C) == 0 && one == 5);
    CHECK(equal[0] == 1 && equal[1] == 1 && equal[2] == 0 && equal[3] == 1);
    OK(weft_session_free(session));
    OK(weft_compiled_free(compiled));
    OK(weft_weights_free(none));
  }
  OK(weft_bytes_free(text));
  OK(weft_graph_free(parsed));
  OK(weft_graph_free(graph));
  return weft_device_free(device) != WEFT_STATUS_OK;
}

/* What the C programs of these tests have in common. */
#ifndef WEFT_TESTS_CHECK_H
#define WEFT_TESTS_CHECK_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft.h>

#define NUL WEFT_NUL_TERMINATED
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static weft_error *err = NULL;

/* A call that must succeed. */
#define OK(call)                                                                                  \
  do {                                                                                            \
    weft_status status_ = (call);                                                                 \
    if (status_ != WEFT_STATUS_OK) {                                                              \
      fprintf(stderr, "%s:%d: %s\n  %s: %s\n", __FILE__, __LINE__, #call, weft_status_name(status_), \
              weft_error_message(err).data);                                                      \
      exit(1);                                                                                    \
    }                                                                                             \
  } while (0)

/* A call that must fail so, with an error that says who failed. */
#define FAILS(wanted, call)                                                                       \
  do {                                                                                            \
    weft_status status_ = (call);                                                                 \
    weft_str who_ = weft_error_call(err);                                                         \
    if (status_ != (wanted) || weft_error_status(err) != (wanted) || who_.length == 0 ||          \
        strncmp(#call, who_.data, who_.length) != 0 || weft_error_message(err).length == 0) {     \
      fprintf(stderr, "%s:%d: %s\n  wanted %s, got %s: %s\n", __FILE__, __LINE__, #call,          \
              weft_status_name(wanted), weft_status_name(status_), weft_error_message(err).data); \
      exit(1);                                                                                    \
    }                                                                                             \
    OK(weft_error_free(err));                                                                     \
    err = NULL;                                                                                   \
  } while (0)

/* A text that ends with NUL, as every one of the library's; a build that looks at texts tells of each. */
#ifdef LOOKS
#define ENDS(what, text) ends(what, text)
#else
#define ENDS(what, text) CHECK(strlen((text).data) == (text).length)
#endif

/* Something that must be so. */
#define CHECK(condition)                                                          \
  do {                                                                            \
    if (!(condition)) {                                                           \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);     \
      exit(1);                                                                    \
    }                                                                             \
  } while (0)

#endif

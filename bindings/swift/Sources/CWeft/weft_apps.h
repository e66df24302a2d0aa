/* What Swift calls by the C ABI: the C library's header, and the functions of bindings/apps/src/swift.rs, which says what they
 * do. */
#ifndef WEFT_APPS_H
#define WEFT_APPS_H

#include "../../../c/include/weft.h"

/** The number of the library's interface. */
uint32_t weft_apps_interface(void);

/** What was wanted, what came, and at which node: NULL for what the error does not have. Valid until the error is freed. */
weft_status weft_apps_error_details(const weft_error *error, weft_str *wanted, weft_str *came, weft_str *node);

/** Lends an output's elements, and keeps other calls off the session until weft_apps_end_lending. */
weft_status weft_apps_lend_output(weft_session *session,
                                  const char *output_name,
                                  size_t name_length,
                                  void **lending,
                                  const void **data,
                                  size_t *data_bytes,
                                  weft_error **err);

/** Ends what weft_apps_lend_output began, once. */
void weft_apps_end_lending(void *lending);

#endif

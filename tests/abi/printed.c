/* Prints an error as most programs do. */
#include "check.h"

int main(void) {
  weft_device *device = NULL;
  CHECK(weft_device_open("no such device", NUL, 0, &device, &err) == WEFT_STATUS_DEVICE);
  const char *message = weft_error_message(err).data;
  printf("%s: %.21s\n", weft_error_call(err).data, message);
  CHECK(strchr(message, ':') == message + 21);
  return weft_error_free(err) != WEFT_STATUS_OK;
}

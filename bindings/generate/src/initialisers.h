/** Options as they are unless told otherwise: for inference, in full precision, without a cache. */
#define WEFT_COMPILE_OPTIONS_INIT \
  { sizeof(weft_compile_options), 0, WEFT_PRECISION_FULL, 0, 0, NULL, WEFT_NUL_TERMINATED, (uint64_t)64 << 20, NULL, NULL, NULL, \
    NULL, WEFT_NUL_TERMINATED }

/** Adam with its authors' constants and a learning rate of 0.001. */
#define WEFT_OPTIMIZER_INIT \
  { sizeof(weft_optimizer), WEFT_OPTIMIZER_ADAM, 1e-3f, 0.9f, 0.999f, 1e-8f, 0 }

/** One epoch, followed by nobody. */
#define WEFT_TRAIN_OPTIONS_INIT \
  { sizeof(weft_train_options), 1, NULL, NULL, NULL }

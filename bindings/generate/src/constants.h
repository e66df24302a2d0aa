/** A length that says: the text ends with NUL. */
#define WEFT_NUL_TERMINATED SIZE_MAX

/**
 * No value: for inputs that are left out, and to begin with. Where a call fails, its result is not written: a value that began
 * as WEFT_VALUE_NONE stays so, every call that uses it fails with the first error, and so does weft_compile. Statuses of
 * single calls may therefore be left unchecked.
 */
#define WEFT_VALUE_NONE UINT32_MAX

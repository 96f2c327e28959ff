/* A fuzzer is a file fuzz_*.c with these two: LLVM's libFuzzer calls the first, and so
 * does fuzz_main.c where there is no clang. */
#ifndef AZS_TESTS_FUZZ_H
#define AZS_TESTS_FUZZ_H

#include "hex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Inputs to begin with, as hex() reads them; NULL at the end. */
extern const char *const fuzz_seeds[];

/* The input is eaten from the front; zeros come when there is no more. */
typedef struct {
    const uint8_t *data;
    size_t size;
} fuzz_input;

static inline uint8_t
fuzz_octet(fuzz_input *in)
{
    if (in->size == 0)
        return 0;
    in->size--;
    return *in->data++;
}

/* At most `size` octets: how many there are. */
static inline size_t
fuzz_octets(fuzz_input *in, size_t size, const uint8_t **data)
{
    if (size > in->size)
        size = in->size;
    *data = in->data;
    in->data += size;
    in->size -= size;
    return size;
}

#endif

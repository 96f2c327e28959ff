/* Octets written as a recorded exchange has them: hex digits, spaces between, "00*16"
 * for sixteen of one. */
#ifndef AZS_TESTS_HEX_H
#define AZS_TESTS_HEX_H

#include "check.h"

typedef struct {
    uint8_t *data;
    size_t size;
} octets;

/* Kept until the process ends. */
octets hex(const char *text);

/* A copy of its own, so that a sanitizer sees what is read beyond its end. To be freed
 * by free(). */
uint8_t *copy_of(const void *data, size_t size);

/* "03 01", the mechanism's name, zeros: all of a greeting but its first ten octets. */
#define GREETING_NULL  "0301 4e554c4c 00*16 00*32 "
#define GREETING_PLAIN "0301 504c41494e 00*15 00*32 "
#define GREETING_CURVE "0301 4355525645 00*15 00*32 "
#define SIGNATURE      "ff 00*7 01 7f "

#endif

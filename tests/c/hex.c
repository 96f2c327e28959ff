#include "hex.h"

#include <ctype.h>

static struct kept {
    struct kept *next;
    uint8_t data[];
} *all_kept; /* reachable, so that no leak is seen */

octets
hex(const char *text)
{
    enum { CAPACITY = 128 * 1024 };
    struct kept *kept = malloc(sizeof(*kept) + CAPACITY);
    kept->next = all_kept;
    all_kept = kept;
    size_t n = 0;
    while (*text != '\0') {
        if (isspace((unsigned char)*text)) {
            text++;
            continue;
        }
        char digits[3] = {text[0], text[1], '\0'};
        CHECK(isxdigit((unsigned char)digits[0]) && isxdigit((unsigned char)digits[1]));
        text += 2;
        long times = 1;
        if (*text == '*')
            times = strtol(text + 1, (char **)&text, 10);
        CHECK(n + (size_t)times <= CAPACITY);
        memset(kept->data + n, (int)strtol(digits, NULL, 16), (size_t)times);
        n += (size_t)times;
    }
    return (octets){kept->data, n};
}

uint8_t *
copy_of(const void *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

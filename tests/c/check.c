/* What a check says when it fails: see check.h. */
#include "check.h"

void
check_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
    exit(1);
}

void
check_int(const char *file, int line, const char *what, long long got,
          long long expected)
{
    if (got == expected)
        return;
    fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", file, line, what, got, expected);
    exit(1);
}

static void
print_octets(const char *what, const unsigned char *data, size_t size)
{
    fprintf(stderr, "  %s (%zu):", what, size);
    for (size_t i = 0; i < size && i < 400; i++)
        fprintf(stderr, " %02x", data[i]);
    fprintf(stderr, "\n");
}

void
check_mem(const char *file, int line, const char *what, const void *got, size_t size,
          const void *expected, size_t expected_size)
{
    if (size == expected_size && (size == 0 || memcmp(got, expected, size) == 0))
        return;
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    print_octets("got", got, size);
    print_octets("expected", expected, expected_size);
    exit(1);
}

/* Helpers that need neither Python nor libc state. */
#ifndef AZS_BASE_COMMON_H
#define AZS_BASE_COMMON_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define azs_likely(x)   __builtin_expect(!!(x), 1)
#define azs_unlikely(x) __builtin_expect(!!(x), 0)

#define azs_container_of(ptr, type, member)                                            \
    ((type *)((char *)(ptr) - offsetof(type, member)))

#define AZS_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif

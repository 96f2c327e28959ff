/* Unit tests of csrc's rooms without Python.
 *
 *     TEST(ring_keeps_order)
 *     {
 *         CHECK_INT(azs_ring_init(&ring, 4), 0);
 *     }
 *
 * registers a test; test_c.py finds it by this line and runs it in a process of its
 * own. A check that fails says where and ends the process.
 */
#ifndef AZS_TESTS_CHECK_H
#define AZS_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/common.h"

typedef struct check_test {
    const char *name;
    void (*run)(void);
    struct check_test *next;
} check_test;

/* main.c's list of all tests. */
extern check_test *check_tests;

#define TEST(test)                                                                     \
    static void test(void);                                                            \
    __attribute__((constructor)) static void register_##test(void)                     \
    {                                                                                  \
        static check_test entry = {#test, test, NULL};                                 \
        entry.next = check_tests;                                                      \
        check_tests = &entry;                                                          \
    }                                                                                  \
    static void test(void)

_Noreturn void check_failed(const char *file, int line, const char *what);
void check_int(const char *file, int line, const char *what, long long got,
               long long expected);
void check_mem(const char *file, int line, const char *what, const void *got,
               size_t size, const void *expected, size_t expected_size);

#define CHECK(condition)                                                               \
    ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))
#define CHECK_INT(got, expected)                                                       \
    check_int(__FILE__, __LINE__, #got, (long long)(got), (long long)(expected))
/* Are the `size` octets at `got` the `expected_size` at `expected`? */
#define CHECK_MEM(got, size, expected, expected_size)                                  \
    check_mem(__FILE__, __LINE__, #got, got, size, expected, expected_size)

#endif

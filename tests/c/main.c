/* Runs the one test that is named: see check.h. */
#include "check.h"

check_test *check_tests;

int
main(int argc, char **argv)
{
    for (check_test *test = check_tests; test != NULL; test = test->next) {
        if (argc == 2 && strcmp(test->name, argv[1]) == 0) {
            test->run();
            return 0;
        }
    }
    fprintf(stderr, "usage: %s TEST\n", argv[0]);
    return 2;
}

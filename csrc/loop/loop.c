#include "loop/loop.h"

int
azs_loop_init(PyObject *mod, azs_state *st)
{
    return 0;
}

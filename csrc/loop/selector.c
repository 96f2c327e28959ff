#include "loop/selector.h"

int
azs_selector_init(PyObject *mod, azs_state *st)
{
    return 0;
}

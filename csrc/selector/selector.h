/* EpollSelector: selectors.EpollSelector in C. */
#ifndef AZS_SELECTOR_SELECTOR_H
#define AZS_SELECTOR_SELECTOR_H

#include "py/state.h"

int azs_selector_init(PyObject *mod, azs_state *st);

#endif

"""CPython's own selector tests, run on the selectors of this package."""

import pytest

from aiozmq_speedups.selector import EpollSelector, ZmqSelector

cpython = pytest.importorskip("test.test_selectors", reason="no test package")


class TestEpollSelector(cpython.EpollSelectorTestCase):
    SELECTOR = EpollSelector

    # asserts how long a wait takes; see test_never_returns_early
    test_timeout = None
    # patches selectors.EpollSelector itself; see
    # test_modify_unregisters_what_epoll_refuses
    test_modify_unregister = None


class TestZmqSelector(cpython.EpollSelectorTestCase):
    SELECTOR = ZmqSelector

    # asserts how long a wait takes; see test_never_returns_early
    test_timeout = None
    test_modify_unregister = None
    # poll(2) takes regular files; see test_regular_file_is_always_ready
    test_register_file = None
    # aiozmq's raises KeyError after close(); see test_zmq_selector_after_close
    test_close = None
    test_context_manager = None

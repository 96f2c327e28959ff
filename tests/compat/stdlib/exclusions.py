"""What of test.test_asyncio is not run on our loop, each with its reason."""

import sys
from typing import NamedTuple

#: Whole modules: {name: reason}.
MODULES = {
    "test_proactor_events": "tests of Windows' loop, with mocks",
    "test_protocols": "makes no event loop",
    "test_selector_events": "tests asyncio's selector loop with a mock for a selector",
    "test_transports": "makes no event loop",
    "test_windows_events": "Windows only",
    "test_windows_utils": "Windows only",
}
if sys.version_info >= (3, 14):
    MODULES["test_tools"] = "makes no event loop"

#: Classes of any module: {name: reason}.
CLASSES = {
    "SelectEventLoopTests": "the tests of EPollEventLoopTests on another selector",
    "PollEventLoopTests": "the tests of EPollEventLoopTests on another selector",
}

#: Modules that make an asyncio.BaseEventLoop and take its selector away: they get
#: our loop for it.
BASE_LOOP = {"test_base_events", "test_pep492", "test_runners"}

#: Modules whose tests need the simulated loop of test_asyncio.utils: {name: reason}.
TEST_LOOP = {
    "test_unix_events": "calls transports with mocks and looks at its tables of readers"
}

FAILS, HANGS = "fails", "hangs"


class Exclusion(NamedTuple):
    kind: str
    reason: str
    since: tuple[int, ...] = (3, 11)


#: Single tests, by id without "test.test_asyncio.". Those that fail are run, and
#: must fail, so that none stays here longer than needed.
TESTS = {
    f"test_base_events.BaseEventLoopTests.{name}": exclusion
    for name, exclusion in {
        "test__add_callback_handle": Exclusion(FAILS, "looks into loop._ready"),
        "test__run_once": Exclusion(HANGS, "puts handles into loop._scheduled"),
        "test__run_once_cancelled_event_cleanup": Exclusion(
            FAILS, "counts the handles in loop._scheduled"
        ),
        "test__run_once_schedule_handle": Exclusion(
            HANGS, "puts handles into loop._scheduled"
        ),
        "test_custom_run_forever_integration": Exclusion(
            HANGS, "runs turns without work on a selector that does not wait", (3, 13)
        ),
        "test_not_implemented": Exclusion(FAILS, "what only a derived loop has"),
        "test_run_forever_pre_stopped": Exclusion(
            FAILS, "counts the calls of the selector"
        ),
        "test_single_selecter_event_callback_after_stopping": Exclusion(
            FAILS, "counts the calls of loop._process_events"
        ),
    }.items()
}
TESTS |= {
    f"test_events.EPollEventLoopTests.test_call_soon_threadsafe_{name}": Exclusion(
        HANGS, "wants an asyncio.events._ThreadSafeHandle", (3, 14)
    )
    for name in (
        "handle_block_cancellation",
        "handle_block_check_cancelled",
        "handle_cancel_other_thread",
    )
}
TESTS |= {
    f"test_free_threading.{cls}.test_all_tasks_from_other_thread_{name}": Exclusion(
        FAILS, "puts a class in the place of asyncio.Task", (3, 14, 10)
    )
    for cls in ("TestPyFreeThreading", "TestEagerPyFreeThreading")
    for name in ("includes_eager_tasks",)
}
TESTS["test_ssl.TestSSL.test_remote_shutdown_receives_trailing_data_on_slow_socket"] = (
    Exclusion(HANGS, "looks into the transport for _read_ready_cb", (3, 14, 10))
)

#: Modules that also run with aiofastnet's TLS.
TLS_MODULES = ("test_events", "test_sendfile", "test_ssl", "test_sslproto")
TLS_MODULES += ("test_streams",)

#: As TESTS, with aiofastnet's TLS.
TLS_TESTS = {
    f"test_ssl.TestSSL.{name}": Exclusion(FAILS, "looks into asyncio's SSLProtocol")
    for name in (
        "test_flush_before_shutdown",
        "test_remote_shutdown_receives_trailing_data",
    )
}
if sys.version_info < (3, 13):
    TLS_TESTS["test_events.EPollEventLoopTests.test_create_server_ssl_match_failed"] = (
        Exclusion(FAILS, "wants the words of Python's _ssl for a wrong address")
    )
TLS_TESTS["test_ssl.TestSSL.test_shutdown_timeout_after_eof_from_not_reading_peer"] = (
    Exclusion(FAILS, "it ends at once where the peer has ended", (3, 14, 10))
)
TLS_TESTS[
    "test_sslproto.SelectorStartTLSTests."
    "test_create_connection_ssl_failed_certificate_no_cycles"
] = Exclusion(FAILS, "aiofastnet leaves it to the collector", (3, 14, 10))

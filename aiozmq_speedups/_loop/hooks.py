"""What asyncio keeps private and this package calls or replaces.

Kept here in one place, so that a new Python version's change is found by one test.
"""

from __future__ import annotations

ASYNCIO_HOOKS = {
    "asyncio.base_events.BaseEventLoop": (
        "_asyncgen_finalizer_hook",
        "_asyncgen_firstiter_hook",
        "_check_callback",
        "_check_closed",
        "_check_running",
        "_check_thread",
        "_ensure_resolved",
        "_set_coroutine_origin_tracking",
        "_add_callback",
        "_connect_sock",
        "_create_connection_transport",
        "_make_read_pipe_transport",
        "_make_socket_transport",
        "_make_ssl_transport",
        "_make_write_pipe_transport",
        "_sendfile_fallback",
        "_sock_sendfile_native",
        "_write_to_self",
    ),
    "asyncio.selector_events.BaseSelectorEventLoop": (
        "_add_reader",
        "_add_writer",
        "_close_self_pipe",
        "_ensure_fd_no_transport",
        "_make_self_pipe",
        "_sendfile_native",
        "_start_serving",
        "_stop_serving",
        "_read_from_self",
        "_remove_reader",
        "_remove_writer",
    ),
    "asyncio.unix_events._UnixSelectorEventLoop": (
        "_handle_signal",
        "_process_self_data",
        "_sock_sendfile_update_filepos",
    ),
    "asyncio.base_events": ("_format_handle",),
    # And of its instances `_sockets`, `_clients`: see csrc/net/clients.c.
    "asyncio.base_events.Server": ("_attach", "_detach", "_wakeup"),
    "asyncio.format_helpers": ("_format_callback_source", "extract_stack"),
    "asyncio.events": ("_set_running_loop",),
    # And of its instances `_app_transport`, `_incoming`: see tls.py.
    "asyncio.sslproto": ("SSLProtocol", "_create_transport_context"),
}

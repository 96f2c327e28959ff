"""A pytest plugin: pyzmq's tests import this package's module as zmq.asyncio."""

import asyncio
import os
import warnings

import aiozmq_speedups

aiozmq_speedups.install(zmq_asyncio=True)

import zmq.asyncio  # noqa: E402

from aiozmq_speedups import zmq_asyncio  # noqa: E402

assert zmq.asyncio.Socket is zmq_asyncio.Socket
if os.environ["SPEEDUPS_LOOP"] == "asyncio":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(None)


def pytest_report_header():
    loop = asyncio.new_event_loop()
    loop.close()
    return f"{zmq.asyncio.Socket} on {type(loop)}"

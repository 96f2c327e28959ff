"""log_events: what happens to a socket's connections goes to a logger."""

import asyncio
import logging

import pytest
import zmq

from aiozmq_speedups import create_zmq_stream
from aiozmq_speedups._zmq import accelerated
from aiozmq_speedups._zmq.pure import _PyZmqTransport

LOGGER = "aiozmq_speedups.zmq"


@pytest.fixture(params=["libzmq", "native"])
def options(request, loop_kind):
    if request.param == "native":
        if loop_kind != "speedups":
            pytest.skip("the native engine needs our loop")
        if accelerated.transport_class is _PyZmqTransport:
            pytest.skip(f"no transport in C: {accelerated.transport_info}")
    return {"engine": request.param}


async def until_logged(caplog, text, level):
    while not any(
        text in record.getMessage() and record.levelno == level
        for record in caplog.records
    ):
        await asyncio.sleep(0.001)


def test_life_of_a_connection(loop, options, caplog):
    async def main():
        server = await create_zmq_stream(
            zmq.PULL, bind="tcp://127.0.0.1:*", log_events=True, **options
        )
        (endpoint,) = server.transport.bindings()
        await until_logged(caplog, f"PULL {endpoint}: listening", logging.INFO)
        client = await create_zmq_stream(
            zmq.PUSH, connect=endpoint, log_events=True, **options
        )
        await until_logged(caplog, ": handshake succeeded", logging.INFO)
        await until_logged(caplog, f"PUSH {endpoint}: connected", logging.DEBUG)
        server.close()
        await until_logged(caplog, f"PUSH {endpoint}: disconnected", logging.INFO)
        await until_logged(caplog, f"PUSH {endpoint}: connect retried", logging.DEBUG)
        client.close()
        await asyncio.sleep(0)

    with caplog.at_level(logging.DEBUG, LOGGER):
        loop.run_until_complete(main())
    assert {record.name for record in caplog.records} == {LOGGER}


def test_off_by_default(loop, caplog, monkeypatch):
    async def main(expected, **options):
        caplog.clear()
        stream = await create_zmq_stream(zmq.PULL, bind="tcp://127.0.0.1:*", **options)
        assert (stream.transport._monitor is not None) == expected
        if expected:
            await until_logged(caplog, "listening", logging.INFO)
        stream.close()
        await asyncio.sleep(0)

    with caplog.at_level(logging.DEBUG, LOGGER):
        loop.run_until_complete(main(False))
        monkeypatch.setenv("AIOZMQ_SPEEDUPS_LOG_ZMQ", "1")
        loop.run_until_complete(main(True))
        loop.run_until_complete(main(False, log_events=False))
    with pytest.raises(TypeError, match="log_events must be a bool"):
        loop.run_until_complete(main(True, log_events=1))


@pytest.mark.loops("speedups")
def test_it_goes_on_when_iterators_and_protocols_are_done(loop, options, caplog):
    async def main():
        stream = await create_zmq_stream(zmq.PULL, log_events=True, **options)
        with stream.transport.monitor():
            pass
        await stream.transport.enable_monitor()
        await stream.transport.disable_monitor()
        await stream.transport.bind("tcp://127.0.0.1:*")
        await until_logged(caplog, "listening", logging.INFO)
        stream.close()
        await asyncio.sleep(0)

    with caplog.at_level(logging.DEBUG, LOGGER):
        loop.run_until_complete(main())

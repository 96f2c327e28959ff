"""install(): asyncio's new loops are ours from then on."""

from __future__ import annotations

import asyncio
from asyncio import events

from aiozmq_speedups._loop.api import new_event_loop


def install(
    *, aiozmq: bool = False, uvloop: bool = False, zmq_asyncio: bool = False
) -> None:
    """Make every new asyncio loop of this process one of ours.

    Sets the event loop policy or, from Python 3.16 on, which has none, replaces
    :func:`asyncio.new_event_loop`; if a program can be changed,
    ``aiozmq_speedups.run(main())`` is the better way. With ``aiozmq=True`` also
    makes ``import aiozmq`` and its submodules resolve to this package, with
    ``uvloop=True`` ``import uvloop`` (``run``, ``new_event_loop``, ``install``,
    ``EventLoopPolicy`` and ``Loop`` are this loop's), with ``zmq_asyncio=True``
    ``import zmq.asyncio`` (:mod:`aiozmq_speedups.zmq_asyncio`); RuntimeError if the
    other package was imported already. Twice is harmless.
    """
    from aiozmq_speedups._alias import install_alias

    if aiozmq:
        install_alias("aiozmq")
    if uvloop:
        install_alias("uvloop")
    if zmq_asyncio:
        install_alias("zmq.asyncio")
    try:
        from aiozmq_speedups._loop.policy import EventLoopPolicy, get_policy, set_policy
    except ImportError:
        # asyncio.Runner looks this name up.
        events.new_event_loop = new_event_loop
        asyncio.new_event_loop = new_event_loop
    else:
        if type(get_policy()) is not EventLoopPolicy:
            set_policy(EventLoopPolicy())


install.__module__ = "aiozmq_speedups.loop"

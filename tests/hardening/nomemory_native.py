"""The sweeps of nomemory_cases.py over the native engine; a process per case.

``python nomemory_native.py CASE``. A call that had no memory leaves its socket usable;
a connection inside which there was none is lost, and made anew by who connects.
"""

import itertools
import socket
import sys
import warnings
from contextlib import suppress

import zmq
from nomemory_cases import nothing, sweep
from nomemory_transports import BIG, Calls, checked, main
from zmq.utils import z85

from aiozmq_speedups._ext import core as _core
from aiozmq_speedups._zmq.accelerated import _CZmqTransport

CASES = {}
PAIRS = [
    (zmq.DEALER, zmq.ROUTER),
    (zmq.REQ, zmq.REP),
    (zmq.PUSH, zmq.PULL),
    (zmq.PUB, zmq.SUB),
    (zmq.XPUB, zmq.XSUB),
    (zmq.PAIR, zmq.PAIR),
]


def case(function):
    CASES[function.__name__] = checked(function)
    return function


class Socket(_core.ZmtpSocket):
    """What the engine calls takes any arguments, and is C: Python code must not run
    without memory."""

    _peer_ready = _peer_lost = _peer_asks = _peer_drained = _beat = itertools.chain


class Pair:
    """Two sockets, and a connection that is made anew when it is lost."""

    def __init__(self, alive, stack, kinds, mechanism=0, **options):
        self.alive, self.loop, self.kinds = alive, alive.loop, kinds
        self.sockets = [Socket(alive.loop, kind) for kind in kinds]
        keys = zmq.curve_keypair(), zmq.curve_keypair()
        for i, sock in enumerate(self.sockets):
            for name, value in {"relaxed": 1, **options}.items():
                sock._set(name, value)
            sock._configure(*self.configuration(i, mechanism, keys))
        self.peers = []
        stack.callback(self.end)

    def configuration(self, i, mechanism, keys):
        if mechanism != 2:
            asks = mechanism == 1 and i == 1
            return mechanism, i == 1, asks, b"", b"u", b"p", b"", b"", b"", None
        raw = [[z85.decode(key) for key in pair] for pair in keys]
        library = sys.modules[zmq.backend.Socket.__module__].__file__
        server = raw[1][0] if i == 0 else b""
        return 2, i == 1, False, b"", b"", b"", *raw[i], server, library

    def turn(self, times=1):
        for _ in range(times):
            self.loop.call_soon(nothing)
            self.loop._run_once()

    def drop(self):
        for peer in self.peers:
            peer._close()
        self.peers = []

    def fresh(self):
        """Connected, whatever has become of the last connection."""
        if self.peers and all(peer.state == "ready" for peer in self.peers):
            return
        self.begin()
        self.shake()

    def begin(self):
        """A new connection, whose handshake has not begun."""
        self.drop()
        self.ends = socket.socketpair()
        self.peers = [sock._new_peer(None, False) for sock in self.sockets]
        for end in self.ends:
            end.setblocking(False)

    def attach(self):
        for peer, end in zip(self.peers, self.ends, strict=True):
            if peer.state == "idle":
                peer._attach(end.fileno())
                end.detach()

    def shake(self):
        self.attach()
        for _ in range(100):
            if all(peer.state == "ready" for peer in self.peers):
                return
            self.turn()
            for peer in self.peers:
                peer._decide(200)
        raise AssertionError([peer.state for peer in self.peers])

    def check(self):
        """It works still: a message passes."""
        self.alive.check()
        self.fresh()
        self.exchange()

    def exchange(self):
        first, second = self.sockets
        if self.kinds[1] == zmq.REP:
            second._send((b"what was asked before",))
        elif self.kinds[1] == zmq.XSUB:
            second._send((b"\1~",))
        elif self.kinds[1] == zmq.SUB:
            second._subscribe(b"~", True)
        for _ in range(1000):
            first._send((b"~", b"ping"))
            self.turn(2)
            while got := self.take(second):
                if self.kinds[1] != zmq.REP:
                    break
                second._send((b"pong",))
            if self.kinds[1] == zmq.REP:
                self.turn(2)
                got = self.take(first)
            if got:
                break
        else:
            raise AssertionError("nothing arrives", self.kinds)
        while self.take(first) or self.take(second):
            pass

    def take(self, sock):
        with suppress(MemoryError):
            return sock._recv()

    def end(self):
        self.drop()
        for sock in self.sockets:
            sock._close()
            sock._move(None)
        self.turn()

    def sweep(self, operation, prepare=nothing, errors=()):
        def ready():
            self.fresh()
            prepare()

        sweep(operation, prepare=ready, check=self.check, errors=errors)

    def sweep_turns(self, prepare, turns=3):
        """A turn of the loop with what `prepare` has made for it to do."""
        for turn in range(turns):

            def ready():
                prepare()
                self.turn(turn)
                self.loop.call_soon(nothing)

            sweep(self.loop._run_once, prepare=ready, check=self.check)


@case
def handshakes(alive, stack):
    for mechanism in 0, 1, 2:
        pair = Pair(alive, stack, (zmq.DEALER, zmq.ROUTER), mechanism)
        for i in range(2):
            sweep(
                lambda: pair.sockets[i]._new_peer(None, True)._close(),
                check=pair.check,
            )
            sweep(
                lambda: pair.peers[i]._attach(pair.ends[i].fileno()),
                prepare=pair.begin,
                check=lambda: (detach(pair, i), pair.check()),
            )

        def begun():
            pair.begin()
            pair.attach()

        pair.sweep_turns(begun, 6)


def detach(pair, i):
    if pair.peers[i].fd >= 0:
        pair.ends[i].detach()


@case
def handshakes_of_each_type(alive, stack):
    for kinds in PAIRS:
        pair = Pair(alive, stack, kinds, probe=1)
        if zmq.SUB in kinds:
            pair.sockets[1]._subscribe(b"topic", True)
        if zmq.XPUB in kinds:
            pair.sockets[0]._set_welcome(b"welcome")

        def begun():
            pair.begin()
            pair.attach()

        pair.sweep_turns(begun, 3)
        pair.end()


@case
def sends(alive, stack):
    for kinds in PAIRS[:2] + PAIRS[4:5]:
        pair = Pair(alive, stack, kinds)
        first, second = pair.sockets
        if kinds[0] == zmq.REQ:
            first._set("correlate", 1)
        pair.check()
        for message in (b"~",) * 20, (b"~", BIG):
            pair.sweep(lambda: first._send(message))
            pair.sweep_turns(lambda: (pair.fresh(), first._send(message)), 1)
        pair.end()


@case
def sends_by_id(alive, stack):
    pair = Pair(alive, stack, (zmq.DEALER, zmq.ROUTER))

    def known():
        pair.sockets[0]._send((b"who",))
        while not (got := pair.take(pair.sockets[1])):
            pair.fresh()
            pair.turn()
        pair.id = got[0]

    for message in (b"x",), (b"x",) * 20, (BIG,):
        pair.sweep(lambda: pair.sockets[1]._send((pair.id, *message)), known)


@case
def sends_that_wait(alive, stack):
    """To a peer that is not connected, and to one that takes nothing."""
    pair = Pair(alive, stack, (zmq.DEALER, zmq.ROUTER))

    def alone():
        pair.begin()
        pair.peers.append(pair.sockets[0]._new_peer(None, True))

    for message in (b"x",), (b"x",) * 20, (BIG,):
        sweep(lambda: pair.sockets[0]._send(message), prepare=alone, check=pair.check)

    def full():
        pair.fresh()
        for _ in range(50):
            pair.sockets[0]._send((BIG,))
        pair.peers[0]._flush()

    for message in (b"x",), (b"x",) * 20, (BIG,):
        sweep(lambda: pair.sockets[0]._send(message), prepare=full, check=pair.check)
    pair.sweep_turns(full, 3)


@case
def sealed(alive, stack):
    pair = Pair(alive, stack, (zmq.DEALER, zmq.ROUTER), 2)
    for message in (b"x",), (b"x",) * 20, (BIG,):
        pair.sweep(lambda: pair.sockets[0]._send(message))
        pair.sweep_turns(lambda: (pair.fresh(), pair.sockets[0]._send(message)), 2)


@case
def receives(alive, stack):
    for kinds in PAIRS[:3] + PAIRS[4:5]:
        pair = Pair(alive, stack, kinds)
        pair.check()
        first, second = pair.sockets

        def there():
            pair.fresh()
            while pair.take(second):
                pass
            for _ in range(3):
                first._send((b"~", b"x" * 300, BIG))
            pair.turn(3)

        sweep(second._recv, prepare=there, check=pair.check)
        sweep(second._look, prepare=there, check=pair.check)
        pair.end()


@case
def subscriptions(alive, stack):
    pair = Pair(alive, stack, (zmq.XPUB, zmq.SUB), verboser=1)
    numbers = itertools.count()
    first, second = pair.sockets
    for size in 1, 300:
        pair.topic = b""

        def prepare(size=size):
            second._subscribe(pair.topic, False)
            pair.topic = b"%d" % next(numbers) * size

        pair.sweep(lambda: second._subscribe(pair.topic, True), prepare)
        pair.sweep_turns(
            lambda: (pair.fresh(), prepare(), second._subscribe(pair.topic, True)), 2
        )

        def there(prepare=prepare):
            prepare()
            second._subscribe(pair.topic, True)
            pair.turn(2)

        pair.sweep(lambda: second._subscribe(pair.topic, False), there)
    # What a peer has subscribed to ends with it.
    pair.sweep(lambda: pair.peers[0]._close(), there)
    pair.sweep(lambda: pair.peers[0]._disconnect(), there)
    pair = Pair(alive, stack, (zmq.PUB, zmq.XSUB))
    pair.sweep(lambda: pair.sockets[1]._send((b"\1topic",)))
    pair.sweep(lambda: pair.sockets[1]._send((b"\0topic",)))


@case
def heartbeats(alive, stack):
    pair = Pair(
        alive, stack, (zmq.DEALER, zmq.ROUTER), heartbeat_interval=1, heartbeat_ttl=100
    )
    pair.sweep(lambda: pair.peers[0]._heartbeat())
    pair.sweep_turns(lambda: (pair.fresh(), pair.peers[0]._heartbeat()), 2)


@case
def ends(alive, stack):
    for kinds in PAIRS[:2] + PAIRS[3:4]:
        pair = Pair(alive, stack, kinds)

        def busy():
            pair.fresh()
            pair.sockets[0]._send((b"~", BIG))
            pair.peers[0]._flush()

        sweep(lambda: pair.peers[0]._disconnect(), prepare=busy, check=pair.check)
        sweep(lambda: pair.peers[1]._close(), prepare=busy, check=pair.check)
        pair.sweep_turns(lambda: (busy(), pair.peers[0]._close()), 2)
        pair.end()


@case
def transports(alive, stack):
    """What a ZmqTransport makes of it."""
    for message in [b"~", b"x"], [b"~"] * 20, [b"~", BIG]:
        pair = Pair(alive, stack, (zmq.DEALER, zmq.ROUTER))
        pair.fresh()
        protocols = Calls(), Calls()
        made = [
            _CZmqTransport(alive.loop, kind, sock, protocol)
            for kind, sock, protocol in zip(
                pair.kinds, pair.sockets, protocols, strict=True
            )
        ]
        pair.turn(2)
        got = protocols[1].got

        def check():
            alive.check()
            pair.fresh()
            for _ in range(1000):
                got.clear()
                made[0].write([b"ping"])
                pair.turn(2)
                if got:
                    break
            assert got
            assert not made[0].is_closing()

        sweep(lambda: made[0].write(message), prepare=pair.fresh, check=check)

        def sent():
            pair.fresh()
            made[0].write(message)
            pair.loop.call_soon(nothing)

        sweep(alive.loop._run_once, prepare=sent, check=check)
        for transport in made:
            transport._force_close(None)
        pair.turn(3)
        for protocol in protocols:
            assert len(protocol.lost) == 1
        pair.end()


if __name__ == "__main__":
    warnings.simplefilter("ignore", RuntimeWarning)
    main(CASES)

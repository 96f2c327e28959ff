"""wait_subscribed() of publishers and subscribers: no first message is lost."""

import asyncio
import contextlib
import itertools

import parity
import pytest
import zmq

QUESTION = b"\xffaiozmq_speedups.subscribed?"

ROUNDS = 10

numbers = itertools.count()

#: (who binds, the endpoint)
TOPOLOGIES = [
    (binder, address)
    for binder in ("publisher", "subscriber")
    for address in ("tcp://127.0.0.1:*", "ipc://*", "inproc://wait-subscribed-%d")
]


class Keeper:
    """Puts what is published to put() in a queue."""

    def __init__(self, rpc):
        self.queue = asyncio.Queue()
        queue = self.queue

        class Handler(rpc.AttrHandler):
            @rpc.method
            def put(self, item):
                queue.put_nowait(item)

            @rpc.method
            async def wait(self):
                queue.put_nowait("waiting")
                await asyncio.get_running_loop().create_future()

        self.handler = Handler()


@contextlib.asynccontextmanager
async def closing(*services):
    try:
        yield
    finally:
        for service in services:
            with contextlib.suppress(Exception):
                service.transport.setsockopt(zmq.LINGER, 0)
            await parity.close(service)


def topology_test(test):
    """Runs a test coroutine with (client, service, queue) for each of TOPOLOGIES,
    several times, each with new sockets."""

    @pytest.mark.parametrize("binder, address", TOPOLOGIES)
    def run_test(ours, run, binder, address):
        async def go():
            for _ in range(ROUNDS):
                # libzmq gives a name back some time after its socket was closed.
                where = address.replace("%d", str(next(numbers)))
                keeper = Keeper(ours.rpc)

                async def serve(**endpoint):
                    return await ours.rpc.serve_pubsub(
                        keeper.handler, subscribe=["one", "two"], **endpoint
                    )

                if binder == "publisher":
                    client = await ours.rpc.connect_pubsub(bind=where)
                    (endpoint,) = client.transport.bindings()
                    service = await serve(connect=endpoint)
                else:
                    service = await serve(bind=where)
                    (endpoint,) = service.transport.bindings()
                    client = await ours.rpc.connect_pubsub(connect=endpoint)
                async with closing(client, service):
                    await test(client, service, keeper.queue)

        run(go())

    run_test.__name__ = test.__name__
    run_test.__doc__ = test.__doc__
    return run_test


@topology_test
async def test_publisher_waits(client, service, queue):
    await client.wait_subscribed("one", timeout=100)
    await client.publish("one").put(1)
    assert await queue.get() == 1
    # Of a later subscription too, whose topic is a beginning.
    service.subscribe("thr")
    await client.wait_subscribed("three", timeout=100)
    await client.publish("three").put(3)
    assert await queue.get() == 3


@topology_test
async def test_subscriber_waits(client, service, queue):
    await service.wait_subscribed(timeout=100)
    await client.publish("one").put(1)
    await client.publish("two").put(2)
    assert [await queue.get() for _ in range(2)] == [1, 2]
    # Again, where the connection is there.
    service.subscribe("three")
    await service.wait_subscribed(timeout=100)
    await client.publish("three").put(3)
    assert await queue.get() == 3
    # Questions are not the user's subscriptions.
    assert set(service.transport.subscriptions()) == {b"one", b"two", b"three"}
    assert queue.empty()


def test_all_of_many_topics_are_in_effect(ours, run):
    """A new connection begins with them in any order, beside the question.

    They are more than libzmq's high water mark, at which it drops subscriptions.
    """

    async def go():
        keeper = Keeper(ours.rpc)
        topics = [b"%d" % i for i in range(2000)] + [
            b"\xff\xff%d" % i for i in range(9)
        ]
        client = await ours.rpc.connect_pubsub(bind="tcp://127.0.0.1:*", sndhwm=10_000)
        (endpoint,) = client.transport.bindings()
        service = await ours.rpc.serve_pubsub(
            keeper.handler, subscribe=topics, connect=endpoint, rcvhwm=10_000
        )
        async with closing(client, service):
            await service.wait_subscribed(timeout=100)
            for topic in topics:
                await client.publish(topic).put(topic)
            for topic in topics:
                assert await keeper.queue.get() == topic

    run(go())


def test_several_publishers(ours, run):
    async def go():
        keeper = Keeper(ours.rpc)
        service = await ours.rpc.serve_pubsub(
            keeper.handler, subscribe="", bind="tcp://127.0.0.1:*"
        )
        (endpoint,) = service.transport.bindings()
        clients = []
        waiting = [
            asyncio.ensure_future(service.wait_subscribed(publishers=n, timeout=100))
            for n in (1, 2, 3)
        ]
        for number, waiter in enumerate(waiting):
            clients.append(await ours.rpc.connect_pubsub(connect=endpoint))
            await waiter
            assert not any(other.done() for other in waiting[number + 1 :])
        async with closing(service, *clients):
            for number, client in enumerate(clients):
                await client.publish("topic").put(number)
            assert {await keeper.queue.get() for _ in clients} == {0, 1, 2}
            # The answers that subscribers of everything get do not matter.
            assert keeper.queue.empty()

    run(go())


def test_several_subscribers(ours, run):
    async def go():
        client = await ours.rpc.connect_pubsub(bind="tcp://127.0.0.1:*")
        (endpoint,) = client.transport.bindings()
        keepers = [Keeper(ours.rpc) for _ in range(3)]
        three = asyncio.ensure_future(client.wait_subscribed("topic", count=3))
        services = []
        for number, keeper in enumerate(keepers, 1):
            assert not three.done()
            services.append(
                await ours.rpc.serve_pubsub(
                    keeper.handler, subscribe="top", connect=endpoint
                )
            )
            await client.wait_subscribed("topic", count=number, timeout=100)
        await three
        async with closing(client, *services):
            await client.publish("topic").put(1)
            for keeper in keepers:
                assert await keeper.queue.get() == 1
            # Who leaves is counted no more.
            await parity.close(services.pop())
            services[0].unsubscribe("top")
            while client._proto.count_subscriptions(b"topic") > 1:
                await asyncio.sleep(0.001)
            with pytest.raises(TimeoutError):
                await client.wait_subscribed("topic", count=2, timeout=0.01)

    run(go())


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:*", "ipc://*"])
def test_who_subscribes_twice_counts_once(ours, run, endpoint):
    """And no more when it has unsubscribed, or has gone."""

    async def go():
        client = await ours.rpc.connect_pubsub(bind=endpoint)
        (bound,) = client.transport.bindings()

        async def until(topic, count):
            while client._proto.count_subscriptions(topic) != count:
                await asyncio.sleep(0.001)

        async with (
            closing(client),
            ours.opened(zmq.XSUB, connect=bound) as other,
            asyncio.timeout(100),
        ):
            async with ours.opened(zmq.XSUB, connect=bound) as twice:
                for topic in (b"a", b"a", b"b", b"b", b"ready"):
                    twice.write([b"\1" + topic])
                await until(b"ready", 1)
                other.write([b"\1a"])
                await until(b"a", 2)
                assert client._proto.count_subscriptions(b"b") == 1
                for _ in range(2):  # it sends the second alone
                    twice.write([b"\0a"])
                await until(b"a", 1)
                twice.write([b"\1a"])
                await until(b"a", 2)
            await until(b"a", 1)
            await until(b"b", 0)
            other.write([b"\0a"])
            await until(b"a", 0)
            await until(b"ready", 0)
            assert not client._proto.connections

    run(go())


def test_lost_connections_are_forgotten(ours, run, monkeypatch):
    from aiozmq_speedups.rpc import pubsub

    monkeypatch.setattr(pubsub, "_MAX_LOST", 2)

    async def go():
        client = await ours.rpc.connect_pubsub(bind="tcp://127.0.0.1:*")
        (bound,) = client.transport.bindings()
        async with (
            closing(client),
            ours.opened(zmq.XSUB, connect=bound) as stays,
            asyncio.timeout(100),
        ):
            stays.write([b"\1a"])
            for _ in range(10):
                await client.wait_subscribed("a")
                async with ours.opened(zmq.XSUB, connect=bound) as goes:
                    goes.write([b"\1a"])
                    await client.wait_subscribed("a", count=2)
                while client._proto.count_subscriptions(b"a") != 1:
                    await asyncio.sleep(0.001)
            assert len(client._proto.connections[b"a"]) <= 2 * 2 + 2 + 1

    run(go())


def test_subscribers_of_other_software_count(impl, run):
    """Subscribers of aiozmq, and plain SUB sockets."""
    from aiozmq_speedups import rpc

    async def go():
        keeper = Keeper(impl.rpc)
        client = await rpc.connect_pubsub(bind="tcp://127.0.0.1:*")
        (endpoint,) = client.transport.bindings()
        service = await impl.rpc.serve_pubsub(
            keeper.handler, subscribe="topic", connect=endpoint
        )
        async with closing(client, service), impl.opened(zmq.SUB) as plain:
            plain.transport.subscribe(b"")
            await plain.transport.connect(endpoint)
            await client.wait_subscribed("topic", count=2, timeout=100)
            await client.publish("topic").put(1)
            assert await keeper.queue.get() == 1
            assert (await plain.read())[:2] == [b"topic", b"put"]

    run(go())


def test_publisher_of_other_software_never_answers(ours, run):
    async def go():
        keeper = Keeper(ours.rpc)
        async with ours.opened(zmq.PUB, bind="tcp://127.0.0.1:*") as peer:
            (endpoint,) = peer.transport.bindings()
            service = await ours.rpc.serve_pubsub(
                keeper.handler, subscribe="", connect=endpoint
            )
            async with closing(service):
                with pytest.raises(TimeoutError):
                    await service.wait_subscribed(timeout=0.05)

    run(go())


def test_through_a_forwarder(ours, run):
    async def go():
        keeper = Keeper(ours.rpc)
        async with (
            ours.opened(zmq.XSUB, bind="tcp://127.0.0.1:*") as front,
            ours.opened(zmq.XPUB, bind="tcp://127.0.0.1:*") as back,
        ):

            async def forward(source, target):
                while True:
                    target.write(await source.read())

            tasks = [
                asyncio.ensure_future(forward(*pair))
                for pair in ((front, back), (back, front))
            ]
            (to_publish,), (to_subscribe,) = (
                end.transport.bindings() for end in (front, back)
            )
            client = await ours.rpc.connect_pubsub(connect=to_publish)
            service = await ours.rpc.serve_pubsub(
                keeper.handler, subscribe="topic", connect=to_subscribe
            )
            async with closing(client, service):
                await service.wait_subscribed(timeout=100)
                await client.publish("topic").put(1)
                assert await keeper.queue.get() == 1
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    run(go())


@contextlib.asynccontextmanager
async def alone(impl):
    """(client, service) that are not connected."""
    client = await impl.rpc.connect_pubsub(bind="tcp://127.0.0.1:*")
    service = await impl.rpc.serve_pubsub(
        Keeper(impl.rpc).handler, subscribe="topic", bind="tcp://127.0.0.1:*"
    )
    async with closing(client, service):
        yield client, service


def nothing_left(client, service):
    return not client._proto.waiting and not service._proto.inquiries


def test_timeout_and_cancel(ours, run):
    async def go():
        async with alone(ours) as (client, service):
            for wait in (
                lambda **kwargs: client.wait_subscribed("topic", **kwargs),
                service.wait_subscribed,
            ):
                with pytest.raises(TimeoutError):
                    await wait(timeout=0.01)
                task = asyncio.ensure_future(wait())
                await asyncio.sleep(0.01)
                assert not task.done()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert nothing_left(client, service)
            # It still works.
            (endpoint,) = client.transport.bindings()
            await service.transport.connect(endpoint)
            await service.wait_subscribed(timeout=100)
            await client.wait_subscribed("topic", timeout=100)

    run(go())


@pytest.mark.parametrize("how", ["close", "shutdown", "abort", "socket"])
def test_close_while_waiting(ours, run, how):
    async def go():
        contexts = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: contexts.append(context))
        async with alone(ours) as (client, service):
            tasks = [
                asyncio.ensure_future(coro)
                for coro in (
                    client.wait_subscribed("topic"),
                    client.wait_subscribed("other", timeout=100),
                    service.wait_subscribed(),
                    service.wait_subscribed(timeout=100),
                )
            ]
            await asyncio.sleep(0)
            for end in (client, service):
                if how == "close":
                    end.close()
                elif how == "shutdown":
                    await end.shutdown()
                elif how == "abort":
                    end.transport.abort()
                else:
                    end.transport.get_extra_info("zmq_socket").close()
            for task in tasks:
                with pytest.raises(ours.rpc.ServiceClosedError):
                    await task
            assert nothing_left(client, service)
            for wait in (
                lambda: client.wait_subscribed("topic"),
                service.wait_subscribed,
            ):
                with pytest.raises(ours.rpc.ServiceClosedError):
                    await wait()
        assert len(contexts) == (2 if how == "socket" else 0)

    run(go())


def test_wrong_arguments(ours, run):
    async def go():
        async with alone(ours) as (client, service):
            for topic in (1, ["topic"]):
                with pytest.raises(TypeError, match="should be None, str or bytes"):
                    await client.wait_subscribed(topic)
            for limit in (0, -1):
                with pytest.raises(ValueError, match="at least 1"):
                    await client.wait_subscribed("topic", count=limit)
                with pytest.raises(ValueError, match="at least 1"):
                    await service.wait_subscribed(publishers=limit)

    run(go())


def test_while_nothing_is_received(ours, run):
    """max_concurrency= holds the answer up."""

    async def go():
        keeper = Keeper(ours.rpc)
        client = await ours.rpc.connect_pubsub(bind="tcp://127.0.0.1:*")
        (endpoint,) = client.transport.bindings()
        service = await ours.rpc.serve_pubsub(
            keeper.handler, subscribe="", connect=endpoint, max_concurrency=1
        )
        async with closing(client, service):
            await service.wait_subscribed(timeout=100)
            await client.publish("topic").wait()
            assert await keeper.queue.get() == "waiting"
            waiter = asyncio.ensure_future(service.wait_subscribed(timeout=100))
            await asyncio.sleep(0.01)
            assert not waiter.done()
            (handler,) = service._proto.pending_waiters
            handler.cancel()
            await waiter

    run(go())


def test_hostile_subscriber(ours, run):
    """An XSUB may send anything; only what is a question gets an answer."""

    async def go():
        client = await ours.rpc.connect_pubsub(bind="tcp://127.0.0.1:*")
        (endpoint,) = client.transport.bindings()
        async with (
            closing(client),
            ours.opened(zmq.XSUB, connect=endpoint) as peer,
            ours.opened(zmq.SUB) as witness,
        ):
            witness.transport.subscribe(b"")
            await witness.transport.connect(endpoint)
            await client.wait_subscribed("", timeout=100)
            question = QUESTION + b"q" * 16
            for message in (
                [b""],
                [b"\x02"],
                [b"user", b"data"],
                [b"\x00never subscribed"],
                [b"\x00"],
                [b"\x01", b"more"],
                [b"\x01" + QUESTION],
                [b"\x01" + QUESTION + b"q" * 15],
                [b"\x01" + QUESTION + b"q" * 17],
                [b"\x00" + question],
                [b"\x01" + question],
                [b"\x01last"],
            ):
                peer.write(message)
            while b"last" not in client._proto.subscriptions:
                await asyncio.sleep(0.001)
            await client.publish("last").end()
            answer = await witness.read()
            assert answer[:2] == [question, b""]
            assert len(answer) == 4
            assert (await witness.read())[:2] == [b"last", b"end"]

    run(go())

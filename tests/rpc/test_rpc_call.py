"""The call of a remote name in C: whatever its attributes are, it does not crash."""

import gc
import weakref

import pytest

from aiozmq_speedups import _ext, rpc
from aiozmq_speedups.rpc.util import _MethodCall

core = _ext.core
pytestmark = pytest.mark.skipif(core is None, reason="the C extension was not built")


class Sender:
    def __init__(self):
        self.sent = []

    def send(self, *args):
        self.sent.append(args)
        return len(self.sent)


def test_what_is_sent():
    sender = Sender()
    call = _MethodCall(sender, "option")
    assert call.ns.func(1, 2, key=3) == 1
    assert call.ns.func() == 2
    assert sender.sent == [
        (b"ns.func", (1, 2), {"key": 3}, "option"),
        (b"ns.func", (), {}, "option"),
    ]
    with pytest.raises(ValueError, match="name is empty"):
        call()


def test_without_init():
    call = core.RpcCall()
    with pytest.raises(AttributeError, match="__make_name__"):
        call()
    call.__bname__ = b"name"
    with pytest.raises(RuntimeError, match="__init__"):
        call(1)
    # A client that was not initialized either.
    call.__proto__, call.__option__ = core.RpcClient(), None
    with pytest.raises(AttributeError, match="_send"):
        call(1)


@pytest.mark.parametrize("name", [None, "text", 1, b""])
def test_a_name_that_is_none(name):
    call = _MethodCall(Sender()).func
    call.__bname__ = name
    assert call(1) == 1
    assert call.__bname__ == b"func"


def test_attributes_that_go_while_it_is_called():
    class Fleeting:
        def send(self, bname, args, kwargs, option):
            del call.__proto__, call.__option__, call.__bname__
            gc.collect()
            return bname, args, kwargs, option

    call = _MethodCall(Fleeting(), ["option"], ("a", "b"))
    assert call(1, x=2) == (b"a.b", (1,), {"x": 2}, ["option"])


def test_circles_are_collected():
    class Circle(Sender):
        pass

    sender = Circle()
    sender.call = _MethodCall(sender)
    ref = weakref.ref(sender)
    del sender
    gc.collect()
    assert ref() is None


def test_a_finalizer_that_ends_the_client(loop):
    """A call looks through the table first, and drops what is done."""

    @rpc.method
    def f(arg):
        return arg

    async def main():
        server = await rpc.serve_rpc({"f": f}, bind="tcp://127.0.0.1:*")
        client = await rpc.connect_rpc(connect=server.transport.bindings())
        proto = client._proto

        class Bomb:
            def __del__(self):
                proto.begin_shutdown()

        done = loop.create_future()
        done.set_result(Bomb())
        proto._calls[12345] = done
        del done
        proto._sweep_at = 1
        assert await client.call.f(1) == 1  # it had begun
        with pytest.raises(rpc.ServiceClosedError):
            client.call.f(1)
        for service in client, server:
            service.close()
            await service.wait_closed()

    loop.run_until_complete(main())

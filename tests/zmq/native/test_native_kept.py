"""What waits for a peer whose connection is lost, on both engines."""

import pytest
import zmq
from helpers import close, open_transport
from ports import held_port
from raw_peer import RawServer, frame

pytestmark = pytest.mark.parametrize("engine", ["libzmq", "native"])


def test_a_router_that_connects_keeps_what_it_sends_to_a_lost_peer(run, engine):
    async def go():
        with held_port() as port:
            server = RawServer()
            endpoint = await server.listen(port)
            transport, protocol = await open_transport(
                zmq.ROUTER,
                connect=endpoint,
                engine=engine,
                linger=0,
                reconnect_interval=0.01,
            )
            await transport.enable_monitor()
            for number in range(3):
                peer = await server.accept()
                await peer.shake(b"DEALER", Identity=b"name")
                if number > 0:
                    # Written while nobody was there.
                    assert await peer.frame() == (0, b"%d" % number)
                peer.write(frame(b"hello"))
                await protocol.received(number + 1)
                assert protocol.messages[-1] == [b"name", b"hello"]
                await peer.close()
                await peer.at_end()
                lost = zmq.EVENT_DISCONNECTED
                await protocol.until(
                    lambda: [e.event for e in protocol.events].count(lost) > number
                )
                transport.getsockopt(zmq.EVENTS)
                transport.write([b"name", b"%d" % (number + 1)])
            # Whoever is there now, anonymous, has the name's messages.
            peer = await server.accept()
            await peer.shake(b"DEALER")
            assert await peer.frame() == (0, b"3")
            peer.write(frame(b"hello"))
            await protocol.received(4)
            assert protocol.messages[-1] == [b"name", b"hello"]
            await transport.disconnect(endpoint)
            transport.write([b"name", b"to nobody"])
            await peer.at_end()
            await peer.close()
            await close(transport)
            server.close()

    run(go())


def test_a_rep_that_connects_keeps_its_answer(run, engine):
    async def go():
        with held_port() as port:
            server = RawServer()
            endpoint = await server.listen(port)
            transport, protocol = await open_transport(
                zmq.REP,
                connect=endpoint,
                engine=engine,
                linger=0,
                reconnect_interval=0.01,
            )
            await transport.enable_monitor()
            peer = await server.accept()
            await peer.shake(b"REQ")
            peer.write(frame(b"", more=True) + frame(b"question"))
            await protocol.received(1)
            await peer.close()
            await protocol.until(
                lambda: any(e.event == zmq.EVENT_DISCONNECTED for e in protocol.events)
            )
            transport.write([b"answer"])
            peer = await server.accept()
            await peer.shake(b"REQ")
            assert await peer.frame() == (1, b"")
            assert await peer.frame() == (0, b"answer")
            await peer.close()
            await close(transport)
            server.close()

    run(go())

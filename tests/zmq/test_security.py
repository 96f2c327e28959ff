"""Encrypted and authenticated connections, with pyzmq's ZAP authenticators."""

import asyncio

import pytest
import zmq
from helpers import close, open_transport
from zmq.auth.asyncio import AsyncioAuthenticator
from zmq.auth.thread import ThreadAuthenticator

from aiozmq_speedups import rpc

pytestmark = pytest.mark.usefixtures("errors", "transport_kind")

SERVER, ALICE, MALLORY = (zmq.curve_keypair() for _ in range(3))
ANY_PORT = "tcp://127.0.0.1:*"


class Members:
    def callback(self, domain, key):
        assert domain == "vault"
        return key == ALICE[0]


@pytest.fixture(params=[AsyncioAuthenticator, ThreadAuthenticator])
def authenticator(loop, request):
    """On the context that the transports share with pyzmq."""
    auth = request.param(zmq.Context.instance())

    async def start():
        auth.start()

    async def stop():
        auth.stop()
        await asyncio.sleep(0)

    loop.run_until_complete(start())
    yield auth
    loop.run_until_complete(stop())


async def connected(kind, server, **options):
    """A client of `server`, and the event that ended its handshake."""
    client, client_p = await open_transport(kind, linger=0, **options)
    # libzmq tells of a refusal as HANDSHAKE_FAILED_AUTH where ZAP said 400, and
    # merely disconnects where the keys do not fit.
    ends = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    ends |= zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    await client.enable_monitor(ends | zmq.EVENT_DISCONNECTED)
    await client.connect(*server.bindings())
    await client_p.until(lambda: client_p.events)
    return client, client_p, client_p.events[0].event


def test_curve(run, authenticator):
    authenticator.configure_curve_callback("vault", Members())

    async def go():
        server, server_p = await open_transport(
            zmq.PULL,
            bind=ANY_PORT,
            curve_server=True,
            curve_secretkey=SERVER[1],
            zap_domain="vault",
        )

        def curve(pair, serverkey=SERVER[0]):
            return {"curve_secretkey": pair[1], "curve_serverkey": serverkey}

        alice, _, event = await connected(zmq.PUSH, server, **curve(ALICE))
        assert event == zmq.EVENT_HANDSHAKE_SUCCEEDED
        alice.write([b"from alice"])
        assert await server_p.received(1) == [[b"from alice"]]

        mallory, mallory_p, event = await connected(zmq.PUSH, server, **curve(MALLORY))
        assert event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
        assert mallory_p.events[0].value == 400

        # A man in the middle does not have the server's secret key.
        fooled, _, event = await connected(zmq.PUSH, server, **curve(ALICE, MALLORY[0]))
        assert event != zmq.EVENT_HANDSHAKE_SUCCEEDED

        plain, _, event = await connected(zmq.PUSH, server)
        assert event != zmq.EVENT_HANDSHAKE_SUCCEEDED

        for tr in (mallory, fooled, plain):
            tr.write([b"let me in"])
        alice.write([b"last"])
        assert await server_p.received(2) == [[b"from alice"], [b"last"]]
        # What nobody takes would be waited for.
        for tr in (mallory, fooled, plain):
            tr.abort()
        await close(alice, mallory, fooled, plain, server)

    run(go())


def test_plain(run, authenticator):
    authenticator.configure_plain("vault", passwords={"alice": "opensesame"})

    async def go():
        server, server_p = await open_transport(
            zmq.PULL, bind=ANY_PORT, plain_server=True, zap_domain="vault"
        )
        alice, _, event = await connected(
            zmq.PUSH, server, plain_username="alice", plain_password="opensesame"
        )
        assert event == zmq.EVENT_HANDSHAKE_SUCCEEDED
        alice.write([b"from alice"])
        assert await server_p.received(1) == [[b"from alice"]]
        mallory, _, event = await connected(
            zmq.PUSH, server, plain_username="alice", plain_password="guess"
        )
        assert event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
        await close(alice, mallory, server)

    run(go())


@pytest.mark.parametrize("mechanism", ["null", "curve", "plain"])
def test_a_domain_without_authenticator_lets_nobody_in(run, mechanism):
    """libzmq's own default is to let everybody in."""
    server_options, client_options = {
        "null": ({}, {}),
        "curve": (
            {"curve_server": True, "curve_secretkey": SERVER[1]},
            {"curve_secretkey": ALICE[1], "curve_serverkey": SERVER[0]},
        ),
        "plain": (
            {"plain_server": True},
            {"plain_username": "alice", "plain_password": "opensesame"},
        ),
    }[mechanism]

    async def go():
        server, server_p = await open_transport(
            zmq.PULL, bind=ANY_PORT, zap_domain="vault", **server_options
        )
        # The client of a server with NULL is left without an answer.
        await server.enable_monitor(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        )
        client, _ = await open_transport(
            zmq.PUSH, linger=0, connect=list(server.bindings()), **client_options
        )
        await server_p.until(lambda: server_p.events)
        assert server_p.events[0].event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        await close(client, server)

    run(go())


def test_rpc(run, authenticator):
    authenticator.configure_curve_callback("vault", Members())

    class Vault(rpc.AttrHandler):
        @rpc.method
        def secret(self) -> int:
            return 42

    async def go():
        server = await rpc.serve_rpc(
            Vault(),
            bind=ANY_PORT,
            curve_server=True,
            curve_secretkey=SERVER[1],
            zap_domain="vault",
        )
        client = await rpc.connect_rpc(
            connect=list(server.transport.bindings()),
            curve_secretkey=ALICE[1],
            curve_serverkey=SERVER[0],
        )
        assert await client.call.secret() == 42
        for service in (client, server):
            service.close()
            await service.wait_closed()

    run(go())

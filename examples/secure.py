"""A service that is encrypted, and lets in only the clients that it knows.

python examples/secure.py
"""

import zmq
from zmq.auth.asyncio import AsyncioAuthenticator

import aiozmq_speedups
from aiozmq_speedups import rpc


class Vault(rpc.AttrHandler):
    @rpc.method
    def secret(self) -> int:
        return 42


class Members:
    """Decides who may come in: the public keys of the clients."""

    def __init__(self, *keys: bytes) -> None:
        self.keys = keys

    def callback(self, domain: str, key: bytes) -> bool:
        return key in self.keys


async def main() -> None:
    # In life each side makes its own pair once, and hands out the public key.
    server_public, server_secret = zmq.curve_keypair()
    alice_public, alice_secret = zmq.curve_keypair()
    _, mallory_secret = zmq.curve_keypair()

    # Without an authenticator CURVE encrypts, but lets everybody in.
    authenticator = AsyncioAuthenticator(zmq.Context.instance())
    authenticator.start()
    authenticator.configure_curve_callback("vault", Members(alice_public))

    server = await rpc.serve_rpc(
        Vault(),
        bind="tcp://127.0.0.1:*",
        curve_server=True,
        curve_secretkey=server_secret,
        zap_domain="vault",
    )
    (endpoint,) = server.transport.bindings()

    alice = await rpc.connect_rpc(
        connect=endpoint,
        curve_secretkey=alice_secret,
        curve_serverkey=server_public,
        heartbeat_interval=10,
    )
    print("alice reads", await alice.call.secret())

    mallory = await rpc.connect_rpc(
        connect=endpoint,
        curve_secretkey=mallory_secret,
        curve_serverkey=server_public,
        linger=0,
    )
    try:
        await mallory.with_timeout(0.3).call.secret()
    except TimeoutError:
        print("mallory is not let in")

    for service in (alice, mallory, server):
        service.close()
        await service.wait_closed()
    authenticator.stop()


if __name__ == "__main__":
    aiozmq_speedups.run(main())

"""A host of its own: a network namespace whose only way out is a TUN device.

``unshare -n python host.py CABLE ADDRESS ROLE ENGINE HEARTBEAT TOTAL``. Its packets go
to and come from the datagram socket CABLE: the test is the wire.
"""

import asyncio
import fcntl
import itertools
import json
import os
import socket
import struct
import sys
import threading

import zmq

from aiozmq_speedups import ZmqProtocol, create_zmq_connection, new_event_loop

SERVER = "10.9.8.1"
INTERVAL = 0.001  # between messages


def plug(cable, address):
    tun = os.open("/dev/net/tun", os.O_RDWR)
    name = b"wire".ljust(16, b"\0")
    fcntl.ioctl(tun, 0x400454CA, name + struct.pack("H14x", 0x1001))  # TUN, no header
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:

        def interface(request, value):
            fcntl.ioctl(sock, request, name + value.ljust(24, b"\0"))

        def ip(text):
            return struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(text))

        interface(0x8916, ip(address))
        interface(0x891C, ip("255.255.255.0"))
        interface(0x8922, struct.pack("i", 1400))
        interface(0x8914, struct.pack("H", 0x41))  # up, running

    def copy(read, write):
        while packet := read(2048):
            write(packet)

    for ends in (
        (lambda size: os.read(tun, size), cable.send),
        (cable.recv, lambda packet: os.write(tun, packet)),
    ):
        threading.Thread(target=copy, args=ends, daemon=True).start()


def say(*words):
    print(*words, flush=True)


class End(ZmqProtocol):
    def __init__(self, total):
        self.total = total
        self.next = 0  # the one that is sent last
        self.got = []
        self.done = asyncio.get_running_loop().create_future()
        self.room = asyncio.Event()
        self.room.set()

    def connection_made(self, transport):
        self.transport = transport

    def pause_writing(self):
        self.room.clear()

    def resume_writing(self):
        self.room.set()

    def event_received(self, event):
        if event.event == zmq.EVENT_DISCONNECTED:
            say("cut", self.next + 1)
        elif event.event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            say("up", self.next)

    def msg_received(self, data):
        if len(data) == 3:
            self.transport.write(data)  # a ROUTER's: back to where it came from
        self.got.append(int(data[-2]))
        if self.got[-1] >= self.total - 1 and not self.done.done():
            self.done.set_result(None)

    async def send(self):
        """`total` messages and, lest a late cut has taken the last, some more."""
        for self.next in itertools.count():
            await self.room.wait()
            self.transport.write([b"%d" % self.next, b"x" * 200])
            await asyncio.sleep(INTERVAL if self.next < self.total else 0.05)


async def main(role, engine, heartbeat, total):
    options, sending = {}, None
    if heartbeat:
        options = {"heartbeat_interval": heartbeat, "heartbeat_timeout": 3 * heartbeat}
    kind = {"push": zmq.PUSH, "pull": zmq.PULL, "dealer": zmq.DEALER}
    transport, end = await create_zmq_connection(
        lambda: End(total),
        kind.get(role, zmq.ROUTER),
        engine=engine,
        linger=20,
        reconnect_interval=0.02,
        connect_timeout=0.3,
        sndhwm=100_000 if role == "router" else 1000,
        **options,
    )
    if role == "dealer":
        transport.setsockopt(zmq.ROUTING_ID, b"the same")
    elif role == "router":
        # Its connection may come again before the end of the last one was seen.
        transport.setsockopt(zmq.ROUTER_HANDOVER, 1)
    await transport.enable_monitor()
    if role in ("pull", "router"):
        await transport.bind(f"tcp://{SERVER}:5555")
        say("ready")
    else:
        await transport.connect(f"tcp://{SERVER}:5555")
        sending = asyncio.create_task(end.send())
    if role != "push":
        await end.done
        say("done")
    # The loop goes on: the other may wait for what is still on its way.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    say("end", json.dumps(end.got))
    if sending is not None:
        sending.cancel()
    transport.close()


if __name__ == "__main__":
    cable, address, role, engine, heartbeat, total = sys.argv[1:]
    plug(socket.socket(fileno=int(cable)), address)
    loop = new_event_loop(close_timeout=20)
    loop.run_until_complete(main(role, engine, float(heartbeat), int(total)))
    loop.close()

"""A front end and its engines, in the shape that inference servers use.

Clients ask the front end's ROUTER; it hands each request to an engine's DEALER and
passes the answer back in pieces, as they come. Payloads are JSON: nothing is
unpickled.
"""

import asyncio
import json

import zmq

from aiozmq_speedups import run, zmq_asyncio

ENGINES = 2


async def engine(context, address):
    """Answers each request with one message a word, then an empty one."""
    with context.socket(zmq.DEALER) as sock:
        sock.connect(address)
        await sock.send_multipart([b"ready"])
        while True:
            client, request = await sock.recv_multipart()
            for word in json.loads(request)["prompt"].split():
                piece = json.dumps({"text": word.upper()}).encode()
                await sock.send_multipart([client, piece])
                await asyncio.sleep(0)
            await sock.send_multipart([client, b""])


async def front_end(clients, engines):
    """Each request goes to the engine that has been idle for the longest time."""
    idle = asyncio.Queue()

    async def from_engines():
        while True:
            name, *answer = await engines.recv_multipart()
            if answer == [b"ready"]:
                idle.put_nowait(name)
                continue
            await clients.send_multipart(answer)
            if answer[1] == b"":
                idle.put_nowait(name)

    async def from_clients():
        while True:
            client, request = await clients.recv_multipart()
            await engines.send_multipart([await idle.get(), client, request])

    async with asyncio.TaskGroup() as group:
        group.create_task(from_engines())
        group.create_task(from_clients())


async def ask(context, address, prompt):
    """The answer's pieces, as they come."""
    with context.socket(zmq.DEALER) as sock:
        sock.connect(address)
        await sock.send(json.dumps({"prompt": prompt}).encode())
        while piece := await sock.recv():
            yield json.loads(piece)["text"]


async def main():
    with zmq_asyncio.Context() as context:
        context.linger = 0
        with (
            context.socket(zmq.ROUTER) as clients,
            context.socket(zmq.ROUTER) as engines,
        ):
            client_port = clients.bind_to_random_port("tcp://127.0.0.1")
            engine_port = engines.bind_to_random_port("tcp://127.0.0.1")
            service = [
                asyncio.create_task(engine(context, f"tcp://127.0.0.1:{engine_port}"))
                for _ in range(ENGINES)
            ]
            service.append(asyncio.create_task(front_end(clients, engines)))

            async def answer(prompt):
                address = f"tcp://127.0.0.1:{client_port}"
                return " ".join([p async for p in ask(context, address, prompt)])

            prompts = ["hello from one", "and from another", "and a third"]
            answers = asyncio.gather(*map(answer, prompts))
            print(*await asyncio.wait_for(answers, 10), sep="\n")
            for task in service:
                task.cancel()
            await asyncio.gather(*service, return_exceptions=True)


if __name__ == "__main__":
    run(main())

"""Large frames are received into memory that is used again: never one in use."""

import pytest
import zmq
from helpers import Recorder, pair

pytestmark = pytest.mark.usefixtures("errors", "transport_kind")


def test_kept_frames_stay_as_they_were(loop):
    kept, hashes = [], []

    class Keeper(Recorder):
        def msg_received(self, data):
            number = len(self.messages)
            self.messages.append(None)
            frame = data[-1]
            hashes.append((hash(frame), frame[:1], len(frame)))
            if number % 4 == 1:
                kept.append((number, frame))
            elif number % 4 == 2:
                kept.append((number, memoryview(frame)))
            elif number % 4 == 3:
                data.clear()
            self._changed.set()

    def frame(number):
        return b"%c" % (65 + number % 26) * (40_000 + 997 * (number % 50))

    async def go():
        async with pair(zmq.PULL, zmq.PUSH, factory1=Keeper) as (_, pull, push, _):
            for number in range(200):
                push.write([b"head", frame(number)])
                await pull.received(number + 1)

    loop.run_until_complete(go())
    assert len(kept) == 100
    for number, value in kept:
        assert bytes(value) == frame(number)
    for number, found in enumerate(hashes):
        expected = frame(number)
        assert found == (hash(expected), expected[:1], len(expected))

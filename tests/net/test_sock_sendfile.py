"""loop.sock_sendfile(): the same behaviour on asyncio's loop and on ours."""

import asyncio
import contextlib
import errno
import inspect
import io
import os
import socket

import pytest

pytestmark = pytest.mark.loops("speedups", "asyncio")


SIZE = 5_000_000  # more than the kernel takes


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1000) * (SIZE // 1000))
    with path.open("r+b") as file:
        yield file


def content(file):
    return os.pread(file.fileno(), SIZE, 0)


@pytest.fixture(params=["unix", "tcp"])
def pair(request):
    if request.param == "unix":
        a, b = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            a = socket.create_connection(listener.getsockname())
            b, _ = listener.accept()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        # Some kernels would take the whole file.
        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
        yield a, b


async def receive_all(loop, sock, slowly=False):
    data = bytearray()
    while chunk := await loop.sock_recv(sock, 30_000 if slowly else 1 << 20):
        data += chunk
        if slowly:
            await asyncio.sleep(0)
    return bytes(data)


async def sent(loop, pair, file, *args, slowly=False, **kwargs):
    """(what sock_sendfile() returned or raised, what the other side got)"""
    a, b = pair
    receiving = loop.create_task(receive_all(loop, b, slowly))
    try:
        result = await loop.sock_sendfile(a, file, *args, **kwargs)
    except Exception as exc:
        result = type(exc)
    a.shutdown(socket.SHUT_WR)
    return result, await asyncio.wait_for(receiving, 100)


def run(loop, coroutine):
    return loop.run_until_complete(coroutine)


@pytest.mark.parametrize("slowly", [False, True])
def test_all_of_it(loop, pair, file, slowly):
    result, data = run(loop, sent(loop, pair, file, slowly=slowly))
    assert result == SIZE
    assert data == content(file)
    assert file.tell() == SIZE


@pytest.mark.parametrize(
    ("offset", "count"),
    [
        (0, 1),
        (0, 1_000_000),
        (10, None),
        (10, 100),
        (SIZE - 5, None),
        (SIZE - 5, 5),
        (SIZE - 5, 100),
        (1_000_000, SIZE),
    ],
)
def test_a_part_of_it(loop, pair, file, offset, count):
    """And the file is where that ends."""
    expected = content(file)[offset : None if count is None else offset + count]
    result, data = run(loop, sent(loop, pair, file, offset, count))
    assert result == len(expected)
    assert data == expected
    assert file.tell() == offset + len(expected)


@pytest.mark.parametrize("offset", [SIZE, SIZE + 1000])
@pytest.mark.parametrize("count", [None, 10])
def test_behind_its_end(loop, pair, file, offset, count):
    """Nothing is sent. The file stays where it was; from some 3.14 on, it is moved."""
    update = asyncio.SelectorEventLoop._sock_sendfile_update_filepos
    moves = "total_sent" not in inspect.signature(update).parameters
    file.seek(7)
    assert run(loop, sent(loop, pair, file, offset, count)) == (0, b"")
    assert file.tell() == (offset if moves else 7)


@pytest.mark.parametrize("count", [None, 10])
def test_an_empty_file(loop, pair, tmp_path, count):
    path = tmp_path / "empty"
    path.touch()
    with path.open("rb") as file:
        assert run(loop, sent(loop, pair, file, 0, count)) == (0, b"")
        assert file.tell() == 0


def test_a_file_that_grows(loop, pair, file):
    """It is sent to the end that it has by then."""

    async def main():
        a, b = pair
        sending = loop.create_task(loop.sock_sendfile(a, file))
        await asyncio.sleep(0.001)
        os.pwrite(file.fileno(), b"more", SIZE)
        receiving = loop.create_task(receive_all(loop, b))
        assert await asyncio.wait_for(sending, 100) == SIZE + 4
        a.shutdown(socket.SHUT_WR)
        assert (await receiving).endswith(b"more")

    run(loop, main())


# ---- what sendfile(2) does not take


def test_a_file_without_a_descriptor(loop, pair):
    data = b"0123456789" * 100_000
    file = io.BytesIO(data)
    assert run(loop, sent(loop, pair, file, 5, 500_000)) == (500_000, data[5:500_005])
    assert file.tell() == 500_005


@pytest.mark.parametrize("make", [lambda: io.BytesIO(b"x"), object])
def test_no_fallback(loop, pair, make):
    assert run(loop, sent(loop, pair, make(), fallback=False)) == (
        asyncio.SendfileNotAvailableError,
        b"",
    )


def test_a_pipe(loop, pair):
    """It has no size: as empty."""
    r, w = os.pipe()
    with open(r, "rb", 0) as reader, open(w, "wb", 0) as writer:
        writer.write(b"x")
        assert run(loop, sent(loop, pair, reader)) == (0, b"")


def test_a_pipe_of_which_some_is_wanted(loop, pair):
    r, w = os.pipe()
    with open(r, "rb", 0) as reader, open(w, "wb", 0) as writer:
        writer.write(b"0123456789")
        result = run(loop, sent(loop, pair, reader, 0, 4, fallback=False))
        assert result in [
            (4, b"0123"),
            (asyncio.SendfileNotAvailableError, b""),
            (OSError, b"0123"),  # a pipe has no position
            (OSError, b""),  # which later versions find out first
        ]


def test_a_character_device(loop, pair):
    with open("/dev/zero", "rb", 0) as file:
        assert run(loop, sent(loop, pair, file, 0, 100_000)) == (
            100_000,
            bytes(100_000),
        )


# ---- what is refused


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((-1,), ValueError),
        ((1.5,), TypeError),
        ((0, 0), ValueError),
        ((0, -1), ValueError),
        ((0, 1.5), TypeError),
    ],
)
def test_wrong_arguments(loop, pair, file, args, error):
    assert run(loop, sent(loop, pair, file, *args)) == (error, b"")


def test_text(loop, pair, tmp_path):
    path = tmp_path / "text"
    path.write_text("text")
    with path.open() as file:
        assert run(loop, sent(loop, pair, file)) == (ValueError, b"")


def test_datagrams(loop, file):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with pytest.raises(ValueError, match="only SOCK_STREAM"):
            run(loop, loop.sock_sendfile(sock, file))


def test_the_socket_of_a_transport(loop, pair, file):
    """Once it would have to wait: the descriptor is the transport's to watch."""

    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=pair[0])
        with pytest.raises(RuntimeError, match="is used by transport"):
            await loop.sock_sendfile(pair[0], file)
        transport.abort()

    run(loop, main())


def test_a_blocking_socket_in_debug_mode(loop, pair, file):
    loop.set_debug(True)
    pair[0].setblocking(True)
    with pytest.raises(ValueError, match="must be non-blocking"):
        run(loop, loop.sock_sendfile(pair[0], file))


# ---- on the way


async def begin(loop, pair, file, **kwargs):
    """A task that waits for room, and how much has been received."""
    a, b = pair
    task = loop.create_task(loop.sock_sendfile(a, file, **kwargs))
    received = len(await loop.sock_recv(b, 100_000))
    await asyncio.sleep(0.001)
    assert not task.done()
    return task, received


def test_cancelled(loop, loop_kind, pair, file):
    """The socket may be used as before, and what was sent is known by the file."""

    async def main():
        a, b = pair
        task, received = await begin(loop, pair, file)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.remove_writer(a) is False
        sending = loop.create_task(loop.sock_sendall(a, b"the end"))
        rest = loop.create_task(receive_all(loop, b))
        await sending
        a.shutdown(socket.SHUT_WR)
        data = await rest
        assert data.endswith(b"the end")
        if loop_kind == "speedups":  # asyncio leaves the file where it was
            assert file.tell() == received + len(data) - len(b"the end")

    run(loop, main())


@pytest.mark.parametrize("turns", range(6))
def test_cancelled_at_each_step(loop, pair, file, turns):
    async def main():
        task = loop.create_task(loop.sock_sendfile(pair[0], file))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.remove_writer(pair[0]) is False

    run(loop, main())


def test_the_peer_goes_away(loop, pair, file):
    async def main():
        task, _ = await begin(loop, pair, file)
        pair[1].close()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(task, 100)
        assert file.tell() > 0
        assert loop.remove_writer(pair[0]) is False

    run(loop, main())


def test_the_peer_had_gone_before(loop, pair, file):
    pair[1].close()

    async def main():
        with pytest.raises((ConnectionError, asyncio.SendfileNotAvailableError)):
            for _ in range(2):  # TCP may learn it by the first
                await loop.sock_sendfile(pair[0], file, fallback=False)

    run(loop, main())


@pytest.mark.parametrize(
    ("code", "raised"), [(errno.ENOTCONN, ConnectionError), (errno.EIO, OSError)]
)
def test_an_error_after_a_part(loop, pair, file, monkeypatch, code, raised):
    sendfile = os.sendfile

    def send_once(out, in_, offset, count):
        if offset > 0:
            raise OSError(code, "no more")
        return sendfile(out, in_, offset, 1000)

    monkeypatch.setattr(os, "sendfile", send_once)
    result, data = run(loop, sent(loop, pair, file, fallback=False))
    assert result is raised
    assert data == content(file)[:1000]
    assert file.tell() == 1000


def test_others_have_their_turns(loop, pair, file):
    """Between the parts, however fast the reader is."""

    async def count():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def main():
        counting = loop.create_task(count())
        result, data = await sent(loop, pair, file)
        assert result == len(data) == SIZE
        counting.cancel()

    turns = 0
    run(loop, main())
    assert turns > 1


def test_several_at_once(loop, file):
    """Each on a socket of its own, of the same file."""

    async def main():
        with contextlib.ExitStack() as stack:
            pairs = []
            for _ in range(10):
                pairs.append(socket.socketpair())
                for sock in pairs[-1]:
                    stack.enter_context(sock)
                    sock.setblocking(False)
            results = await asyncio.gather(
                *(
                    sent(loop, pair, file, i, slowly=True)
                    for i, pair in enumerate(pairs)
                )
            )
        for i, (result, data) in enumerate(results):
            assert result == SIZE - i
            assert data == content(file)[i:]

    run(loop, main())

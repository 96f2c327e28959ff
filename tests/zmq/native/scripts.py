"""Random scripts of what applications do with sockets, and what is to be seen when one
is played on an engine.

A script has one socket, the subject, and up to three partners. They bind, connect,
disconnect, unbind, subscribe, send, close and open again, one step after the other. A
Model makes the script: it knows which connections must come and go with each step, and
how many messages must arrive, by the manual of libzmq. A Player takes the steps, waits
for that, and tells what has come. Where the manual leaves open which peer gets a
message, only their number is told.
"""

import asyncio
import contextlib
import errno
import random
from collections import Counter

import zmq
from helpers import open_transport
from ports import held_port

from aiozmq_speedups.interface import ZmqProtocol

PARTNERS = {
    zmq.REQ: (zmq.REP, zmq.ROUTER),
    zmq.REP: (zmq.REQ, zmq.DEALER),
    zmq.DEALER: (zmq.REP, zmq.DEALER, zmq.ROUTER),
    zmq.ROUTER: (zmq.REQ, zmq.DEALER, zmq.ROUTER),
    zmq.PUB: (zmq.SUB, zmq.XSUB),
    zmq.XPUB: (zmq.SUB, zmq.XSUB),
    zmq.SUB: (zmq.PUB, zmq.XPUB),
    zmq.XSUB: (zmq.PUB, zmq.XPUB),
    zmq.PUSH: (zmq.PULL,),
    zmq.PULL: (zmq.PUSH,),
    zmq.PAIR: (zmq.PAIR,),
}
KINDS = list(PARTNERS)
PUBLISHERS, SUBSCRIBERS = (zmq.PUB, zmq.XPUB), (zmq.SUB, zmq.XSUB)
ENVELOPES = (zmq.REQ, zmq.REP, zmq.DEALER, zmq.ROUTER)
ANSWERS = (zmq.REP, zmq.ROUTER)  # each question that they get
BALANCES = (zmq.REQ, zmq.DEALER, zmq.PUSH, zmq.PAIR)
TOPICS = (b"", b"a", b"ab", b"b")
# Whose partner of this kind may speak first.
SPEAKS = {
    zmq.REP: (zmq.REQ, zmq.DEALER),
    zmq.DEALER: (zmq.DEALER, zmq.ROUTER),
    zmq.ROUTER: (zmq.REQ, zmq.DEALER, zmq.ROUTER),
    zmq.SUB: PUBLISHERS,
    zmq.XSUB: PUBLISHERS,
    zmq.PULL: (zmq.PUSH,),
    zmq.PAIR: (zmq.PAIR,),
}
HWM = 50
# libzmq tells the writer of what is read when half of the queue has been.
SURE = HWM // 2 - 5


# ---- the script ----


class Slot:
    """A partner, or its place."""

    def __init__(self, kind, binds):
        self.kind = kind
        self.binds = binds  # the subject connects to it
        self.open = self.attached = self.linked = False
        self.pending = 0  # the subject's messages that wait for it
        self.fresh = True  # none has gone there yet
        self.waiting = 0  # its own, for the subject
        self.known = False  # who connects has met the other: a ROUTER's queue is kept
        # A publisher that connects has lost a connection. libzmq keeps publishing by
        # the subscriptions of then, which no manual promises.
        self.haunted = False
        self.topics = Counter()


class Model:
    def __init__(self, seed, length):
        self.rng = rng = random.Random(seed)
        self.kind = KINDS[seed % len(KINDS)]
        count = 1 if self.kind == zmq.PAIR else rng.randint(1, 3)
        kinds = [rng.choice(PARTNERS[self.kind]) for _ in range(count)]
        if self.kind == zmq.DEALER:
            kinds = kinds[:1] * count  # which of them would answer would be open
        self.slots = [Slot(kind, rng.random() < 0.5) for kind in kinds]
        self.schemes = [rng.choice(["tcp", "ipc"]) for _ in range(count + 1)]
        self.bound = False
        self.blocked = 0
        self.number = 0
        self.topics = Counter()
        self.steps = []
        for _ in range(length):
            choices = self.choices()
            name, *args = rng.choice(choices)
            getattr(self, f"do_{name}")(*args)
        self.finish()

    # -- What could be done --

    def choices(self):
        found = []
        for slot in self.slots:
            found += [("open", slot)] * 3 if not slot.open else [("close", slot)]
            if slot.binds:
                if not slot.attached:
                    found += [("attach", slot)] * 2
                elif not slot.pending and self.kind != zmq.PAIR:
                    # A PAIR of libzmq's turns away who comes while the last one goes.
                    found.append(("detach", slot))
            if slot.open and slot.kind in SPEAKS.get(self.kind, ()):
                if not (slot.haunted or (slot.kind == zmq.REQ and slot.waiting)):
                    found += [("speak", slot)] * 2
            if slot.open and slot.kind in SUBSCRIBERS:
                found += [("subscribe", slot)] * 2
            if self.kind == zmq.ROUTER and slot.kind in (zmq.DEALER, zmq.ROUTER):
                found += [("address", slot)] * 2
        if not self.bound:
            found += [("bind",)] * 2
        elif not any(slot.open and not slot.binds for slot in self.slots):
            found.append(("unbind",))
        if self.kind in SUBSCRIBERS:
            found += [("subscribe", None)] * 3
        if self.kind in BALANCES:
            pipes = self.pipes()
            if self.kind != zmq.REQ:
                if len(pipes) <= 1 or all(slot.pending < SURE - 5 for slot in pipes):
                    if self.blocked < SURE - 5:
                        found += [("send",)] * 4
            elif not self.blocked and (
                len(pipes) <= 1 or all(slot.linked for slot in pipes)
            ):
                if not any(slot.pending for slot in pipes):
                    found += [("send",)] * 4
        if self.kind in PUBLISHERS and not any(
            slot.attached and slot.haunted for slot in self.slots
        ):
            found += [("publish",)] * 4
        found.append(("renew",))
        return found

    def pipes(self):
        return [slot for slot in self.slots if slot.linked or slot.attached]

    # -- Doing it --

    def step(self, name, *args, up=(), down=(), out=0, back=0, exact=True):
        """`up`, `down`: slots whose connection comes or goes; `out`: messages that
        reach partners; `back`: those that reach the subject."""
        indexes = [[self.slots.index(slot) for slot in slots] for slots in (up, down)]
        free = not self.blocked
        self.steps.append((name, args, *indexes, out, back, exact, free))

    def linking(self, slot):
        return (
            slot.open
            and not slot.linked
            and (slot.attached if slot.binds else self.bound)
        )

    def link(self, name, *args):
        """Whatever may be connected now is, and what waits gets through."""
        up = [slot for slot in self.slots if self.linking(slot)]
        out = back = 0
        taken = 0
        if self.blocked and up:
            taken, self.blocked = self.blocked, 0
        for slot in up:
            slot.linked = slot.known = True
            slot.fresh = slot.fresh and not slot.pending and not taken
            out += slot.pending
            back += slot.waiting + (slot.pending if slot.kind in ANSWERS else 0)
            if self.kind in ANSWERS:
                out += slot.waiting
            slot.pending = slot.waiting = 0
        if taken:
            out += taken
            # Which of several partners gets it is open: only some may answer.
            if all(slot.kind in ANSWERS for slot in up):
                back += taken
        self.step(name, *args, up=up, out=out, back=back, exact=not taken)

    def do_open(self, slot):
        slot.open = True
        slot.topics.clear()
        self.link("open", self.slots.index(slot))

    def unlink(self, slot):
        slot.linked = False
        if (slot.kind in PUBLISHERS and not slot.binds) or (
            self.kind in PUBLISHERS and slot.binds
        ):
            slot.haunted = True

    def do_close(self, slot):
        down = [slot] if slot.linked else []
        slot.open = False
        self.unlink(slot) if down else None
        slot.waiting = 0
        if not slot.binds:
            slot.known = slot.haunted = False
        self.step("close", self.slots.index(slot), down=down)

    def do_attach(self, slot):
        slot.attached = slot.fresh = True
        slot.known = False
        if self.blocked and not self.linking(slot):
            slot.pending, self.blocked = self.blocked, 0
        self.link("attach", self.slots.index(slot))

    def do_detach(self, slot):
        down = [slot] if slot.linked else []
        slot.attached = slot.linked = slot.known = slot.haunted = False
        self.step("detach", self.slots.index(slot), down=down)

    def do_bind(self):
        self.bound = True
        self.link("bind")

    def do_unbind(self):
        self.bound = False
        self.step("unbind")

    def do_renew(self):
        down = [slot for slot in self.slots if slot.linked]
        for slot in down:
            self.unlink(slot)
        for slot in self.slots:
            if slot.binds:
                slot.attached = slot.known = slot.haunted = False
            slot.pending = 0
        self.bound, self.blocked = False, 0
        self.topics.clear()
        self.step("renew", down=down)

    def do_subscribe(self, slot):
        topics = self.topics if slot is None else slot.topics
        topic = self.rng.choice(TOPICS)
        if topics[topic] and self.rng.random() < 0.5:
            topics[topic] -= 1
            subscribe = False
        else:
            topics[topic] += 1
            subscribe = True
        who = None if slot is None else self.slots.index(slot)
        self.step("subscribe", who, topic, subscribe)

    def numbers(self, count):
        self.number += count
        return list(range(self.number - count + 1, self.number + 1))

    def do_send(self):
        """In turn to all: each pipe gets as many."""
        pipes = self.pipes()
        each = 1 if self.kind == zmq.REQ else self.rng.choice([1, 1, 2, 5])
        count = each * (1 if self.kind == zmq.REQ else max(len(pipes), 1))
        out = back = 0
        if not pipes:
            self.blocked += count
        elif len(pipes) == 1 and not pipes[0].linked and self.kind != zmq.REQ:
            # As many as fit, and some more, now and then.
            slot = pipes[0]
            if not slot.fresh:
                count = max(min(count, SURE - slot.pending), 0)
            elif self.rng.random() < 0.3:
                count = HWM - slot.pending + 5
            if slot.pending + count > HWM:
                self.blocked += slot.pending + count - HWM
            slot.pending = min(slot.pending + count, HWM)
        elif self.kind == zmq.REQ:
            linked = [slot for slot in pipes if slot.linked]
            out = back = len(linked[:1])
            for slot in pipes:
                slot.pending += not slot.linked
        else:
            for slot in pipes:
                slot.fresh = slot.fresh and not slot.linked
                if slot.linked:
                    out += each
                    back += each if slot.kind in ANSWERS else 0
                else:
                    slot.pending += each
        exact = self.kind != zmq.REQ
        self.step("send", self.numbers(count), out=out, back=back, exact=exact)

    def do_address(self, slot):
        count = self.rng.choice([1, 3])
        out = back = 0
        if slot.linked:
            out = count
            back = count if slot.kind in ANSWERS else 0
        elif slot.attached and slot.known and slot.pending + count <= SURE:
            slot.pending += count
        index = self.slots.index(slot)
        self.step("address", index, self.numbers(count), out=out, back=back)

    def do_publish(self):
        topic = self.rng.choice(TOPICS[1:])
        count = self.rng.choice([1, 3])
        out = 0
        for slot in self.slots:
            if slot.linked and self.matches(slot.topics, topic):
                out += count
        self.step("publish", topic, self.numbers(count), out=out)

    def matches(self, topics, topic):
        return any(n and topic.startswith(prefix) for prefix, n in topics.items())

    def do_speak(self, slot):
        count = 1 if slot.kind == zmq.REQ else self.rng.choice([1, 3])
        topic = b""
        out = back = 0
        if slot.kind in PUBLISHERS:
            topic = self.rng.choice(TOPICS[1:])
            # An XSUB does not look again at what it gets.
            back = count if slot.linked and self.matches(self.topics, topic) else 0
        elif slot.linked:
            back = count
            out = count if self.kind in ANSWERS else 0
        elif slot.waiting + count > SURE:
            return
        elif slot.kind != zmq.ROUTER or (slot.known and not slot.binds):
            slot.waiting += count
        numbers = self.numbers(count)
        self.step("speak", self.slots.index(slot), topic, numbers, out=out, back=back)

    def finish(self):
        """Closed with what waits: it is sent to those who open then."""
        out = sum(
            slot.pending for slot in self.slots if slot.attached and not slot.open
        )
        late = [slot for slot in self.slots if slot.pending]
        # What these send back nobody reads: TCP resets a connection that is closed so,
        # which may take the last messages with it.
        answered = any(slot.kind in ANSWERS for slot in late)
        haunted = any(slot.haunted for slot in self.slots)
        if not self.blocked and not answered and not haunted:
            down = [slot for slot in self.slots if slot.linked]
            self.step("finish", [self.slots.index(s) for s in late], down=down, out=out)

    def __str__(self):
        """What to read where a script fails."""
        name = {value: zmq.SocketType(value).name for value in KINDS}
        partners = ", ".join(
            f"{name[slot.kind]} that {'binds' if slot.binds else 'connects'}"
            for slot in self.slots
        )
        steps = "\n".join(f"  {i}: {step}" for i, step in enumerate(self.steps))
        return f"{name[self.kind]} with {partners} {self.schemes}\n{steps}"


# ---- messages ----


def message(topic, who, number):
    rng = random.Random(number)
    sizes = rng.choice([[], [], [10], [1, 300], [2000, 5, 8191], [70000]])
    return [
        b"%b|%b|%d" % (topic, who, number),
        *(bytes([number % 251]) * size for size in sizes),
    ]


class End(ZmqProtocol):
    """A socket in a script."""

    def __init__(self, kind):
        self.kind = kind
        self.got = []  # (who has sent it, its number)
        self.faults = []
        self.syncs = set()
        self.news = []
        self.ups = self.downs = 0
        self.ups_expected = self.downs_expected = 0
        self.changed = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def event_received(self, event):
        self.ups += event.event == zmq.EVENT_HANDSHAKE_SUCCEEDED
        self.downs += event.event == zmq.EVENT_DISCONNECTED
        self.changed.set()

    def msg_received(self, data):
        self.changed.set()
        frames = list(data)
        if self.kind in PUBLISHERS:
            self.news.append(frames[0])
            return
        head = [frames.pop(0)] if self.kind == zmq.ROUTER else []
        if self.kind in (zmq.DEALER, zmq.ROUTER):
            if frames.pop(0) != b"":
                self.faults.append(data)
        if frames[0].startswith(b"~"):
            self.syncs.add(frames[0])
            return
        topic, who, number = frames[0].split(b"|")
        if frames != message(topic, who, int(number)):
            self.faults.append(data)
        self.got.append((who, int(number)))
        if self.kind in ANSWERS and b"-re" not in who:
            answer = message(topic, who + b"-re-" + self.name, int(number))
            self.send(answer, *head)

    def send(self, body, to=None):
        head = [b""] if self.kind in (zmq.DEALER, zmq.ROUTER) else []
        self.transport.write([*([to] if to else []), *head, *body])

    def subscribe(self, topic, yes=True):
        if self.kind == zmq.SUB:
            self.transport.setsockopt(zmq.SUBSCRIBE if yes else zmq.UNSUBSCRIBE, topic)
        else:
            self.transport.write([bytes([yes]) + topic])

    def look(self):
        """Has libzmq do what its thread has told of."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.getsockopt(zmq.EVENTS)

    def connection_lost(self, exc):
        self.transport = None
        self.changed.set()

    def ordered(self):
        """Of each sender, in order and once."""
        last = {}
        for who, number in self.got:
            if number <= last.get(who, 0):
                return False
            last[who] = number
        return True


# ---- playing ----


class Missed(Exception):
    """What the model promises has not come in time."""


class Player:
    def __init__(self, model, engines, folder, patience):
        self.model = model
        self.engines = engines  # of the subject, of the partners
        self.patience = patience
        self.folder = folder
        self.subject = None
        self.ends = [None] * len(model.slots)
        self.history = []
        self.totals = [0, 0]  # messages at the subject, at partners
        self.all = []  # those that are closed, too
        self.linked = set()
        self.syncs = 0

    async def play(self):
        with contextlib.ExitStack() as stack:
            self.endpoints = [
                f"tcp://127.0.0.1:{stack.enter_context(held_port())}"
                if scheme == "tcp"
                else f"ipc://{self.folder}/{i}"
                for i, scheme in enumerate(self.model.schemes)
            ]
            try:
                self.subject = await self.end(None)
                for step in self.model.steps:
                    await self.take(*step)
            except Missed as exc:
                self.history.append(("not", *exc.args))
            finally:
                for end in (self.subject, *self.ends):
                    await self.close(end)
                for end in self.all:
                    self.forget(end)
        for end in self.all:
            self.history += [("fault", fault) for fault in end.faults]
            if not end.ordered():
                self.history.append(("order", end.kind, end.got))
        return self.history

    async def end(self, name):
        """Opens the subject, or the partner of this number."""
        mine = name is None
        kind = self.model.kind if mine else self.model.slots[name].kind
        engine = self.engines[not mine]
        name = b"s" if mine else b"p%d" % name
        # A context of its own: its end is that of all that libzmq's threads do for it.
        context = zmq.Context() if engine == "libzmq" else None
        _, end = await open_transport(
            kind,
            lambda: End(kind),
            engine=engine,
            zmq_sock=context and context.socket(kind),
            linger=0,
            # A partner may have more to answer at once than the subject may queue: a
            # ROUTER would drop what is above its mark.
            sndhwm=HWM if mine else 20 * HWM,
            reconnect_interval=0.005,
        )
        if kind in (zmq.DEALER, zmq.ROUTER, zmq.REQ):
            end.transport.setsockopt(zmq.ROUTING_ID, name)
        end.mine, end.name, end.context = mine, name, context
        await end.transport.enable_monitor()
        self.all.append(end)
        return end

    async def close(self, end):
        """Closes it; what lingers goes on."""
        if end is not None and end.transport is not None:
            lingers = end.transport.getsockopt(zmq.LINGER)
            end.transport.close()
            await self.until(lambda: end.transport is None, "closed", end)
            if not lingers:
                self.forget(end)

    def forget(self, end):
        """Waits until nobody can meet it any more: libzmq's threads go on accepting
        and connecting for a while after close()."""
        if end.context is not None:
            end.context.term()

    async def until(self, condition, what, *ends):
        """Waits for it; where it does not come, the script ends."""
        ends = ends or [end for end in (self.subject, *self.ends) if end is not None]
        deadline = asyncio.get_running_loop().time() + self.patience
        while not condition():
            if asyncio.get_running_loop().time() > deadline:
                raise Missed(what)
            for end in ends:
                end.look()
            await asyncio.sleep(0.0005)

    async def take(self, name, args, up, down, out, back, exact, free):
        counts = [len(end.got) for end in self.all]
        if name == "close":
            self.subject.downs_expected += len(down)
        else:
            for i in down:
                self.ends[i].downs_expected += 1
        await getattr(self, f"do_{name}")(*args)
        for i in up:
            self.ends[i].ups_expected += 1
            self.subject.ups_expected += 1
        self.linked = (self.linked | set(up)) - set(down)
        ends = [end for end in (self.subject, *self.ends) if end is not None]
        await self.until(
            lambda: all(end.ups >= end.ups_expected for end in ends), "connected"
        )
        await self.until(
            lambda: all(end.downs >= end.downs_expected for end in ends), "gone"
        )
        if up or down:
            # libzmq's thread tells of pipes after it has told of connections.
            for _ in range(3):
                for end in ends:
                    end.look()
                await asyncio.sleep(0.001)
        if self.model.kind in PUBLISHERS + SUBSCRIBERS:
            await self.sync()
        self.totals[0] += back
        self.totals[1] += out
        await self.until(self.arrived, "arrived")
        if free:
            await self.until(lambda: not self.blocked(), "free")
        counts += [0] * (len(self.all) - len(counts))
        came = [len(end.got) - n for end, n in zip(self.all, counts, strict=True)]
        if not exact:
            at_subject = sum(
                n for end, n in zip(self.all, came, strict=True) if end.mine
            )
            came = ("in all", at_subject, sum(came) - at_subject)
        self.history.append((name, came, self.blocked()))

    def blocked(self):
        """Does something wait for room?"""
        transport = self.subject.transport
        return transport is not None and transport.get_write_buffer_size() > 0

    def arrived(self):
        mine = sum(len(end.got) for end in self.all if end.mine)
        theirs = sum(len(end.got) for end in self.all if not end.mine)
        return mine >= self.totals[0] and theirs >= self.totals[1]

    async def sync(self):
        """Each subscriber's topics are known to its publishers, and all that was
        published before has arrived."""
        for i in sorted(self.linked):
            publisher, subscriber = self.subject, self.ends[i]
            if publisher.kind in SUBSCRIBERS:
                publisher, subscriber = subscriber, publisher
            self.syncs += 1
            topic = b"~%d|" % self.syncs
            subscriber.subscribe(topic)

            def there():
                if topic not in subscriber.syncs:
                    publisher.send([topic])
                return topic in subscriber.syncs

            await self.until(there, "synchronous")
            subscriber.subscribe(topic, False)

    # -- The steps --

    async def do_open(self, i):
        slot = self.model.slots[i]
        self.ends[i] = end = await self.end(i)
        if slot.binds:
            await self.bind(end, self.endpoints[i])
        else:
            await end.transport.connect(self.endpoints[-1])

    async def do_close(self, i):
        await self.close(self.ends[i])
        self.ends[i] = None

    async def do_attach(self, i):
        await self.subject.transport.connect(self.endpoints[i])

    async def do_detach(self, i):
        await self.subject.transport.disconnect(self.endpoints[i])

    async def do_bind(self):
        await self.bind(self.subject, self.endpoints[-1])

    async def bind(self, end, endpoint):
        deadline = asyncio.get_running_loop().time() + self.patience
        while asyncio.get_running_loop().time() < deadline:
            try:
                return await end.transport.bind(endpoint)
            except OSError as exc:
                # libzmq's thread closes a socket some time after close() or unbind();
                # and its monitor makes another error of it.
                if exc.errno not in (errno.EADDRINUSE, errno.EAGAIN):
                    raise
            await asyncio.sleep(0.001)
        raise Missed("bound")

    async def do_unbind(self):
        await self.subject.transport.unbind(self.endpoints[-1])

    async def do_renew(self):
        await self.close(self.subject)
        self.subject = await self.end(None)

    async def do_subscribe(self, who, topic, yes):
        end = self.subject if who is None else self.ends[who]
        end.subscribe(topic, yes)

    async def do_send(self, numbers):
        self.subject.look()
        for number in numbers:
            self.subject.send(message(b"", b"s", number))

    async def do_address(self, i, numbers):
        self.subject.look()
        for number in numbers:
            self.subject.send(message(b"", b"s", number), b"p%d" % i)

    async def do_publish(self, topic, numbers):
        for number in numbers:
            self.subject.send(message(topic, b"s", number))

    async def do_speak(self, i, topic, numbers):
        end = self.ends[i]
        end.look()
        to = b"s" if end.kind == zmq.ROUTER else None
        for number in numbers:
            end.send(message(topic, b"p%d" % i, number), to)

    async def do_finish(self, late):
        if late:
            self.subject.transport.setsockopt(zmq.LINGER, 10_000)
        await self.close(self.subject)
        for i in late:
            await self.do_open(i)

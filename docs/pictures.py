"""Draws the pictures of docs/pictures/: boxes and arrows, as SVG.

python docs/pictures.py
"""

from html import escape
from pathlib import Path

HERE = Path(__file__).parent
LINE = 17  # between two lines of text
FILLS = {
    "kernel": "#e4e4e4",
    "c": "#cdeadd",
    "python": "#cfe3f5",
    "lib": "#fbe3c4",
    "user": "#ffffff",
}


class Picture:
    """An SVG of `width` x `height`, with text of 13 px."""

    def __init__(self, width, height):
        self.size = width, height
        self.parts = []

    def text(self, x, y, text, *, anchor="middle", size=13, bold=False, grey=False):
        weight = ' font-weight="bold"' if bold else ""
        colour = ' fill="#555555"' if grey else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}"'
            f"{weight}{colour}>{escape(text)}</text>"
        )

    def box(self, x, y, width, height, title, *lines, kind="user"):
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" '
            f'fill="{FILLS[kind]}" stroke="#444444"/>'
        )
        top = y + (height - LINE * len(lines)) / 2 + 5
        self.text(x + width / 2, top, title, bold=True)
        for i, line in enumerate(lines, 1):
            self.text(x + width / 2, top + LINE * i, line, size=12)

    def frame(self, x, y, width, height, title):
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" '
            'fill="none" stroke="#888888" stroke-dasharray="5 4"/>'
        )
        self.text(x + 10, y + 18, title, anchor="start", size=12, grey=True)

    def arrow(self, *points, label="", at=None, anchor="middle", dashed=False):
        path = " ".join(f"{x},{y}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="#222222" '
            f'stroke-width="1.4" marker-end="url(#tip)"{dash}/>'
        )
        if label:
            (x1, y1), (x2, y2) = points[0], points[-1]
            x, y = at or ((x1 + x2) / 2, (y1 + y2) / 2 - 6)
            for i, line in enumerate(label.split("\n")):
                self.text(x, y + 15 * i, line, anchor=anchor, size=12)

    def legend(self, x, y, *kinds):
        names = {
            "kernel": "kernel",
            "c": "C of this package",
            "python": "your code",
            "lib": "libzmq",
        }
        for kind in kinds:
            self.parts.append(
                f'<rect x="{x}" y="{y}" width="14" height="14" rx="3" '
                f'fill="{FILLS[kind]}" stroke="#444444"/>'
            )
            self.text(x + 20, y + 12, names[kind], anchor="start", size=12)
            x += 36 + 7 * len(names[kind])

    def save(self, name):
        width, height = self.size
        body = "\n".join(self.parts)
        (HERE / "pictures" / f"{name}.svg").write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
            f'height="{height}" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif">\n'
            '<defs><marker id="tip" markerWidth="9" markerHeight="8" refX="8" '
            'refY="4" orient="auto"><path d="M0,0 L9,4 L0,8 z" fill="#222222"/>'
            "</marker></defs>\n"
            f'<rect width="{width}" height="{height}" fill="white"/>\n{body}\n</svg>\n'
        )


def turn():
    picture = Picture(760, 430)
    box, arrow = picture.box, picture.arrow
    picture.frame(215, 20, 330, 340, "one turn")
    box(
        250,
        50,
        260,
        62,
        "1. poll",
        "epoll_wait(): what is readable,",
        "writable?",
        kind="kernel",
    )
    box(250, 135, 260, 62, "2. timers", "those that are due leave the heap", kind="c")
    box(250, 220, 260, 44, "ready queue", "in the order they came", kind="c")
    box(250, 290, 260, 52, "3. run", "what is in the queue now, once", kind="python")
    arrow((380, 112), (380, 135))
    arrow((380, 197), (380, 220))
    arrow((380, 264), (380, 290))
    arrow((510, 316), (528, 316), (528, 80), (510, 80))
    # What comes in.
    box(15, 50, 150, 62, "sockets, pipes", "ZeroMQ's ZMQ_FD", "signals", kind="kernel")
    arrow((165, 81), (250, 81))
    box(15, 135, 150, 62, "heap", "call_later(), call_at()", "sleep()", kind="c")
    arrow((165, 166), (250, 166))
    box(15, 220, 150, 44, "call_soon()", "a task's next step")
    arrow((165, 242), (250, 242))
    box(595, 205, 150, 74, "another thread", "call_soon_threadsafe()", "wakes the poll")
    arrow((595, 242), (510, 242))
    arrow(
        (670, 205), (670, 66), (510, 66), label="eventfd", at=(675, 140), anchor="start"
    )
    arrow(
        (290, 342),
        (290, 385),
        (90, 385),
        (90, 264),
        label="schedules more: for the next turn",
        at=(300, 402),
    )
    picture.legend(395, 405, "kernel", "c", "python")
    picture.save("turn")


def packet():
    picture = Picture(760, 470)
    box, arrow = picture.box, picture.arrow
    box(
        20,
        20,
        340,
        44,
        "socket is readable",
        "epoll_wait() returns its number",
        kind="kernel",
    )
    box(
        20, 90, 340, 44, "ready queue", "the transport's watcher, once a turn", kind="c"
    )
    box(
        20,
        160,
        340,
        44,
        "transport",
        "one recv() into memory that is there already",
        kind="c",
    )
    arrow((190, 64), (190, 90))
    arrow((190, 134), (190, 160))
    box(20, 250, 160, 62, "Protocol", "data_received(bytes)", kind="python")
    box(200, 250, 160, 62, "StreamReader", "its buffer is fed", "in C", kind="c")
    arrow((100, 204), (100, 250))
    arrow((280, 204), (280, 250))
    box(200, 350, 160, 44, "await reader.read()", "in the next turn", kind="python")
    arrow((280, 312), (280, 350))
    # The way back.
    box(420, 350, 320, 44, "transport.write(answer)", kind="python")
    arrow((100, 312), (100, 430), (580, 430), (580, 394))
    arrow((360, 372), (420, 372))
    box(
        420,
        250,
        320,
        62,
        "send() at once",
        "the kernel takes all, nearly always",
        kind="c",
    )
    arrow((580, 350), (580, 312))
    box(420, 90, 150, 80, "done", "the peer will", "have it", kind="kernel")
    arrow((495, 250), (495, 170), label="all taken", at=(488, 225), anchor="end")
    box(590, 90, 150, 80, "buffer", "the rest waits for", "EPOLLOUT", kind="c")
    arrow((665, 250), (665, 170), label="not all", at=(672, 225), anchor="start")
    arrow(
        (665, 90),
        (665, 58),
        label="above the mark: pause_writing(),\ndrain() waits",
        at=(740, 34),
        anchor="end",
    )
    picture.legend(20, 448, "kernel", "c", "python")
    picture.save("packet")


def message():
    picture = Picture(760, 500)
    box, arrow = picture.box, picture.arrow
    picture.frame(15, 15, 345, 250, 'engine="libzmq"')
    box(40, 45, 295, 44, "TCP connection", kind="kernel")
    box(
        40,
        115,
        295,
        44,
        "libzmq's I/O thread",
        "reads, decodes, queues for the socket",
        kind="lib",
    )
    box(
        40,
        190,
        295,
        60,
        "ZMQ_FD becomes readable",
        "the loop wakes up and asks libzmq",
        "for messages until there is none",
        kind="c",
    )
    arrow((187, 89), (187, 115))
    arrow((187, 159), (187, 190), label="wakes a thread", at=(195, 180), anchor="start")
    picture.frame(400, 15, 345, 250, 'engine="native"')
    box(425, 45, 295, 44, "TCP connection", kind="kernel")
    box(
        425,
        115,
        295,
        135,
        "the loop itself",
        "recv(), as of any connection;",
        "takes the frames apart (ZMTP 3.1);",
        "a message is given on when its",
        "last frame is here",
        kind="c",
    )
    arrow((572, 89), (572, 115))
    box(
        190,
        300,
        380,
        44,
        "ZmqTransport",
        "at most 128 messages or 1 MiB, then others' turn",
        kind="c",
    )
    arrow((187, 250), (187, 280), (300, 280), (300, 300))
    arrow((572, 250), (572, 280), (460, 280), (460, 300))
    box(15, 385, 170, 62, "core", "msg_received(frames)", kind="python")
    box(205, 385, 170, 62, "stream", "await stream.read()", kind="python")
    box(
        395,
        385,
        350,
        62,
        "rpc",
        "header, name and arguments are unpacked in C;",
        "your handler is called; its result is packed",
        kind="python",
    )
    arrow((230, 344), (100, 385))
    arrow((330, 344), (290, 385))
    arrow((480, 344), (570, 385))
    picture.legend(15, 470, "kernel", "lib", "c", "python")
    picture.save("message")


def main():
    (HERE / "pictures").mkdir(exist_ok=True)
    turn()
    packet()
    message()


if __name__ == "__main__":
    main()

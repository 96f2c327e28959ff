"""What a loop is about to do, for gdb: its ready queue and its table of descriptors.

    gdb -p PID -x tools/gdb_helpers.py
    (gdb) azs-ready
    (gdb) azs-fds

It needs the extension's debug information: a build of the flavour debug, or that of
`make wheels` after ``set debug-file-directory dist/debug``. It calls nothing in the
process, so that it works on core files, too. The loop is found on the stack of the
thread that runs it. Else give its address, which Python prints as hex(id(loop)):
``azs-ready 0x7f2d3c0a1b30``.
"""

import gdb

#: Functions that have the loop in `self` or `loop`, the outermost last.
RUNNERS = ("loop_turn", "azs_poller_poll", "Loop__run")

EVENTS = {1: "IN", 4: "OUT", 8: "ERR", 16: "HUP", 0x2000: "RDHUP"}


def loop_at(argument):
    """The LoopObject at an address, or the one that a thread of the process runs."""
    if argument:
        loop = gdb.lookup_type("LoopObject").pointer()
        return gdb.parse_and_eval(argument).cast(loop)
    selected = gdb.selected_thread()
    try:
        for thread in gdb.selected_inferior().threads():
            thread.switch()
            frame = gdb.newest_frame()
            while frame is not None:
                if frame.name() in RUNNERS:
                    for name in ("self", "loop"):
                        try:
                            return frame.read_var(name)
                        except ValueError:
                            pass
                frame = frame.older()
    finally:
        selected.switch()
    raise gdb.GdbError("no thread runs a loop: give the address of one, id(loop)")


def type_name(pointer):
    """The name of a Python object's type."""
    if int(pointer) == 0:
        return "NULL"
    python_object = gdb.lookup_type("PyObject").pointer()
    return pointer.cast(python_object)["ob_type"]["tp_name"].string()


def python_name(pointer):
    """A Python object in a few words: a function's name, else its type and address."""
    kind = type_name(pointer)
    try:
        if kind == "function":
            function = pointer.cast(gdb.lookup_type("PyFunctionObject").pointer())
            return f"function {text_of(function['func_qualname'])}"
        if kind == "method":
            method = pointer.cast(gdb.lookup_type("PyMethodObject").pointer())
            owner = type_name(method["im_self"])
            return f"{python_name(method['im_func'])} of {owner}"
        if kind == "builtin_function_or_method":
            builtin = pointer.cast(gdb.lookup_type("PyCFunctionObject").pointer())
            return f"built-in {builtin['m_ml']['ml_name'].string()}"
    except gdb.error:
        pass  # the interpreter has no debug information
    return f"{kind} at {int(pointer):#x}"


def text_of(string):
    """A str of ASCII, as nearly all names are."""
    ascii_object = gdb.lookup_type("PyASCIIObject")
    data = string.cast(ascii_object.pointer()) + 1
    length = int(string.cast(ascii_object.pointer())["length"])
    return bytes(gdb.selected_inferior().read_memory(int(data), length)).decode()


def events_of(mask):
    names = [name for bit, name in EVENTS.items() if int(mask) & bit]
    return "+".join(names) or "nothing"


def function_of(pointer):
    """The name of a C function that a field points to."""
    block = gdb.block_for_pc(int(pointer))
    return str(block.function) if block and block.function else hex(int(pointer))


def watcher_text(watcher):
    return (
        f"{type_name(watcher['owner'])} at {int(watcher['owner']):#x} "
        f"by {function_of(watcher['on_ready'])}"
    )


class Ready(gdb.Command):
    """azs-ready [ADDRESS]: what the loop runs next, in its order."""

    def __init__(self):
        super().__init__("azs-ready", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        loop = loop_at(argument)
        ring = loop["ready"]
        count = int(ring["count"])
        print(
            f"loop {int(loop):#x}: {count} ready, {int(loop['timers']['count'])} timers"
        )
        for i in range(count):
            print(f"{i:4} {self.entry(ring, i)}")

    def entry(self, ring, i):
        entry = int(ring["slots"][(int(ring["head"]) + i) & int(ring["mask"])])
        if entry & 1:
            watcher = gdb.Value(entry & ~1).cast(
                gdb.lookup_type("azs_watcher").pointer()
            )
            fd, events = int(watcher["fd"]), events_of(watcher["pending"])
            return f"watcher  fd {fd} {events}: {watcher_text(watcher)}"
        handle = gdb.Value(entry).cast(gdb.lookup_type("HandleObject").pointer())
        kind = "timer" if handle["is_timer"] else "handle"
        if handle["cancelled"]:
            return f"{kind:8} cancelled"
        return f"{kind:8} {python_name(handle['callback'])}"


class Fds(gdb.Command):
    """azs-fds [ADDRESS]: which descriptors the loop watches, and for whom."""

    def __init__(self):
        super().__init__("azs-fds", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        loop = loop_at(argument)
        poller = loop["poller"]
        print(f"loop {int(loop):#x}: epoll is fd {int(poller['epfd'])}")
        for fd in range(int(poller["nfds"])):
            entry = poller["fds"][fd]
            users = list(self.users(entry))
            if users or entry["registered"] or entry["kept"]:
                told = events_of(entry["registered"])
                print(f"{fd:4} kernel {told:8} {'; '.join(users) or 'kept'}")

    def users(self, entry):
        if entry["watcher"]:
            wanted = events_of(entry["watcher"]["interest"])
            yield f"watcher {wanted}: {watcher_text(entry['watcher'])}"
        for name in ("reader", "writer"):
            if entry[name]:
                yield f"{name}: {python_name(entry[name]['callback'])}"
        for name in ("in_wait", "out_wait"):
            if entry[name]:
                yield f"{name}: {watcher_text(entry[name])}"


Ready()
Fds()

"""Names with dots, and what may be a handler."""

import copy
import functools
import inspect

import pytest


def make_handlers(rpc):
    class Sub(rpc.AttrHandler):
        def __init__(self, ident):
            self.ident = ident

        @rpc.method
        def func(self, arg=0):
            return (self.ident, arg)

    class Handler(rpc.AttrHandler):
        ns = Sub("class attribute")

        def __init__(self):
            self.sub = Sub("sub")
            self.sub.nested = Sub("nested")
            self.number = 5
            self.text = "text"

        @rpc.method
        def func(self):
            return "root"

        @rpc.method
        def ns_method(self):
            return "not a namespace"

        def hidden(self):
            raise AssertionError

    return Handler()


def test_namespaces(impl, run):
    async def go():
        async with impl.served("rpc", make_handlers(impl.rpc)) as (client, _):
            call = client.call
            assert await call.func() == "root"
            assert await call.ns.func(1) == ("class attribute", 1)
            assert await call.sub.func(arg=2) == ("sub", 2)
            assert await call.sub.nested.func() == ("nested", 0)
            # The same chain again: the object may be kept and used.
            nested = call.sub.nested
            for i in range(3):
                assert await nested.func(i) == ("nested", i)

    run(go())


@pytest.mark.parametrize(
    "name",
    ["ns", "ns.unknown", "unknown.func", "number.func", "text.func", "text.upper",
     "func.func", "ns_method.func", "hidden", "ns.hidden", "sub.nested.nested.func",
     "func.", "ns..func", "."],
)  # fmt: skip
def test_not_found(impl, run, name):
    async def go():
        async with impl.served("rpc", make_handlers(impl.rpc)) as (client, _):
            with pytest.raises(impl.rpc.NotFoundError) as exc:
                await client._proto.call(name, (), {})
            assert exc.value.args == (name,)

    run(go())


def test_dict_as_handler(impl, run):
    async def go():
        rpc = impl.rpc

        @rpc.method
        def a():
            return "a"

        @rpc.method
        async def b(arg):
            return ("b", arg)

        handler = {"a": a, "subnamespace": {"b": b, "a": a}, "plain": lambda: 0}
        async with impl.served("rpc", handler) as (client, _):
            assert await client.call.a() == "a"
            assert await client.call.subnamespace.a() == "a"
            assert await client.call.subnamespace.b(1) == ("b", 1)
            for call in (client.call.b, client.call.plain, client.call.subnamespace):
                with pytest.raises(rpc.NotFoundError):
                    await call()
            # A handler may change while it serves.
            handler["b"] = b
            del handler["a"]
            assert await client.call.b(2) == ("b", 2)
            with pytest.raises(rpc.NotFoundError):
                await client.call.a()

    run(go())


def test_dynamic_handler(impl, run):
    async def go():
        rpc = impl.rpc

        class Dynamic(rpc.AttrHandler):
            def __init__(self, namespace=()):
                self.namespace = namespace

            def __getitem__(self, key):
                try:
                    return getattr(self, key)
                except AttributeError:
                    return Dynamic((*self.namespace, key))

            @rpc.method
            def func(self):
                return (self.namespace, "val")

        async with impl.served("rpc", Dynamic()) as (client, _):
            assert await client.call.func() == ((), "val")
            assert await client.call.a.func() == (("a",), "val")
            assert await client.call.a.b.func() == (("a", "b"), "val")

    run(go())


def test_kinds_of_callables(impl, run):
    """Every callable that method() takes, on an instance, a class or in a dict."""

    async def go():
        rpc = impl.rpc

        class Handler(rpc.AttrHandler):
            @rpc.method
            def func(self, arg):
                return ("func", arg)

            @staticmethod
            @rpc.method
            def static(arg):
                return ("static", arg)

            @classmethod
            @rpc.method
            def klass(cls, arg):
                return (cls.__name__, arg)

        class Callable:
            def __call__(self, arg):
                return ("object", arg)

        @rpc.method
        def base(arg):
            return ("base", arg)

        @functools.wraps(base)
        def wrapper(*args):
            return ("wrapper", base(*args))

        @functools.wraps(base)
        async def async_wrapper(*args):
            return ("async", base(*args))

        handler = Handler()
        handler.object = rpc.method(Callable())
        handler.partial = rpc.method(functools.partial(base, 7))
        handler.base = base
        handler.wrapper = wrapper
        handler.async_wrapper = async_wrapper
        handler.others = {"func": handler.func, "unbound": Handler.func}
        async with impl.served("rpc", handler) as (client, _):
            call = client.call
            for _ in range(2):
                assert await call.func(1) == ("func", 1)
                assert await call.static(1) == ("static", 1)
                assert await call.klass(1) == ("Handler", 1)
                assert await call.object(1) == ("object", 1)
                assert await call.partial() == ("base", 7)
                assert await call.base(1) == ("base", 1)
                assert await call.wrapper(1) == ("wrapper", ("base", 1))
                assert await call.async_wrapper(1) == ("async", ("base", 1))
                assert await call.others.func(1) == ("func", 1)
                assert await call.others.unbound(0, 1) == ("func", 1)
                for bad in (call.func, call.static, call.klass, call.object):
                    with pytest.raises(rpc.ParametersError):
                        await bad(1, 2)
                with pytest.raises(rpc.ParametersError):
                    await call.others.unbound(1)

    run(go())


def test_method_marks_the_function(impl):
    def func(a, b: int = 1) -> int:
        return a + b

    marked = impl.rpc.method(func)
    assert marked is func
    assert hasattr(func, "__rpc__")
    assert str(func.__signature__) == "(a, b: int = 1) -> int"
    with pytest.raises((TypeError, AttributeError)):
        impl.rpc.method(5)


# -- What aiozmq does not survive --


def test_failing_lookups(ours, run):
    async def go():
        rpc = ours.rpc

        class Failing(rpc.AbstractHandler):
            def __getitem__(self, key):
                if key == "missing":
                    raise KeyError(key)
                if key == "exit":
                    raise GeneratorExit
                raise RuntimeError("look-up", key)

        class Handler(rpc.AttrHandler):
            failing = Failing()

            @property
            def prop(self):
                raise OSError(5, "property")

            @rpc.method
            def no_self():
                raise AssertionError

            @rpc.method
            def func(self):
                return 1

        async with ours.served("rpc", Handler()) as (client, _):
            call = client.call
            with pytest.raises(RuntimeError, match="look-up"):
                await call.failing.func()
            with pytest.raises(RuntimeError, match="look-up"):
                await call.failing.ns.func()
            with pytest.raises(rpc.NotFoundError):
                await call.failing.missing()
            with pytest.raises(rpc.GenericError, match="GeneratorExit"):
                await call.failing.exit()
            with pytest.raises(OSError, match="property"):
                await call.prop()
            with pytest.raises(rpc.ParametersError, match="invalid method signature"):
                await call.no_self()
            assert await call.func() == 1

    run(go())


def test_chains_do_not_fill_the_memory(ours, run):
    async def go():
        async with ours.served("rpc", make_handlers(ours.rpc)) as (client, _):
            assert client.call.ns.func is client.call.ns.func
            for i in range(3000):
                assert getattr(client.call, f"name{i}").__names__ == (f"name{i}",)
            assert len(vars(client.call)) <= 1024
            assert await client.call.func() == "root"

    run(go())


# -- Names, arguments and wrappers --


@pytest.mark.parametrize(
    "name",
    ["_option", "_bname", "_timeout", "_empty_name", "_proto", "_names", "send",
     "self", "name", "_MethodCall__proto", "mro", "args"],
)  # fmt: skip
def test_every_name_may_be_remote(ours, run, name):
    async def go():
        rpc = ours.rpc

        @rpc.method
        def func(arg):
            return arg

        handler = {name: func, "ns": {name: {"func": func}}}
        async with ours.served("rpc", handler) as (client, _):
            assert await getattr(client.call, name)(1) == 1
            assert await getattr(client.call.ns, name).func(2) == 2

    run(go())


@pytest.mark.parametrize("name", ["self", "name", "args", "kwargs", "func", "cls"])
def test_every_argument_may_be_given_by_keyword(ours, run, name):
    async def go():
        rpc = ours.rpc

        @rpc.method
        def func(**kwargs):
            return kwargs

        @rpc.method
        async def coro(**kwargs):
            return kwargs

        async with ours.served("rpc", {"func": func, "coro": coro}) as (client, _):
            assert await client.call.func(**{name: 1}) == {name: 1}
            assert await client.call.coro(**{name: 1}) == {name: 1}

    run(go())


def test_remote_names_have_none_of_pythons_protocols(ours, run):
    async def go():
        rpc = ours.rpc

        class Handler(rpc.AttrHandler):
            @rpc.method
            def func(self):
                return 1

        handler = Handler()
        async with ours.served("rpc", handler) as (client, _):
            assert inspect.unwrap(client.call.func) is client.call.func
            assert await copy.copy(client.call.func)() == 1
            # What a service keeps of its own clients is not for others to call.
            handler.backend = client.call.func
            with pytest.raises(rpc.NotFoundError):
                await client.call.backend()

    run(go())


def wrap(func, kind):
    if kind == "args":

        @functools.wraps(func)
        def inner(*args):
            return func(*args)

    elif kind == "names":

        @functools.wraps(func)
        def inner(x, y=2, *more, **rest):
            return func(x, y, *more, **rest)

    elif kind == "positions":

        @functools.wraps(func)
        def inner(x, y=2, /):
            return func(x, y)

    elif kind == "both":

        @functools.wraps(func)
        def inner(*args, **kwargs):
            return func(*args, **kwargs)

    else:

        @functools.wraps(func)
        def inner(**kwargs):
            return func(**kwargs)

    return inner


def wrapped_test(impl, run, kinds, calls):
    async def go():
        rpc = impl.rpc

        class Handler(rpc.AttrHandler):
            pass

        def method(self, a, b=2):
            return (a, b)

        @rpc.method
        def func(a, b=2):
            return (a, b)

        handler = Handler()
        for kind in kinds:
            if kind not in ("keywords", "positions"):
                setattr(Handler, f"m_{kind}", wrap(rpc.method(method), kind))
            setattr(handler, f"f_{kind}", wrap(func, kind))
        handler.partial = rpc.method(functools.partial(wrap(func, "args")))
        names = [name for name in dir(handler) if name.startswith(("f_", "m_"))]
        async with impl.served("rpc", handler) as (client, _):
            for name in (*names, *(["partial"] if "args" in kinds else ())):
                for args, kwargs in calls * 2:
                    answer = await getattr(client.call, name)(*args, **kwargs)
                    assert answer == (1, kwargs.get("b", 2)), name
                for args, kwargs in (((), {}), ((1,), {"a": 1}), ((), {"c": 1})):
                    with pytest.raises(rpc.ParametersError):
                        await getattr(client.call, name)(*args, **kwargs)

    run(go())


def test_wrapped_handlers_called_by_keyword(impl, run):
    wrapped_test(
        impl,
        run,
        ("args", "names", "positions", "both"),
        [((1,), {}), ((1,), {"b": 3}), ((), {"a": 1}), ((), {"a": 1, "b": 3})],
    )


def test_wrappers_that_take_keywords_alone(ours, run):
    """aiozmq calls them by position."""
    wrapped_test(ours, run, ("keywords",), [((), {"a": 1}), ((), {"b": 3, "a": 1})])

"""The quick check of arguments agrees with inspect in every case."""

import functools
import inspect
import itertools
import sys

import pytest

from aiozmq_speedups.rpc._signature import _MAX_CACHED, CallSpec, spec_of
from aiozmq_speedups.rpc.base import method


def functions():
    # fmt: off
    def f01(): ...
    def f02(a): ...
    def f03(a, b): ...
    def f04(a, b=1): ...
    def f05(a=1, b=2): ...
    def f06(*args): ...
    def f07(**kwargs): ...
    def f08(*args, **kwargs): ...
    def f09(a, *args): ...
    def f10(a, /): ...
    def f11(a, /, b): ...
    def f12(a, /, b=1): ...
    def f13(a=1, /, b=2): ...
    def f14(*, a): ...
    def f15(*, a=1): ...
    def f16(a, *, b): ...
    def f17(a, *, b=1): ...
    def f18(a, *args, b): ...
    def f19(a, b=1, *args, c, d=2, **kwargs): ...
    def f20(a, /, **kwargs): ...
    def f21(a, /, *args, b=1, **kwargs): ...
    # fmt: on
    return [value for name, value in sorted(locals().items())]


@pytest.mark.parametrize("func", functions(), ids=lambda f: str(inspect.signature(f)))
def test_agrees_with_inspect(func):
    spec = CallSpec(func)
    sig = inspect.signature(func)
    names = ("a", "b", "c", "x")
    for count in range(5):
        args = tuple(range(count))
        for size in range(len(names) + 1):
            for given in itertools.combinations(names, size):
                kwargs = dict.fromkeys(given, 0)
                try:
                    sig.bind(*args, **kwargs)
                except TypeError as exc:
                    expected = str(exc)
                else:
                    expected = None
                if not kwargs:
                    quick = spec.min_args <= count <= spec.max_args
                    assert quick == (expected is None), (args, kwargs)
                try:
                    spec.check(args, kwargs)
                except TypeError as exc:
                    assert str(exc) == expected, (args, kwargs)
                else:
                    assert expected is None, (args, kwargs)


@pytest.mark.parametrize("args", [None, 1, "ab", b"ab", {}, [], 1.5])
def test_args_must_be_a_tuple(args):
    spec = CallSpec(lambda *args, **kwargs: None)
    with pytest.raises(TypeError, match="arguments should be a tuple"):
        spec.check(args, {})


@pytest.mark.parametrize("kwargs", [None, 1, "ab", b"ab", (), []])
def test_kwargs_must_be_a_dict(kwargs):
    spec = CallSpec(lambda *args, **kwargs: None)
    with pytest.raises(TypeError, match="keyword arguments should be a dict"):
        spec.check((), kwargs)


@pytest.mark.parametrize("kwargs", [{1: 2}, {b"a": 1}, {(1,): 2}, {None: 1}])
@pytest.mark.parametrize("func", functions(), ids=lambda f: str(inspect.signature(f)))
def test_keywords_must_be_strings(func, kwargs):
    with pytest.raises(TypeError):
        CallSpec(func).check((), kwargs)


def test_coroutine_functions():
    async def coro():
        pass

    async def agen():
        yield

    assert CallSpec(coro).is_coroutine
    assert not CallSpec(agen).is_coroutine
    assert not CallSpec(lambda: coro).is_coroutine


def test_spec_is_kept():
    @method
    def func(a):
        pass

    class Handler:
        bound = func

    spec = spec_of(func)
    assert spec_of(func) is spec
    bound = Handler().bound
    bound_spec = spec_of(bound)
    assert spec_of(bound) is bound_spec
    assert (spec.max_args, bound_spec.max_args) == (1, 0)


def test_specs_of_wrappers_are_bounded():
    @method
    def func(a):
        pass

    for _ in range(3 * _MAX_CACHED):

        def wrapper():
            pass

        wrapper.__rpc__ = func.__rpc__  # as functools.wraps does
        assert spec_of(wrapper).max_args == 0
    assert len(func.__rpc__) <= _MAX_CACHED


def test_a_wrapper_takes_what_its_own_parameters_say():
    def func(a, b=2): ...

    def args(*args): ...

    def keywords(**kwargs): ...

    def names(x, /, y=2): ...

    for wrapper in (args, keywords, names):
        functools.update_wrapper(wrapper, func)
    given = (1,), {"b": 3}
    assert CallSpec(func).check(*given) == given
    assert CallSpec(args).check(*given) == ((1, 3), {})
    assert CallSpec(names).check((), {"a": 1, "b": 3}) == ((1, 3), {})
    # As many by position as the signature can bind so.
    assert CallSpec(names).check((), {"a": 1}) == ((1,), {})
    for spec in map(CallSpec, (args, names, keywords)):
        with pytest.raises(TypeError):
            spec.check((), {"b": 3})
    assert CallSpec(keywords).check((), {"a": 1}) == ((), {"a": 1})


def test_unhashable_callable():
    class Callable:
        __hash__ = None

        def __call__(self, a):
            pass

    func = method(Callable())
    assert spec_of(func).max_args == 1


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated")
@pytest.mark.parametrize(
    "annotation", ["OnlyForTypeCheckers", "sys.no_such", "No[int] | None"]
)
def test_annotations_without_a_value(annotation):
    namespace = {"sys": sys}
    exec(
        f"def func(a: {annotation}, *, b: {annotation} = 1) -> {annotation}: ...\n"
        f"class Callable:\n    def __call__(self, a: {annotation}): ...\n",
        namespace,
    )
    spec = spec_of(method(namespace["func"]))
    assert spec.check((1,), {"b": 2}) == ((1,), {"b": 2})
    assert spec_of(method(namespace["Callable"]())).max_args == 1

def test_extension_is_built():
    from aiozmq_speedups import _core

    assert _core.BUILD_FLAVOUR

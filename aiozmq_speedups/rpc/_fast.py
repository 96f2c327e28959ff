"""The protocols of request and reply, in C where the extension is there.

``client_protocol`` and ``server_protocol`` are the classes in use. The C types do
what every call needs and come first among the bases; all else is the pure-Python
class's.
"""

from __future__ import annotations

from typing import Any

from .. import _ext
from ._client import _ClientProtocol
from ._server import _ServerProtocol
from .base import AttrHandler

__all__ = ["client_protocol", "server_protocol"]

client_protocol: type[_ClientProtocol] = _ClientProtocol
server_protocol: type[_ServerProtocol] = _ServerProtocol

if _ext.core is not None:

    class _CClientProtocol(_ext.core.RpcClient, _ClientProtocol):  # type: ignore[misc]
        pass

    class _CServerProtocol(_ext.core.RpcServer, _ServerProtocol):  # type: ignore[misc]
        def __init__(self, loop: Any, handler: Any, **kwargs: Any) -> None:
            super().__init__(loop, handler, **kwargs)
            look_up = getattr(type(handler), "__getitem__", None)
            self._by_attribute = look_up is AttrHandler.__getitem__

    client_protocol = _CClientProtocol
    server_protocol = _CServerProtocol

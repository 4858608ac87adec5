"""hisock: two short files, and Python programs talk to each other.

``start_server`` and ``connect`` are all that most programs need.
"""

from __future__ import annotations

__all__ = (
    "__version__",
    "aio",
    "client",
    "connect",
    "constants",
    "errors",
    "get_local_ip",
    "input_client_config",
    "input_server_config",
    "ipstr_to_tup",
    "iptup_to_str",
    "server",
    "start_server",
    "start_threaded_server",
    "threaded_connect",
    "types",
    "utils",
    "AsyncClientInfo",
    "ClientInfo",
    "Credentials",
    "Handlers",
    "Identity",
    "Limits",
    "Message",
    "HiSockClient",
    "HiSockServer",
    "ThreadedHiSockClient",
    "ThreadedHiSockServer",
    "HiSockError",
    "ClientDisconnected",
    "ClientException",
    "CommandError",
    "NoHeaderWarning",
    "NoMessageException",
    "RemoteError",
    "RequestTimeout",
    "ServerException",
    "ServerNotRunning",
)

from hisock.constants import __version__

# Type checkers take the name for true; ``typing`` itself would cost 7 ms here.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from hisock import aio, client, constants, errors, server, types, utils
    from hisock.client import (
        HiSockClient,
        ThreadedHiSockClient,
        connect,
        threaded_connect,
    )
    from hisock.errors import (
        ClientDisconnected,
        ClientException,
        CommandError,
        HiSockError,
        NoHeaderWarning,
        NoMessageException,
        RemoteError,
        RequestTimeout,
        ServerException,
        ServerNotRunning,
    )
    from hisock.server import (
        HiSockServer,
        ThreadedHiSockServer,
        start_server,
        start_threaded_server,
    )
    from hisock.types import (
        AsyncClientInfo,
        ClientInfo,
        Credentials,
        Handlers,
        Identity,
        Limits,
        Message,
    )
    from hisock.utils import (
        get_local_ip,
        input_client_config,
        input_server_config,
        ipstr_to_tup,
        iptup_to_str,
    )

_MODULES = ("aio", "client", "constants", "errors", "server", "types", "utils")
_HOMES = {
    "connect": "client",
    "threaded_connect": "client",
    "HiSockClient": "client",
    "ThreadedHiSockClient": "client",
    "start_server": "server",
    "start_threaded_server": "server",
    "HiSockServer": "server",
    "ThreadedHiSockServer": "server",
    "get_local_ip": "utils",
    "input_client_config": "utils",
    "input_server_config": "utils",
    "ipstr_to_tup": "utils",
    "iptup_to_str": "utils",
    "AsyncClientInfo": "types",
    "ClientInfo": "types",
    "Credentials": "types",
    "Handlers": "types",
    "Identity": "types",
    "Limits": "types",
    "Message": "types",
}


def __getattr__(name: str) -> object:
    """Import on first use: a client has no need of asyncio, a server no need of both.

    Raises:
        AttributeError: There is no such name.
    """
    if name not in __all__:
        raise AttributeError(f"module 'hisock' has no attribute {name!r}")
    import gc
    from importlib import import_module

    # What an import makes stays; looking for garbage meanwhile costs 3 ms in vain.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        if name in _MODULES:
            return import_module(f"hisock.{name}")
        value = getattr(import_module(f"hisock.{_HOMES.get(name, 'errors')}"), name)
    finally:
        if was_enabled:
            gc.enable()
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

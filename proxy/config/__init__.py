"""The configuration file: YAML, typed, relative to its own folder, and every problem reported at once.

ConfigError(Exception)   `.problems`: list of Problem(path, message)
"""

from proxy.config.model import Config
from proxy.config.problems import ConfigError, Problem
from proxy.config.reading import Sockets, load, load_sockets, parse
from proxy.config.sections import ALL_OPERATIONS, AdminPeer, Operation, Peer
from proxy.config.template import default_yaml

__all__ = [
    "ALL_OPERATIONS",
    "AdminPeer",
    "Config",
    "ConfigError",
    "Operation",
    "Peer",
    "Problem",
    "Sockets",
    "default_yaml",
    "load",
    "load_sockets",
    "parse",
]

"""Data keys: made, wrapped, unwrapped, leased and refreshed, at the request of the data plane.

Refused(Exception)   inside this package: the keystore's own answer is no; requests get its code
"""

from proxy.keys.latency import Latency
from proxy.keys.options import KeyOptions
from proxy.keys.plane import Plane
from proxy.keys.service import KeyService

__all__ = ["KeyOptions", "KeyService", "Latency", "Plane"]

"""HTTP/1.1 to the one server of a back end: for calls that a data key waits for, a third of a general client's CPU.

Connections are counted and recycled by age, one request is on each at a time, and what held a key is wiped.
"""

from providers.http.answers import HttpAnswer, Malformed
from providers.http.connections import PORTS, Broken, Connections, Method, UnfitHeader

__all__ = ["PORTS", "Broken", "Connections", "HttpAnswer", "Malformed", "Method", "UnfitHeader"]

"""What goes wrong on purpose: each fault meets the next calls of a method, as often as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status


class Refusal(Exception):
    """A gRPC status with its details, as the service sends them (https://google.aip.dev/193)."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        reason: str | None = None,
        violation: str | None = None,
        subject: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = getattr(grpc.StatusCode, code)
        self.message = message
        self._details: list[Any] = []
        if reason:
            self._details.append(ErrorInfo(reason=reason, domain="googleapis.com"))
        if violation:
            violations = [PreconditionFailure.Violation(type=violation, subject=subject)]
            self._details.append(PreconditionFailure(violations=violations))
        if retry_after is not None:
            whole, rest = divmod(retry_after, 1)
            self._details.append(RetryInfo(retry_delay=Duration(seconds=int(whole), nanos=int(rest * 1e9))))

    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        """The metadata that carries the details."""
        status = Status(code=self.code.value[0], message=self.message)
        for detail in self._details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return (("grpc-status-details-bin", status.SerializeToString()),)


@dataclass
class Fault:
    """One thing that goes wrong `count` times: a `status`, `hang`, or damage to the answer."""

    kind: str  # `status`, `hang`, `crc`, `truncate`, `unverified`, `other key`, `long`
    count: int
    status: Mapping[str, Any] = field(default_factory=dict)  # arguments of Refusal


class Faults:
    """The faults that are waiting, by method (`Decrypt`), and how slow every call is."""

    def __init__(self) -> None:
        self.latency = 0.0  # seconds that every call takes, the work included
        self._waiting: dict[str, list[Fault]] = {}

    def add(self, method: str, fault: Fault) -> None:
        self._waiting.setdefault(method, []).append(fault)

    def clear(self) -> None:
        self.latency = 0.0
        self._waiting.clear()

    async def last(self, began: float) -> None:
        """Wait until a call that began at this time of the loop has taken as long as it should."""
        if self.latency:
            await asyncio.sleep(began + self.latency - asyncio.get_running_loop().time())

    def take(self, method: str) -> Fault | None:
        """The fault that this call of `method` meets."""
        waiting = self._waiting.get(method)
        if not waiting:
            return None
        fault = waiting[0]
        fault.count -= 1
        if fault.count <= 0:
            waiting.pop(0)
        return fault

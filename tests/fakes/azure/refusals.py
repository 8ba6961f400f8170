"""The service's refusals: HTTP status, error code and inner error code, as rest-error-codes lists them."""

from __future__ import annotations


class Refused(Exception):  # named for what happened, as the product's errors are
    """An answer that is not 200."""

    def __init__(self, status: int, code: str, message: str, inner: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.inner = inner

    def body(self) -> dict[str, object]:
        error: dict[str, object] = {"code": self.code, "message": str(self)}
        if self.inner:
            error["innererror"] = {"code": self.inner}
        return {"error": error}


def not_found(name: str) -> Refused:
    message = f"A key with (name/id) {name} was not found in this key vault."
    return Refused(404, "KeyNotFound", message)


def disabled(operation: str) -> Refused:
    return Refused(403, "Forbidden", f"Operation {operation} is not allowed on a disabled key.", "KeyDisabled")


def expired(operation: str) -> Refused:
    message = f"Operation {operation} is not allowed on a key that is not yet valid or has expired."
    return Refused(403, "Forbidden", message, "KeyNotYetValidOrExpired")


def not_permitted(operation: str) -> Refused:
    return Refused(403, "Forbidden", f"Operation {operation} is not permitted on this key.", "KeyOperationForbidden")


def bad_parameter(message: str = "The parameter is incorrect.") -> Refused:
    return Refused(400, "BadParameter", message)

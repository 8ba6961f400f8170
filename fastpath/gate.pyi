def matches(glob: bytes, name: bytes) -> bool:
    """Whether a policy glob matches a name; the function that the workers use."""

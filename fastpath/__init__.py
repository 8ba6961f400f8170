"""The native data plane: secret memory, AEAD, frames, key cache, policy gate and workers that never hold the GIL."""

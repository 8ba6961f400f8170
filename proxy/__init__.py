"""The control plane: configuration, keyrings, the keystore, data keys, the admin side and the command line."""

__version__ = "0.1.0"
"""That of the distribution, whose metadata would cost megabytes of imports to ask."""

"""The control plane: configuration, keyrings, the keystore, data keys, the admin side and the command line."""

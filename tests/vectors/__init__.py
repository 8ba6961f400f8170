"""Language-neutral vectors for docs/spec, and the script that makes them."""

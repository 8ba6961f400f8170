"""The admin socket: HTTP for operators and for the command line (docs/spec/http.md)."""

"""Keyside in plain Python, written from docs/spec alone: the oracle for the native code and the clients.

Straightforward on purpose; shares no code with the product; nothing here is fast, hides secrets or is for production.
"""

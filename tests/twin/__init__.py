"""docs/spec/wrap.md in plain Python, written from the page alone: the oracle for what providers and keystore hold.

Its siblings for envelopes and frames, and a whole sidecar, are `keyside.testing`: applications test with them too.
Neither shares code with what it judges; nothing here is fast, hides secrets or is for production.
"""

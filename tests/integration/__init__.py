"""The whole sidecar as a process of its own, and what it promises on bad days."""

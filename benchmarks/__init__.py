"""Measurements of Keyside beside a C server that does the least possible work and beside libraries for the same job."""

"""An application of the test project, for living data."""

"""Processes of a bus, started in order, started again where they die, and stopped."""

"""Queues between the processes of one machine: a ring whose two ends take turns."""

"""The process that routes: the one writer of the bus's own segment."""

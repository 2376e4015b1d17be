"""Exhaustive models of the protocols in shared memory, beside an explorer of all interleavings."""

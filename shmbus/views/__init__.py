"""A bus looked at from outside: nothing here writes shared memory."""

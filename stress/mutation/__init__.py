"""Careless changes of the code, one at a time, and which test notices each: see ../mutate.py."""

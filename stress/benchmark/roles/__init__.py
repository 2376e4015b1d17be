"""What the processes of a measurement do: each function is a role (stage.py)."""

"""How messages name what their readers can do."""

from __future__ import annotations


class Wording:
    """How messages name what their readers can do: by the calls of this package. A program whose
    users have options and commands instead has a wording of its own, see `BusError.told`."""

    longer = "timeout="
    """What makes a call wait longer."""
    at_least = "at_least="
    """What says how many replies are wanted."""
    endpoints = "bus.endpoints()"
    """What lists the endpoints of a bus."""
    route = "bus.route()"
    """What says whom a type goes to."""
    parts = "Send parts"
    """What to do where a payload is too large for any pool."""
    whose = ""
    """Whose the settings are, where they are not the reader's own."""
    which_bus = ""
    """What names a bus where there are several."""
    traceback = True
    """Whether a traceback is of use."""

    def wait_for(self, type: str) -> str:
        """What waits until an endpoint receives this type."""
        return f"ep.wait_for({type!r})"

    def serve(self, bus: str) -> str:
        """What serves a bus."""
        return f"python -m shmbus {bus}"

    def reconnect(self, how: str) -> str:
        """That calls would wait for the next dispatcher, to be added to how to start it."""
        return {
            "": "",
            "True": "; with reconnect=True calls wait for that",
            "always": ' and attach anew; with reconnect="always" calls wait',
        }[how]

    def setting(self, *names: str, to: int | None = None) -> str:
        """Settings, with the value that they need, where it is known."""
        return "Settings(" + ", ".join(f"{name}={to or '...'}" for name in names) + ")"

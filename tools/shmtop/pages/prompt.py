"""The field in which something is typed."""

from __future__ import annotations

from textual.message import Message
from textual.widgets import Input


class Prompt(Input):
    """A field of one line. What is typed after the key that opened it goes here, also where both
    come at once; and what ends it counts after all that was typed before."""

    class Taken(Message):
        """What was typed is to be used."""

        def __init__(self, value: str) -> None:
            super().__init__()
            self.value = value

    class Ended(Message, bubble=False):
        """No more is typed."""

        def __init__(self, take: bool) -> None:
            super().__init__()
            self.take = take

    def __init__(self, value: str = "", *, placeholder: str, spaces: bool = False) -> None:
        super().__init__(value, placeholder=placeholder)
        self.spaces = spaces
        """Whether they are part of what is typed."""

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Whether this key writes something here, whatever it does elsewhere."""
        return character is not None and character.isprintable() and (self.spaces or key != "space")

    def end(self, *, take: bool) -> None:
        """Use what has been typed, or forget it, once the keys that came before are there."""
        self.post_message(self.Ended(take))

    def on_prompt_ended(self, message: Ended) -> None:
        if not message.take:
            self.value = ""
        self.post_message(self.Taken(self.value))

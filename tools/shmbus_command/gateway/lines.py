"""The lines of a client: what each may be, and what is wrong with one that cannot be read."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Id = int | str
"""By which a client finds the answer to a line of its own."""

Seconds = Annotated[float, Meta(ge=0, le=86_400)]

_MOST = 1_000_000


class Line(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="op",
    tag=str.lower,
):
    """What every line may have."""

    id: Id | None = None


class _WithPayload(Line, frozen=True, kw_only=True):
    payload: Any = None
    payload_base64: str | UnsetType = UNSET

    def value(self) -> Any:
        """The payload, as it goes over the bus. Raises `BadLine`."""
        if self.payload_base64 is UNSET:
            return self.payload
        if self.payload is not None:
            raise BadLine("it has payload and payload_base64", "Give one of them")
        try:
            return base64.b64decode(self.payload_base64, validate=True)
        except binascii.Error as why:
            raise BadLine(
                f"payload_base64 is not base64 ({why})", "Encode the bytes as RFC 4648 says"
            ) from None


class Attach(Line, frozen=True, kw_only=True):
    name: str | None = None
    credit: Annotated[int, Meta(ge=0, le=_MOST)] | None = None
    window: Annotated[int, Meta(ge=1, le=4096)] = 64


class Publish(_WithPayload, frozen=True, kw_only=True):
    type: str
    retain: bool = False
    urgent: bool = False
    timeout: Seconds = 5.0


class Send(_WithPayload, frozen=True, kw_only=True):
    type: str
    timeout: Seconds = 5.0


class Request(_WithPayload, frozen=True, kw_only=True):
    id: Id
    type: str
    timeout: Seconds = 5.0


class Stream(_WithPayload, frozen=True, kw_only=True):
    id: Id
    type: str
    timeout: Seconds = 5.0


class Cancel(Line, frozen=True, kw_only=True):
    request: Id


class Wait(Line, frozen=True, kw_only=True):
    pattern: str
    timeout: Seconds = 5.0


class Subscribe(Line, frozen=True, kw_only=True):
    pattern: str
    group: str | None = None
    key: str | None = None
    overflow: Literal["block", "drop_newest", "drop_oldest", "latest"] = "block"
    depth: int | None = None
    history: int = 0


class Unsubscribe(Line, frozen=True, kw_only=True):
    pattern: str
    group: str | None = None


class Handle(Line, frozen=True, kw_only=True):
    pattern: str
    limit: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    redeliver: bool = False


class Reply(_WithPayload, frozen=True, kw_only=True):
    message: int


class Part(_WithPayload, frozen=True, kw_only=True):
    message: int


class Error(Line, frozen=True, kw_only=True):
    message: int
    text: str
    name: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,99}$")] = "Error"


class Done(Line, frozen=True, kw_only=True):
    message: int


class Nack(Line, frozen=True, kw_only=True):
    message: int
    delay: Seconds = 0.0
    reason: str = ""


class More(Line, frozen=True, kw_only=True):
    n: Annotated[int, Meta(ge=1, le=_MOST)]


AnyLine = (
    Attach
    | Publish
    | Send
    | Request
    | Stream
    | Cancel
    | Wait
    | Subscribe
    | Unsubscribe
    | Handle
    | Reply
    | Part
    | Error
    | Done
    | Nack
    | More
)
_decoder = msgspec.json.Decoder(AnyLine)


class BadLine(Exception):
    """A line that cannot be read, or that does not fit where it stands."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}. {remedy}")


class _Head(msgspec.Struct):
    id: Id | None = None


_head = msgspec.json.Decoder(_Head)


def id_of(content: bytes) -> Id | None:
    """The id of a line that cannot be read otherwise, where it has one."""
    try:
        return _head.decode(content).id
    except (ValueError, RecursionError):
        return None


def read(content: bytes) -> AnyLine:
    """What a line says. Raises `BadLine`."""
    try:
        return _decoder.decode(content)
    except msgspec.ValidationError as why:
        raise BadLine(str(why), "See the lines that there are: shmbus gateway --help") from None
    except (ValueError, RecursionError) as why:
        raise BadLine(
            f"it is not JSON ({why})", "Write one object on one line: jq -c, JSON.stringify"
        ) from None

from typing import Self, final

from ringbuf._kernel import Mapping
from shmbus.shared.segments import Shape

from .notices import Notice

RECLAIMED: int
QUARANTINED: int
UNREAD: int
UNUSED_POOL: int
UNUSED_PAGES: int

def up_shape(up: Mapping) -> Shape | None: ...

@final
class Forwarder:
    def __new__(
        cls,
        bus: Mapping,
        ready: Mapping,
        prefix: str,
        bell: str,
        *,
        spin_ns: int,
        adopting: bool = False,
    ) -> Self: ...
    def miss(self) -> None: ...
    @property
    def notice_fd(self) -> int: ...
    def start(self, bus: str) -> None: ...
    def stop(self, drain: float | None) -> None: ...
    def wake_all(self) -> None: ...
    def close(self) -> None: ...
    def admit(
        self,
        slot: int,
        generation: int,
        up: Mapping,
        down: Mapping,
        *,
        up_file: str,
        bell: str,
        pid: int,
        pidfd: int,
        stat: int,
        door: int,
        adopted: bool = False,
    ) -> None: ...
    def evict(self, slot: int, generation: int) -> None: ...
    def mark_dead(self, slot: int, generation: int) -> None: ...
    def notices(self) -> list[Notice]: ...
    def free_pages(self, slot: int, generation: int, start: int, size: int) -> None: ...
    def open_door(self, slot: int, generation: int, door: int) -> None: ...
    def open_event(self, slot: int, generation: int, event: int) -> None: ...
    def forget(self, slot: int, generation: int) -> None: ...

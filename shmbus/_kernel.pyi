from typing import Self, final

from ringbuf._kernel import Mapping

def build_info() -> dict[str, str]: ...

RECLAIMED: int
QUARANTINED: int

def layout_hash() -> int: ...
def up_sound(up: Mapping) -> bool: ...

@final
class Forwarder:
    def __new__(
        cls,
        bus: Mapping,
        ready: Mapping,
        prefix: str,
        bell: str,
        *,
        spin: bool = True,
        adopting: bool = False,
    ) -> Self: ...
    @property
    def notice_fd(self) -> int: ...
    def start(self) -> None: ...
    def stop(self, drain: float) -> None: ...
    def wake_all(self) -> None: ...
    def close(self) -> None: ...
    def admit(
        self,
        slot: int,
        generation: int,
        up: Mapping,
        down: Mapping,
        bell: str,
        pid: int,
        pidfd: int,
        stat: int,
        door: int,
        adopted: bool = False,
    ) -> None: ...
    def evict(self, slot: int, generation: int) -> None: ...
    def bury(self, slot: int, generation: int) -> None: ...
    def notices(self) -> list[tuple[int, int, int, int]]: ...
    def forget(self, slot: int, generation: int) -> None: ...

"""Segments: what is made is complete, what is opened is trusted, and a failure leaves nothing."""

import errno
import gc
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ringbuf import (
    Segment,
    SegmentError,
    SegmentExists,
    SegmentForeign,
    SegmentMismatch,
    SegmentNoSpace,
    SegmentNotFound,
    SegmentNotReady,
    layout_text,
)

KIND = 7
LAYOUT = 1 << 32 | 0xA3F2B4C1


def make(name: str, size: int = 4096) -> Segment:
    return Segment.create(name, size, kind=KIND, layout=LAYOUT)


def file(name: str) -> Path:
    return Path("/dev/shm", name)


@pytest.mark.smoke
def test_what_one_side_writes_the_other_reads(name: str) -> None:
    with make(name) as mine, Segment.attach(name, kind=KIND, layout=LAYOUT, size=4096) as theirs:
        mine.buf[100:105] = b"hello"
        assert bytes(theirs.buf[100:105]) == b"hello"
        mine.memory.store(64, 2**64 - 1)
        assert theirs.memory.load(64) == 2**64 - 1
        assert theirs.prefix == mine.prefix
        assert (theirs.prefix.kind, theirs.prefix.layout, theirs.size) == (KIND, LAYOUT, 4096)


def test_a_reader_cannot_write(name: str) -> None:
    with make(name), Segment.attach(name) as reader:
        with pytest.raises(TypeError):
            reader.buf[100] = 1
        with pytest.raises(TypeError):
            reader.memory.store(64, 1)
        assert not np.frombuffer(reader.buf, np.uint8).flags.writeable


def test_a_writer_who_attaches_can_write(name: str) -> None:
    with make(name) as mine, Segment.attach(name, writable=True) as theirs:
        theirs.memory.store(64, 5)
        assert mine.memory.load(64) == 5


@pytest.mark.parametrize("offset", [4, 4096, 4089, 2**63])
def test_words_lie_within_the_segment_and_aligned(name: str, offset: int) -> None:
    with make(name) as segment:
        with pytest.raises(IndexError):
            segment.memory.load(offset)
        with pytest.raises(IndexError):
            segment.memory.store(offset, 0)


def test_views_outlive_the_segment_that_they_came_from(name: str) -> None:
    with make(name) as mine:
        theirs = Segment.attach(name, writable=True)
        array = np.frombuffer(theirs.buf, np.uint64)
        theirs.close()
        theirs.close()
        del theirs
        gc.collect()
        array[100] = 9
        assert mine.memory.load(800) == 9
    array[100] = 10
    assert array[100] == 10


def test_memory_is_unmapped_with_its_last_view(name: str) -> None:
    def mapped() -> bool:
        return name in Path("/proc/self/maps").read_text()

    with make(name) as mine:
        view = memoryview(mine.memory)[100:200]
        mine.close()
        assert mapped()
        view.release()
        assert not mapped()


def test_a_closed_segment_says_so(name: str) -> None:
    with make(name) as segment:
        segment.close()
        with pytest.raises(ValueError, match="closed"):
            segment.prefix  # noqa: B018


def test_descriptors_are_not_kept(name: str) -> None:
    before = os.listdir("/proc/self/fd")
    with make(name), Segment.attach(name):
        assert os.listdir("/proc/self/fd") == before


def test_unlinking_twice_is_harmless_and_those_inside_go_on(name: str) -> None:
    with make(name) as segment:
        segment.unlink()
        segment.unlink()
        segment.buf[100] = 1
        with pytest.raises(SegmentNotFound):
            Segment.attach(name)


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_only_the_owner_may_open_it_whatever_the_umask(name: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        with make(name):
            assert stat.S_IMODE(file(name).stat().st_mode) == 0o600
            Segment.attach(name).close()
    finally:
        os.umask(before)


def test_its_memory_is_reserved_when_it_is_made(name: str) -> None:
    with make(name, 5_000_000):
        assert file(name).stat().st_blocks * 512 >= 5_000_000


def test_nobody_attaches_before_it_is_prepared(name: str) -> None:
    def prepare(_: object) -> None:
        with pytest.raises(SegmentNotReady, match="try again"):
            Segment.attach(name)

    with Segment.create(name, 4096, kind=KIND, layout=LAYOUT, prepare=prepare):
        Segment.attach(name).close()


def test_a_failed_preparation_leaves_nothing(name: str) -> None:
    def prepare(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Segment.create(name, 4096, kind=KIND, layout=LAYOUT, prepare=prepare)
    assert not file(name).exists()


def test_a_name_is_given_once(name: str) -> None:
    with make(name) as mine:
        mine.buf[100] = 1
        with pytest.raises(SegmentExists, match=name) as caught:
            make(name)
        assert caught.value.name == name
        assert mine.buf[100] == 1
        Segment.attach(name).close()


def test_a_missing_segment_is_named(name: str) -> None:
    with pytest.raises(SegmentNotFound, match=name):
        Segment.attach(name)


def test_another_layout_is_refused_with_both_versions(name: str) -> None:
    with make(name), pytest.raises(SegmentMismatch) as caught:
        Segment.attach(name, layout=2 << 32 | 0xB)
    error = caught.value
    assert (error.what, error.expected, error.found) == ("layout", 2 << 32 | 0xB, LAYOUT)
    assert "1.a3f2b4c1" in str(error)
    assert "2.0000000b" in str(error)
    assert layout_text(LAYOUT) == "1.a3f2b4c1"


def test_another_kind_or_size_is_refused(name: str) -> None:
    with make(name):
        with pytest.raises(SegmentMismatch) as caught:
            Segment.attach(name, kind=8)
        assert (caught.value.what, caught.value.expected, caught.value.found) == ("kind", 8, KIND)
        with pytest.raises(SegmentMismatch) as caught:
            Segment.attach(name, size=8192)
        assert (caught.value.what, caught.value.expected, caught.value.found) == (
            "size",
            8192,
            4096,
        )


@pytest.mark.parametrize("size", [4088, 4104, 1 << 20])
def test_a_segment_that_was_cut_or_grown_is_refused(name: str, size: int) -> None:
    with make(name):
        os.truncate(file(name), size)
        with pytest.raises(SegmentMismatch) as caught:
            Segment.attach(name)
        assert (caught.value.what, caught.value.found) == ("size", size)


@pytest.fixture
def planted(name: str) -> Iterator[Path]:
    path = file(name)
    yield path
    path.unlink(missing_ok=True)


def test_what_is_no_segment_is_refused(name: str, planted: Path) -> None:
    planted.write_bytes(b"GARBAGE!" * 100)
    planted.chmod(0o600)
    with pytest.raises(SegmentMismatch) as caught:
        Segment.attach(name)
    assert caught.value.what == "magic"


@pytest.mark.parametrize("content", [b"", b"\0" * 4096])
def test_a_half_made_segment_is_not_ready(name: str, planted: Path, content: bytes) -> None:
    planted.write_bytes(content)
    planted.chmod(0o600)
    with pytest.raises(SegmentNotReady):
        Segment.attach(name)


def test_another_mode_is_refused(name: str) -> None:
    with make(name):
        file(name).chmod(0o644)
        with pytest.raises(SegmentForeign) as caught:
            Segment.attach(name)
        assert (caught.value.what, caught.value.expected, caught.value.found) == (
            "mode",
            "0600",
            "0644",
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_owner_is_refused(name: str) -> None:
    with make(name):
        os.chown(file(name), 65534, 65534)
        with pytest.raises(SegmentForeign, match="uid 65534") as caught:
            Segment.attach(name)
        assert caught.value.what == "owner"


def test_links_pipes_and_directories_are_refused(name: str, planted: Path) -> None:
    with make(name + "-real"):
        planted.symlink_to(file(name + "-real"))
        with pytest.raises(SegmentForeign):
            Segment.attach(name)
        with pytest.raises(SegmentExists):
            make(name)
    planted.unlink()
    os.mkfifo(planted, 0o600)
    with pytest.raises(SegmentForeign):
        Segment.attach(name)
    planted.unlink()
    planted.mkdir()
    with pytest.raises(SegmentForeign):
        Segment.attach(name)
    planted.rmdir()


def test_sizes_that_cannot_be_are_refused(name: str) -> None:
    for size in (-8, 0, 56, 65):
        with pytest.raises(ValueError, match=str(size)):
            make(name, size)


def test_a_segment_is_not_pickled(name: str) -> None:
    import pickle

    with make(name) as segment, pytest.raises(TypeError, match="attach"):
        pickle.dumps(segment)


TOO_LARGE = """
import os, sys
from ringbuf import Segment, SegmentNoSpace
name, size = sys.argv[1], int(sys.argv[2])
try:
    Segment.create(name, size, kind=1, layout=1)
except SegmentNoSpace as error:
    print(error.errno, error.size, error.free, "--shm-size" in str(error))
assert os.listdir("/dev/shm") == []
Segment.create(name, 16384, kind=1, layout=1).unlink()
"""


def small(size: str) -> tuple[str, ...]:
    """Run what follows with a /dev/shm of its own, of that size."""
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    return ("unshare", "-m", "sh", "-c", mount, "sh")


namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"]).returncode != 0,
    reason="only root can mount a small /dev/shm",
)


@namespaces
def test_a_full_dev_shm_is_an_error_that_names_the_remedy(
    name: str, python: Callable[..., str]
) -> None:
    printed = python(TOO_LARGE, name, 1 << 20, before=small("64k"))
    assert printed.split() == [str(errno.ENOSPC), str(1 << 20), "65536", "True"]


FILLED = """
import os, sys
from ringbuf import Segment, SegmentNoSpace, segment
segment.available = lambda: sys.maxsize       # another process takes the space after the check
try:
    Segment.create(sys.argv[1], 3 << 20, kind=1, layout=1)
except SegmentNoSpace as error:
    print(error.errno)
assert os.listdir("/dev/shm") == []
"""


@namespaces
def test_space_that_runs_out_on_the_way_is_given_back(
    name: str, python: Callable[..., str]
) -> None:
    assert python(FILLED, name, before=small("2m")).split() == [str(errno.ENOSPC)]


@namespaces
def test_more_than_the_machine_has_is_refused_before_it_is_taken(
    name: str, python: Callable[..., str]
) -> None:
    printed = python(TOO_LARGE, name, 1 << 50, before=small("0")).split()
    assert printed[0] == str(errno.ENOMEM)
    assert 0 < int(printed[2]) < 1 << 50


LIMITED = """
import os, resource, signal, sys
from ringbuf import Segment, SegmentNoSpace
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    Segment.create(sys.argv[1], 2 << 20, kind=1, layout=1)
except SegmentNoSpace as error:
    print(error.errno, "ulimit -f" in str(error))
assert not os.path.exists("/dev/shm/" + sys.argv[1])
assert signal.SIGXFSZ not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
"""


def test_a_limit_on_file_sizes_is_an_error_and_no_signal(
    name: str, python: Callable[..., str]
) -> None:
    assert python(LIMITED, name).split() == [str(errno.EFBIG), "True"]


SIGNALS = """
import signal, sys
from ringbuf import Segment
received = 0
def handler(*_):
    global received
    received += 1
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
while received < 50:
    with Segment.create(sys.argv[1], 32 << 20, kind=1, layout=1) as segment:
        assert segment.size == 32 << 20
signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_a_signal_every_millisecond_does_not_keep_it_from_being_made(
    name: str, python: Callable[..., str]
) -> None:
    python(SIGNALS, name)


INTERRUPTED = """
import os, random, signal, sys
from ringbuf import Producer
name, seed = sys.argv[1], int(sys.argv[2])
choose = random.Random(seed)
armed, interrupts = False, 0
def handler(*_):
    if armed:
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, handler)
for _ in range(400):
    made = []
    try:
        armed = True
        signal.setitimer(signal.ITIMER_REAL, choose.uniform(1e-5, 3e-4))
        made.extend(map(Producer.create, (name,), (1 << 16,)))
    except KeyboardInterrupt:
        interrupts += 1
    armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    if made:
        made[0].unlink()
    left = [entry for entry in os.listdir("/dev/shm") if name in entry]
    assert not left, (seed, left)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set(), seed
print(interrupts)
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_ctrl_c_at_any_point_leaves_nothing(
    name: str, seed: int, python: Callable[..., str]
) -> None:
    # Not quiet: an interrupt may come while a finalizer runs, and Python then prints it.
    assert int(python(INTERRUPTED, name, seed, quiet=False)) > 50


EXHAUSTED = """
import os, resource, sys
from ringbuf import Segment, SegmentError
limit = resource.RLIMIT_NOFILE if sys.argv[2] == "files" else resource.RLIMIT_AS
before = resource.getrlimit(limit)
resource.setrlimit(limit, (3 if sys.argv[2] == "files" else 1 << 20, before[1]))
for attempt in Segment.attach, lambda name: Segment.create(name + "-2", 1 << 22, kind=1, layout=1):
    try:
        attempt(sys.argv[1])
    except SegmentError as error:
        found = error.errno
resource.setrlimit(limit, before)
print(found)
"""


@pytest.mark.parametrize(("what", "number"), [("files", errno.EMFILE), ("memory", errno.ENOMEM)])
def test_running_out_of_descriptors_or_address_space_destroys_nothing(
    name: str, what: str, number: int, python: Callable[..., str]
) -> None:
    with make(name, 1 << 22) as mine:
        assert python(EXHAUSTED, name, what).split() == [str(number)]
        mine.buf[100] = 1
        with Segment.attach(name) as again:
            assert again.buf[100] == 1
        assert not file(name + "-2").exists()


LEFT_OPEN = """
import os, sys
from ringbuf import Segment
mine = Segment.create(sys.argv[1] + "-2", 4096, kind=1, layout=1)
theirs = Segment.attach(sys.argv[1], writable=True)
if sys.argv[2] == "abrupt":
    os._exit(0)
"""


@pytest.mark.parametrize("how", ["abrupt", "orderly"])
def test_an_exit_unlinks_nothing_and_reports_nothing(
    name: str, how: str, python: Callable[..., str]
) -> None:
    with make(name):
        python(LEFT_OPEN, name, how)
        Segment.attach(name).close()
        Segment.attach(name + "-2").unlink()


def test_a_name_that_the_system_refuses_is_an_error() -> None:
    for bad in ("with/slash", "x" * 300):
        with pytest.raises(SegmentError):
            make(bad)
        with pytest.raises(SegmentError):
            Segment.attach(bad)


def test_no_space_is_a_segment_error_with_its_facts() -> None:
    error = SegmentNoSpace("n", 2048, 1024, "do something", errno=errno.ENOSPC)
    assert isinstance(error, SegmentError)
    assert (error.size, error.free, error.errno) == (2048, 1024, errno.ENOSPC)

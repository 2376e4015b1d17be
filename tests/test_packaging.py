"""What is installed is what is in the tree, built the ordinary way, and names no path of the
machine that built it; a wheel and an sdist do not depend on who made them, when and where."""

import io
import re
import tarfile
import tomllib
import zipfile
import zlib
from importlib.metadata import distributions
from pathlib import Path

import archives
import floors
import pytest

from shmbus.shared import _kernel

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]


ROOMS = ("shmbus/shared", "shmbus/endpoint", "shmbus/dispatcher", "shmbus/queues")

TOOLS = ("shmbus_command", "shmbus_console", "shmtop")


def natives(room: str, *below: str) -> set[str]:
    """The headers of these rooms, what they offer Cython, and the parts of the first kernel."""
    patterns = [(each, pattern) for each in (room, *below) for pattern in ("native/*.h", "*.pxd")]
    return {
        path.relative_to(ROOT).as_posix()
        for each, pattern in [*patterns, (room, "kernel/*.pxi")]
        for path in (ROOT / each).glob(pattern)
    }


@pytest.mark.smoke
def test_every_extension_is_rebuilt_when_a_header_it_may_use_changes() -> None:
    depends = {ext["name"]: set(ext["depends"]) for ext in SETUPTOOLS["ext-modules"]}
    assert depends["ringbuf._kernel"] == natives("ringbuf")
    for room in ROOMS:
        needed = natives(room, "ringbuf", "shmbus/shared")
        assert depends[f"{room.replace('/', '.')}._kernel"] == needed


def test_every_package_of_the_tree_is_installed() -> None:
    found = {
        init.parent.relative_to(ROOT).as_posix().replace("/", ".").removeprefix("tools.")
        for top in ("ringbuf", "shmbus", *(f"tools/{tool}" for tool in TOOLS))
        for init in (ROOT / top).rglob("__init__.py")
    }
    assert found == set(SETUPTOOLS["packages"])


def test_the_installed_kernel_is_no_test_variant() -> None:
    assert _kernel.build_info()["variant"] == ""


PICKLES = {
    "shmbus/executor/packing.py",
    "shmbus/joblib/backend.py",
    "shmbus/joblib/packed.py",
    "shmbus/queues/_kernel.pyx",
}
"""What is spoken among the processes of one pool, or of one queue, alone."""


def test_nothing_else_that_we_ship_unpickles_or_evaluates() -> None:
    shipped = [
        path
        for top in ("ringbuf", "shmbus", "tools")
        for path in (ROOT / top).rglob("*.p*")
        if path.suffix in (".py", ".pyx", ".pxd", ".pxi") and "build" not in path.parts
        if path.relative_to(ROOT).as_posix() not in PICKLES
    ]
    assert len(shipped) > 50
    for path in shipped:
        source = path.read_text()
        assert not re.search(r"\b(import|from) (c?[pP]ickle|marshal|shelve)\b", source), path
        assert not re.search(r"allow_pickle|\b(eval|exec)\(", source), path


@pytest.fixture(scope="module")
def installed() -> dict[str, Path]:
    """The files that the wheel brought, by their names in it, but for those that pip wrote."""
    # Where tests run in an unpacked sdist, the first found is what that says of itself.
    of = next(each for each in distributions(name="shmbus") if each.read_text("WHEEL"))
    if '"editable": true' in (of.read_text("direct_url.json") or ""):
        pytest.skip("this is an editable installation, which has not the files of a wheel")
    return {
        name: Path(str(file.locate()))
        for file in of.files or ()
        if not (name := file.as_posix()).startswith("../")
        and "__pycache__" not in name
        and file.name not in ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD")
    }


def kernels(files: dict[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in files.items() if path.suffix == ".so"}


def test_a_wheel_has_the_packages_their_types_and_the_licence_and_nothing_else(
    installed: dict[str, Path],
) -> None:
    wanted = {
        path.relative_to(ROOT).as_posix().removeprefix("tools/")
        for top in ("ringbuf", "shmbus", *(f"tools/{tool}" for tool in TOOLS))
        for path in (ROOT / top).rglob("*")
        if path.name == "py.typed" or path.suffix in (".py", ".pyi", ".tcss")
    }
    assert wanted.issuperset({"ringbuf/py.typed", "shmbus/py.typed", "shmbus/shared/_kernel.pyi"})
    of_kernels = kernels(installed)
    assert {name.partition(".")[0].replace("/", ".") for name in of_kernels} == {
        extension["name"] for extension in SETUPTOOLS["ext-modules"]
    }
    about = {name for name in installed if ".dist-info/" in name}
    names = ("METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt")
    assert {name.partition(".dist-info/")[2] for name in about} == set(names)
    assert installed.keys() - of_kernels.keys() - about == wanted


def test_a_wheel_is_small(installed: dict[str, Path]) -> None:
    # 0.7 MB, of which 0.4 are kernels; with debug information these alone would be 2.6.
    packed = sum(len(zlib.compress(path.read_bytes())) for path in installed.values())
    assert packed < 1_000_000


def test_a_kernel_names_no_path_of_the_machine_that_built_it(installed: dict[str, Path]) -> None:
    for name, path in kernels(installed).items():
        content = path.read_bytes()
        paths = re.findall(rb"(?<![\w.])/[\w.+-]+/[\w./+-]+", content)
        assert [path for path in paths if not path.startswith((b"/dev/shm", b"/proc/"))] == [], name
        assert b".debug_info" not in content, name


def test_archives_are_equal_whenever_and_by_whom_they_were_made(tmp_path: Path) -> None:
    made = []
    for at, mode, owner in ((1_600_000_000, 0o755, "one"), (1_700_000_002, 0o700, "another")):
        wheel, sdist = tmp_path / owner / "a.whl", tmp_path / owner / "a.tar.gz"
        wheel.parent.mkdir()
        with zipfile.ZipFile(wheel, "w") as zipped:
            for name, permitted in (("a/kernel.so", mode), ("a/code.py", mode & 0o666)):
                info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, at % 60))
                info.external_attr = (0o100000 | permitted) << 16
                zipped.writestr(info, name * 1000)
        with tarfile.open(sdist, "w:gz") as tarred:
            for name in ("a/b", "a/a") if owner == "one" else ("a/a", "a/b"):
                member = tarfile.TarInfo(name)
                member.size, member.mode, member.mtime, member.uname = 4, mode & 0o666, at, owner
                tarred.addfile(member, io.BytesIO(b"text"))
        archives.settle_wheel(wheel)
        archives.settle_sdist(sdist)
        made.append((wheel.read_bytes(), sdist.read_bytes()))
    assert made[0] == made[1]
    with zipfile.ZipFile(wheel) as zipped:
        assert zipped.read("a/code.py") == b"a/code.py" * 1000
        assert [info.external_attr >> 16 for info in zipped.filelist] == [0o100755, 0o100644]
    with tarfile.open(sdist) as tarred:
        assert tarred.getnames() == ["a/a", "a/b"]
        assert all(member.mode == 0o644 and not member.uname for member in tarred)


def test_archives_have_the_date_that_source_date_epoch_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for date, year in (("", 1980), ("0", 1980), ("1600000000", 2020)):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", date)
        with zipfile.ZipFile(tmp_path / "a.whl", "w") as zipped:
            zipped.writestr("a", "b")
        archives.settle_wheel(tmp_path / "a.whl")
        with zipfile.ZipFile(tmp_path / "a.whl") as zipped:
            assert zipped.getinfo("a").date_time[0] == year


def test_every_requirement_names_its_oldest_version_which_ci_installs() -> None:
    oldest = dict(each.split("==") for each in floors.floors(PYPROJECT))
    assert {"setuptools", "numpy", "textual", "ruff", "mkdocs-material"} <= oldest.keys()
    assert PYPROJECT["tool"]["pytest"]["ini_options"]["minversion"] == oldest["pytest"]
    with pytest.raises(SystemExit, match="'numpy' has no oldest version"):
        list(floors.floors(PYPROJECT | {"build-system": {"requires": ["numpy"]}}))

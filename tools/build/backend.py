"""The PEP 517 backend: setuptools' own, with these additions.

- Where no C compiler is installed, PyPI's `ziglang` becomes a build requirement and is used.
- Every build uses a fresh temporary directory, so that no object file of an earlier one, such as
  a test variant's, gets into an installation.
- `SHMBUS_VARIANT=failpoints|asan|ubsan|tsan` (joined with `+`) builds a variant for tests, and
  `shmbus.shared._kernel.build_info()` names it.
- Kernels are optimized with `-O3`, unless CFLAGS has another `-O`.
- A wheel's kernels are stripped, unless CFLAGS has a `-g`: with the interpreter's own `-g`, four
  fifths of a wheel were debug information. An editable installation keeps it.
- No kernel names a path of the machine that built it, and two builds are equal (`archives.py`).
"""

import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from archives import settle_sdist, settle_wheel
from setuptools import build_meta

Config = Mapping[str, str | list[str] | None] | None

VARIANTS = {
    "failpoints": "-DSB_FAILPOINTS",
    "asan": "-fsanitize=address -fno-omit-frame-pointer -g",
    "ubsan": "-fsanitize=undefined -fno-sanitize-recover=all -g",
    "tsan": "-fsanitize=thread -g",
}


def compiler() -> str | None:
    """The C compiler to use, or None where the machine has none."""
    wanted = os.environ.get("CC") or ""
    for command in (wanted, sysconfig.get_config_var("CC") or "", "cc", "gcc", "clang"):
        if command and shutil.which(shlex.split(command)[0]):
            return str(command)
        if command and command is wanted:
            sys.exit(
                f"shmbus: there is no compiler {wanted!r}, which CC names; correct or unset CC"
            )
    return None


def variant() -> tuple[str, str]:
    """The name of the variant asked for (empty: none), and its compiler flags."""
    name = os.environ.get("SHMBUS_VARIANT", "")
    parts = [part for part in name.split("+") if part]
    if unknown := [part for part in parts if part not in VARIANTS]:
        sys.exit(f"shmbus: no variant {unknown[0]!r}; SHMBUS_VARIANT takes {', '.join(VARIANTS)}")
    if not name:  # a sanitizer in CFLAGS makes a variant, too
        flags = shlex.split(os.environ.get("CFLAGS", ""))
        name = "+".join(flag for flag in flags if flag.startswith(("-fsanitize", "-DSB_")))
    return name, " ".join(VARIANTS[part] for part in parts)


def link_command(cc: str) -> str:
    """The interpreter's command to link with, by this compiler. The interpreter's directory is left
    out, as a kernel links with nothing of it."""
    own, link = (str(sysconfig.get_config_var(name) or "") for name in ("CC", "LDSHARED"))
    flags = shlex.split(link.removeprefix(own))
    return f"{cc} {shlex.join(flag for flag in flags if not flag.startswith(('-L', '-Wl,-rpath')))}"


@contextmanager
def build_environment(*, distributed: bool) -> Iterator[None]:
    """Point setuptools at a fresh directory and at a compiler that exists. What is distributed has
    no debug information and no path of this machine."""
    name, flags = variant()
    with tempfile.TemporaryDirectory(prefix="shmbus-build-") as directory:
        extra = Path(directory, "extra.cfg")
        extra.write_text(
            f"[build]\nbuild_base = {directory}\n"
            "[build_ext]\nforce = 1\nparallel = 2\ncython_c_in_temp = 1\n"
        )
        changes = {"DIST_EXTRA_CONFIG": str(extra)}
        cc = compiler()
        if cc is None:
            # The interpreter's own flags are for the compiler that built it; zig has few of them.
            cc = f"{shlex.quote(sys.executable)} -m ziglang cc -mcpu=baseline"
            sysconfig.get_config_vars().update(CFLAGS="-DNDEBUG -fwrapv", OPT="", LDFLAGS="")
            link = f"{cc} -shared"
            changes["ZIG_GLOBAL_CACHE_DIR"] = changes["ZIG_LOCAL_CACHE_DIR"] = directory
        else:
            link = os.environ.get("LDSHARED") or link_command(cc)
        wanted = os.environ.get("CFLAGS")
        # CFLAGS replaces the interpreter's own, so keep those.
        cflags = wanted or sysconfig.get_config_var("CFLAGS") or ""
        if not any(flag.startswith("-O") for flag in shlex.split(wanted or "")):
            cflags += " -O3"
        if name:
            cflags += " " + flags + " " + shlex.quote(f'-DSB_VARIANT="{name}"')
        if distributed and not any(flag.startswith("-g") for flag in shlex.split(wanted or flags)):
            cflags += " -g0"
            link += " -Wl,-s"
        if distributed:
            for path in (directory, os.getcwd()):
                cflags += " " + shlex.quote(f"-ffile-prefix-map={path}=.")
        before = dict(os.environ)
        os.environ.update(changes, CC=cc, LDSHARED=link, CFLAGS=cflags)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def get_requires_for_build_wheel(config_settings: Config = None) -> list[str]:
    if not sys.platform.startswith("linux"):
        sys.exit(f"shmbus runs on Linux only (pidfd, /dev/shm); this is {sys.platform}")
    required = build_meta.get_requires_for_build_wheel(config_settings)
    return required if compiler() else [*required, "ziglang>=0.13"]


get_requires_for_build_editable = get_requires_for_build_wheel
get_requires_for_build_sdist = build_meta.get_requires_for_build_sdist
prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable


def build_sdist(sdist_directory: str, config_settings: Config = None) -> str:
    name = str(build_meta.build_sdist(sdist_directory, config_settings))
    settle_sdist(Path(sdist_directory, name))
    return name


def build_wheel(
    wheel_directory: str, config_settings: Config = None, metadata_directory: str | None = None
) -> str:
    with build_environment(distributed=True):
        name = str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))
    settle_wheel(Path(wheel_directory, name))
    return name


def build_editable(
    wheel_directory: str, config_settings: Config = None, metadata_directory: str | None = None
) -> str:
    with build_environment(distributed=False):
        return str(build_meta.build_editable(wheel_directory, config_settings, metadata_directory))

"""What `.ci/run` says of its steps is true. Here it has the tests' steps instead of its own."""

import os
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OWN_SHM = subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def ci(directory: Path, steps: str, *names: str) -> tuple[int, list[str]]:
    """How the script ends with these steps, and the lines that it prints."""
    head, _, rest = (ROOT / ".ci/run").read_text().partition("# --- the steps ---")
    _, _, tail = rest.partition("# --- run them ---")
    script = directory / "checkout/.ci/run"
    script.parent.mkdir(parents=True)
    script.write_text(head + textwrap.dedent(steps) + "\n#" + tail)
    done = subprocess.run(
        ["bash", script, *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "SHMBUS_CI_SHM": "", "TMPDIR": str(directory)},
    )
    print(done.stdout)
    return done.returncode, done.stdout.splitlines()


def summary(lines: list[str]) -> list[list[str]]:
    """The summary's lines, each as its words without the seconds."""
    begin = next(at for at, line in enumerate(lines) if line.startswith("==> summary"))
    rows = [line.split() for line in lines[begin + 1 :] if " s" in line and "=" not in line]
    return [[*row[:2], *row[4:]] for row in rows]


def test_a_skipped_step_is_not_called_ok(tmp_path: Path) -> None:
    steps = """
        step_one() { skip "there is no such tool"; } # One
        step_two() { echo done; } # Two
        step_three() { note "half of it is not done"; } # Three
    """
    code, lines = ci(tmp_path, steps, "one", "two", "three")
    assert code == 0
    assert summary(lines) == [
        ["skipped", "one", "there", "is", "no", "such", "tool"],
        ["ok", "two"],
        ["ok", "three", "half", "of", "it", "is", "not", "done"],
    ]
    assert lines[-1] == "==> passed; skipped: one"


def test_a_failed_step_is_named_in_the_last_line(tmp_path: Path) -> None:
    steps = """
        step_one() { false; true; } # One
        step_two() { true; } # Two
        step_three() { skip "there is no such tool"; } # Three
    """
    code, lines = ci(tmp_path, steps, "one", "two", "three")
    assert code == 1
    assert [row[0] for row in summary(lines)] == ["FAILED", "ok", "skipped"]
    assert lines[-1] == "==> FAILED: one; skipped: three"


FAKE = """
    pytest() { # the second run, of what failed
        echo 'FAILED tests/test_a.py::test_one - nothing'
        echo '=== 1 failed, 2 deselected in 0.50s ==='
        return 1
    }
    first() {
        echo 'FAILED tests/test_a.py::test_one - nothing'
        echo '=== 1 failed, 2 passed in 7.10s (0:00:07) ==='
        return 1
    }
"""


def test_the_closing_lines_of_both_runs_are_kept_when_both_failed(tmp_path: Path) -> None:
    code, lines = ci(tmp_path, FAKE + "    step_test() { tested first; } # Tests", "test")
    assert code == 1
    assert lines[-5:] == [
        "test:",
        "=== 1 failed, 2 passed in 7.10s (0:00:07) ===",
        "test, what failed once more:",
        "=== 1 failed, 2 deselected in 0.50s ===",
        "==> FAILED: test",
    ]


def test_pytest_that_ends_without_a_closing_line_is_said_to(tmp_path: Path) -> None:
    crash = "    step_test() { tested bash -c 'echo collecting; kill -SEGV $$'; } # Tests"
    code, lines = ci(tmp_path, FAKE + crash, "test")
    assert code == 1
    assert lines[-3:] == [
        "test:",
        "no closing line of pytest, which ended with 139",
        "==> FAILED: test",
    ]


def test_what_passes_only_when_run_again_is_listed(tmp_path: Path) -> None:
    again = (
        "    pytest() { echo '=== 1 passed in 0.50s ==='; }\n    step_test() { tested first; } # T"
    )
    code, lines = ci(tmp_path, FAKE + again, "test")
    assert code == 0
    assert "tests/test_a.py::test_one" in lines
    assert summary(lines)[0][:6] == ["ok", "test", "1", "passed", "only", "when"]
    assert lines[-1] == "==> passed"


@pytest.mark.skipif(not OWN_SHM, reason="Linux permits no /dev/shm of the run's own here")
def test_what_a_step_leaves_counts_and_what_others_have_in_dev_shm_does_not(
    tmp_path: Path,
) -> None:
    foreign = f"/dev/shm/shmbus:{os.geteuid()}:foreign-{os.getpid()}:bus"
    ask, made, held = (tmp_path / name for name in ("ask", "made", "held"))
    os.mkfifo(ask)
    os.mkfifo(made)
    steps = f"""
        step_test() {{ echo >{ask}; cat {made}; }} # Meanwhile somebody else starts a bus
        step_stress() {{ # Leaves a name, and who holds it
            sleep 600 3>{foreign} >/dev/null 2>&1 &
            echo $! >{held}
        }}
    """
    with subprocess.Popen(["bash", "-c", 'cat "$1"; touch "$0"; echo >"$2"', foreign, ask, made]):
        try:
            code, lines = ci(tmp_path, steps, "test", "stress")
        finally:
            Path(foreign).unlink()
            os.kill(int(held.read_text()), signal.SIGKILL)
    assert code == 1
    assert summary(lines) == [["ok", "test"], ["FAILED", "stress"]]
    assert Path(foreign).name in lines
    (holder,) = (line for line in lines if line.startswith(f"{Path(foreign).name} is held by"))
    assert "sleep 600" in holder
    assert lines[-1] == "==> FAILED: stress"

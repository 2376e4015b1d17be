"""Our tests use the fixtures that our users get: `shmbus.testing`."""

import signal

import hypothesis
import pytest

# If a shell started us in the background, SIGINT is ignored, here and in every child.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The tests check order, never milliseconds: the machine may be busy.
hypothesis.settings.register_profile("shmbus", deadline=None)
hypothesis.settings.load_profile("shmbus")


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    # An editable install made before pyproject.toml named the plugin does not load it.
    if not pluginmanager.hasplugin("shmbus"):
        pluginmanager.import_plugin("shmbus.testing.fixtures")

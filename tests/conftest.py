"""Our tests use the fixtures that our users get: `shmbus.testing`."""

import pytest


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    # An editable install made before pyproject.toml named the plugin does not know of it.
    if not pluginmanager.hasplugin("shmbus"):
        pluginmanager.import_plugin("shmbus.testing")

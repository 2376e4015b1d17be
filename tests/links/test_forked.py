"""A host with a link that forks: the link is the parent's."""

from __future__ import annotations

import os

from shmbus import errors
from tests.links.stage import Stage


def test_a_forked_child_is_told_at_once_that_the_link_is_its_parent_s(stage: Stage) -> None:
    (site,) = stage.sites("berlin")
    link = site.join()
    child = os.fork()
    if not child:
        try:
            link.status()
        except errors.ForkedEndpoint as why:
            link.close()
            os._exit(0 if why.pid == os.getppid() else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert link.status().site == "berlin"

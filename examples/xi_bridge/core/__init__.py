"""A stand-in for XI's core: a small editor core in Python that speaks the same front-end protocol.

It is not XI. It holds text as a list of lines, knows neither word wrap nor languages, searches
within lines, and has one built-in plug-in. What it says and understands on its standard streams is
XI's own, so that a host and its front-ends need not know which one they talk to. Where XI ends at a
line that it does not understand, this one complains and goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path

COMMAND = [sys.executable, str(Path(__file__).parent)]
"""Starts it, from whatever directory."""

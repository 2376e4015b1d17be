"""What both sides of a bus agree on."""

from ringbuf import layout_text
from shmbus.shared import _kernel, layout

if _kernel.layout_hash() != layout.LAYOUT:
    raise ImportError(
        f"shmbus was compiled for layout {layout_text(_kernel.layout_hash())} of shared memory, and its "
        f"Python modules are of layout {layout_text(layout.LAYOUT)}: install it again (pip install -e .)"
    )

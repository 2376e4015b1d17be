"""What both sides of a bus agree on."""

from ringbuf import layout_text
from shmbus.shared import _kernel, layout

if _kernel.layout_hash() != layout.LAYOUT:
    compiled, ours = layout_text(_kernel.layout_hash()), layout_text(layout.LAYOUT)
    raise ImportError(
        f"shmbus was compiled for layout {compiled} of shared memory, its Python modules are "
        f"of layout {ours}: install it again (pip install, with -e in a checkout)"
    )

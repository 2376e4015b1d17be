"""The bus's native parts, as Python sees them."""

cdef extern from *:
    """
    #ifndef SB_VARIANT
    #define SB_VARIANT ""
    #endif
    """
    const char *SB_VARIANT


def build_info():
    """What was compiled: the `variant`, empty for an ordinary build."""
    return {"variant": SB_VARIANT.decode()}

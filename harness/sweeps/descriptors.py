"""How many members of a cohort can have their files open at once."""

from __future__ import annotations

EACH = 4  # a member's lock and its three tables
OWN = 64  # files of the process itself
MANY = 1 << 30


def most_members() -> int:
    """Largest number of members whose files fit within the hard limit on open files."""
    limits = _limits()
    return MANY if limits is None else max(1, (limits[1] - OWN) // EACH)


def make_room(members: int) -> None:
    """Raise the soft limit on open files, if the files of this many members need it."""
    limits = _limits()
    needed = OWN + EACH * members
    if limits is None or limits[0] >= needed:
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, limits[1]), hard))


def _limits() -> tuple[int, int] | None:
    """Return the soft and the hard limit on open files; None if the system has none (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = resource.RLIM_INFINITY
    return MANY if soft == endless else soft, MANY if hard == endless else hard

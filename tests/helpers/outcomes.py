"""How something ends that must not end with a traceback."""

from collections.abc import Callable

from utils.core.errors import InputError


def refusal(work: Callable[[], object]) -> str | None:
    """None if something succeeds; otherwise the one line that it is refused with."""
    try:
        work()
    except (InputError, SystemExit) as error:
        message = str(error)
    else:
        return None
    assert message.isprintable(), message
    assert 0 < len(message) <= 300, message
    return message

"""How a script ends."""

import errno

import pytest

from utils.core.errors import InputError, run_script


def raising(error: Exception, cause: Exception | None = None):
    def main():
        raise error from cause

    return main


def test_bad_input_is_one_line():
    with pytest.raises(SystemExit, match="^error: The file x is empty; give another.$"):
        run_script(raising(InputError("The file x is empty; give another.")))


@pytest.mark.parametrize("cause", [None, OSError(errno.ENOSPC, "No space left on device")])
def test_a_full_disk_is_one_line_whoever_reports_it(cause):
    error = (
        RuntimeError("unexpected pos 40896 vs 40784") if cause else OSError(errno.ENOSPC, "No space left on device")
    )
    with pytest.raises(SystemExit, match="no space left on the disk; make room"):
        run_script(raising(error, cause))


def test_faults_of_the_program_keep_their_traceback():
    with pytest.raises(KeyError):
        run_script(raising(KeyError("x")))

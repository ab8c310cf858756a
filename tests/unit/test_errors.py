"""What a user can cause has one base and an exit code; everything else is a bug and has none."""

from __future__ import annotations

import errno

import pytest

import fmjax
import weights_conversion as wc
from fmjax.errors import DataError, FilesError, UsageError, exit_code
from weights_conversion.report import Misfits

CODES = [
    (UsageError("a flag"), 2),
    (DataError("a picture"), 3),
    (wc.CheckpointError("a file"), 4),
    (wc.MisfitError(Misfits("timm")), 4),
    (FilesError("a folder"), 5),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_what_a_user_can_cause_is_caught_as_one_and_has_an_exit_code(error, code):
    with pytest.raises(fmjax.FmjaxError):
        raise error
    assert exit_code(error) == code
    assert isinstance(error, (ValueError, OSError))


def test_the_operating_systems_errors_have_a_code_and_bugs_have_none():
    assert exit_code(OSError(errno.ENOSPC, "No space left on device")) == 5
    assert exit_code(ValueError("a bug")) is None
    assert not isinstance(ValueError("a bug"), fmjax.FmjaxError)


def test_an_error_about_a_place_keeps_the_number_and_the_name_of_the_system():
    error = FilesError(errno.EROFS, "Read-only file system", "out.safetensors")
    assert (error.errno, error.filename) == (errno.EROFS, "out.safetensors")

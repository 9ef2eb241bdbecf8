"""Standard-library helpers that every part of the project may use."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user can put right: one line that says what is wrong and what to do.

    The command lines print it without a traceback and exit with code 2.
    """

"""The libraries below, silent while they load and save: what they have to tell is in the errors they raise."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Turn off progress bars, notices and deprecation warnings of diffusers and transformers, and on again after."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    levels = [
        (log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in (diffusers_logging, transformers_logging)
    ]
    for log, _, _ in levels:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for log, verbosity, bar in levels:
            log.set_verbosity(verbosity)
            if bar:
                log.enable_progress_bar()

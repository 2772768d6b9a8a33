"""`latentdrift reader-study serve`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result

DESCRIPTION = """Ask readers in their browsers: each logs in with a code, and goes on where they stopped.

Every answer is kept at once in answers.sqlite. The server does not know which image is real. It listens on this machine
alone unless --host says otherwise; Ctrl-C ends it."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Ask readers in their browsers."""

    study: Path
    """Folder that `latentdrift reader-study build` made."""
    answers: Path | None = None
    """SQLite file of the answers; answers.sqlite in the folder by default."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every network of this machine."""
    public_name: str | None = None
    """Host name under which a server with HTTPS in front is opened, such as study.example.org."""
    port: int = 8347
    """Port; 0 takes a free one."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Say only where the page is."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(ServeOptions, arguments, "reader-study serve", DESCRIPTION)
    from latentdrift.studio.reader_study.answers import Answers
    from latentdrift.studio.reader_study.server import LOOPBACK, run_server
    from latentdrift.studio.reader_study.study import ANSWERS, read_study

    study = read_study(options.study)
    answers = Answers(options.answers or options.study / ANSWERS)
    warnings = []
    if options.host not in LOOPBACK:
        warnings.append("codes and images go over the network unencrypted: use HTTPS in front, or a trusted network")

    def ready(address: str) -> None:
        done = {one.name: len(answers.of(one.name)) for one in study.readers}
        told = [f"{one.name}: code {one.code}, {done[one.name]} of {len(one.order)} answered" for one in study.readers]
        facts = {"address": address, "answers": answers.path, "readers": told, "warnings": warnings}
        print_result({"address": address} if options.quiet and not options.json else facts, options.json)
        sys.stdout.flush()

    run_server(study, answers, options.host, options.port, ready, public_name=options.public_name)
    return 0

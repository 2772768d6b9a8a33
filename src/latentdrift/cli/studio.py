"""`latentdrift studio`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result
from latentdrift.errors import ConfigurationError

DESCRIPTION = """Open the web page: edit scans, train, search, evaluate and look at runs in a browser.

Drop a PNG, JPEG, DICOM or NIfTI file, say what it shows and what it should show, and see source, counterfactual and
difference side by side; export it as PNG, DICOM, NIfTI and JSON. The embedded model works at once, without a GPU. The
page listens on this machine alone unless --host is given. Nothing is sent anywhere."""

PASSWORD = "LATENTDRIFT_STUDIO_PASSWORD"


@dataclass(frozen=True, kw_only=True)
class StudioOptions:
    """Open the web page."""

    workspace: Path = Path(".")
    """Folder with models, cohorts and runs; the page reads nothing outside it but what is uploaded."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for all of this machine's. Set a password then."""
    public_name: str | None = None
    """Host name under which a proxy with HTTPS in front is opened, such as studio.example.org."""
    port: int = 7860
    """Port; 0 for any that is free."""
    password: str | None = None
    """Asked for by the page. Others on this machine can read it in the list of processes: better --password-file or the
    variable LATENTDRIFT_STUDIO_PASSWORD."""
    password_file: Path | None = None
    """File whose first line is the password."""
    max_upload: int = 500
    """Largest uploaded file, MB."""
    device: str | None = None
    """cpu, cuda, mps; a GPU by default where there is one."""
    json: bool = False
    """Print the address as JSON."""
    quiet: bool = False
    """Print the address alone."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(StudioOptions, arguments, "studio", DESCRIPTION)
    password = chosen_password(options)
    from latentdrift.studio.server import ServerConfig, serve

    config = ServerConfig(
        workspace=options.workspace,
        host=options.host,
        port=options.port,
        password=password,
        max_upload_mb=options.max_upload,
        device=options.device,
        public_name=options.public_name,
    )
    if not config.is_local and password is None:
        print(
            f"latentdrift studio: everybody who reaches {options.host} can use this page and see what is uploaded. Set "
            "--password-file.",
            file=sys.stderr,
        )

    def ready(address: str) -> None:
        if options.json or options.quiet:
            print_result({"address": address}, options.json)
            sys.stdout.flush()
            return
        print(f"latentdrift studio: {address}   (Ctrl-C ends it; synthetic images, not for diagnosis)", flush=True)

    serve(config, ready)
    return 0


def chosen_password(options: StudioOptions) -> str | None:
    """Return the password of the flag, the file or the environment, in this order; None where there is none.

    Raises:
        ConfigurationError: a file that cannot be read, is no text or is empty.
    """
    if options.password is not None:
        return options.password
    if options.password_file is not None:
        try:
            lines = options.password_file.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ConfigurationError(f"{options.password_file} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(
                f"{options.password_file} is not UTF-8. Save the password as plain text."
            ) from error
        if not lines or not lines[0].strip():
            raise ConfigurationError(f"{options.password_file} is empty. Write the password into its first line.")
        return lines[0].strip()
    return os.environ.get(PASSWORD) or None

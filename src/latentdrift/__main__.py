"""`python -m latentdrift` is the command `latentdrift`."""

import sys

from latentdrift.cli.__main__ import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m poolkit``: the command."""

import sys

from poolkit.cli import main

if __name__ == "__main__":
    sys.exit(main())

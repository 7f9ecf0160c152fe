"""`python -m codeczoo` is the same as `codeczoo`."""

import sys

from codeczoo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

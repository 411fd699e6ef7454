"""`python -m agent` is `trimtab`."""

import sys

from agent.cli import main

sys.exit(main())

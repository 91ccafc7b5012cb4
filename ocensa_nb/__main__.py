"""`python -m ocensa_nb VERB`."""

import sys

from ocensa_nb.cli import main

sys.exit(main())

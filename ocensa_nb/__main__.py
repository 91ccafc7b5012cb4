"""`python -m ocensa_nb VERB`."""

import sys

from ocensa_nb import startup

startup.handle_interrupts()
startup.require_utf8()

from ocensa_nb.cli import main  # noqa: E402 (an interrupt is handled from here on)

sys.exit(startup.run(main))

"""`python -m ocensa_nb VERB`."""

from ocensa_nb.cli import startup

startup.handle_interrupts()
startup.require_utf8()

from ocensa_nb.cli.main import main  # noqa: E402 (an interrupt is handled from here on)

startup.leave(startup.run(main))

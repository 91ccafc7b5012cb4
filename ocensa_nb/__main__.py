"""`python -m ocensa_nb VERB`, and the command `ocensa VERB` of the installed package."""

from typing import NoReturn

from ocensa_nb.cli import launch


def main() -> NoReturn:
    launch.handle_interrupts()
    launch.require_utf8()
    launch.watch_launcher()
    from ocensa_nb.cli.main import main as run_verb  # an interrupt is handled from here on

    launch.leave(launch.run(run_verb))


if __name__ == "__main__":
    main()

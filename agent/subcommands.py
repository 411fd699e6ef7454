"""A command line as a table of name -> module, loaded only when it is called.

Each module has `HELP` (one line), `EXAMPLES` (text), `add_arguments(parser)` and
`run(arguments) -> exit code`. Errors of the tree become one line and their exit code.
"""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence

from agent.errors import EXIT_CODES, TrimtabError
from agent.version import __version__


def main(
    program: str, description: str, table: Mapping[str, tuple[str, str]], argv: Sequence[str] | None
) -> int:
    """Run one command of `table` (name -> (module, one line of help)); return its exit code."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="exit codes: " + ", ".join(f"{code} {text}" for code, text in EXIT_CODES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in words if word in table), None)
    for name, (module_name, line) in table.items():
        if name != chosen:
            commands.add_parser(name, help=line)
            continue
        module = importlib.import_module(module_name)
        module.add_arguments(
            commands.add_parser(
                name,
                help=line,
                description=module.__doc__,
                epilog=module.EXAMPLES,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    arguments = parser.parse_args(words)
    try:
        return int(importlib.import_module(table[arguments.command][0]).run(arguments))
    except TrimtabError as error:
        sys.stderr.write(f"{program} {arguments.command}: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(f"{program} {arguments.command}: stopped\n")
        return 130

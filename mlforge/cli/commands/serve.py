"""`mlforge serve`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlforge.cli.command import Command
from mlforge.cli.options import definitions_option, port, served_definitions_of, workers_url
from mlforge.cli.output import note


def _configure(parser: argparse.ArgumentParser) -> None:
    definitions_option(parser)
    parser.add_argument(
        "--port", type=port, default=8750, metavar="N", help="0 takes a free one (default: 8750)"
    )
    parser.add_argument(
        "--host",
        type=_named,
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen (default: 127.0.0.1, this machine alone)",
    )
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument(
        "--keys",
        type=_named,
        metavar="FILE",
        help="API keys that callers need (default: $MLFORGE_KEYS, else none)",
    )


def _named(text: str) -> str:
    """The text, which an unset variable of a shell leaves empty: that would open the server to everybody."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; is a variable of the command line unset?")
    return text


def serve(args: argparse.Namespace) -> int:
    """Answer over HTTP until SIGTERM or Ctrl-C; the first line on stdout is the URL."""
    from mlforge.serve import server

    server.check_extra()
    definitions = served_definitions_of(args)
    try:
        with server.listening(args.host, args.port, args.fd) as listener:
            host, number = listener.getsockname()[:2]
            place = f"[{host}]" if ":" in host else host
            keys = server.keys_file() if args.keys is None else Path(args.keys)
            callers = "callers need no key" if keys is None else f"callers need a key of {keys}"
            note(f"serving {definitions.name} at http://{place}:{number}; {callers}")
            server.serve(definitions, listener, keys, workers_url(args))
    finally:
        definitions.close()
    return 0


COMMANDS = (
    Command(
        "serve",
        "answer over HTTP with current values of services and features",
        _configure,
        serve,
        "mlforge serve\nmlforge serve --port 8080 --definitions shop/definitions.py",
        "The online store is that of the definitions, else the one at REDIS_URL, else that of a running `up`. "
        "Definitions are those of the start. Needs the extra 'serve'.",
    ),
)

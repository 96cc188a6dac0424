"""`mlforge serve`."""

from __future__ import annotations

import argparse
import os
import re
from functools import partial
from pathlib import Path

from mlforge.cli.command import Command
from mlforge.cli.options import definitions_option, port, served_definitions_of, workers_url
from mlforge.cli.output import note

ROOT_PATH = "MLFORGE_ROOT_PATH"
"""Under which the environment has the path of a proxy: of a unit or a container, whose command is written down elsewhere."""


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
    parser.add_argument(
        "--root-path",
        type=_root_path,
        default=os.environ.get(ROOT_PATH) or None,
        metavar="PATH",
        help=f"the path below which a proxy has this server answer, and which it takes off, as in /shop (default: ${ROOT_PATH}, else none)",
    )
    parser.add_argument(
        "--tls-cert",
        type=_named,
        metavar="FILE",
        help="answer over TLS with this certificate, PEM, and those that vouch for it",
    )
    parser.add_argument("--tls-key", type=_named, metavar="FILE", help="the certificate's key, PEM")
    parser.add_argument(
        "--client-ca",
        type=_named,
        metavar="FILE",
        help="take callers alone whose certificates this authority vouches for, PEM",
    )


def _root_path(text: str) -> str:
    """A path that begins with a slash and ends with none, as proxies name it."""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no path of a proxy; write it with a slash before it and none behind it, as in /shop"
        )
    return text


def _named(text: str) -> str:
    """The text, which an unset variable of a shell leaves empty: that would open the server to everybody."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; is a variable of the command line unset?")
    return text


def serve(args: argparse.Namespace) -> int:
    """Answer over HTTP until SIGTERM or Ctrl-C; the first line on stdout is the URL."""
    from mlforge.serve import server
    from mlforge.serve.tls import tls_of

    server.check_extra()
    tls = tls_of(args.tls_cert, args.tls_key, args.client_ca)
    context = None if tls is None else tls.context()
    definitions = served_definitions_of(args)
    try:
        with server.listening(args.host, args.port, args.fd) as listener:
            host, number = listener.getsockname()[:2]
            place = f"[{host}]" if ":" in host else host
            keys = server.keys_file() if args.keys is None else Path(args.keys)
            scheme = "http" if tls is None else "https"
            callers = "callers need no key" if keys is None else f"callers need a key of {keys}"
            if tls is not None and tls.clients is not None:
                callers = f"{callers}, and a certificate that {tls.clients} vouches for"
            line = f"serving {definitions.name} at {scheme}://{place}:{number}; {callers}"
            announce = partial(note, line)
            server.serve(
                definitions,
                listener,
                announce,
                keys,
                workers_url(args),
                context,
                args.root_path or "",
            )
    finally:
        definitions.close()
    return 0


COMMANDS = (
    Command(
        "serve",
        "answer over HTTP with current values of services and features",
        _configure,
        serve,
        "mlforge serve\nmlforge serve --port 8080 --definitions shop/definitions.py\n"
        "mlforge serve --host 0.0.0.0 --keys keys.toml --tls-cert tls.crt --tls-key tls.key",
        "The online store is that of the definitions, else the one at REDIS_URL, else that of a running `up`. "
        "Definitions are those of the start. Needs the extra 'serve'.",
    ),
)

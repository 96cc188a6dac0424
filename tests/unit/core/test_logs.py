"""Where the library's logs go."""

import sys
from collections.abc import Callable, Iterator

import pytest
import structlog

from mlforge.cli.logs import configure
from mlforge.core.logs import get_logger


@pytest.fixture(autouse=True)
def _unconfigured() -> Iterator[None]:
    before = structlog.get_config()
    was_configured = structlog.is_configured()
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    if was_configured:
        structlog.configure(**before)


def read_with(password: str) -> None:
    raise ValueError("no answer")


@pytest.mark.parametrize("configured", [lambda: None, configure], ids=["a script", "a command"])
def test_tracebacks_show_no_values_of_variables(
    configured: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    configured()
    try:
        read_with("a" + "bracadabra")
    except ValueError as error:
        get_logger("mlforge.test").error("a request failed", exc_info=error)
    told = capsys.readouterr().err
    assert "in read_with" in told
    assert "ValueError: no answer" in told
    assert "abracadabra" not in told


@pytest.mark.parametrize("method", ["debug", "info", "warning", "error", "critical"])
def test_a_script_that_configures_nothing_gets_logs_on_stderr_alone(
    method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = get_logger("mlforge.test").bind(feature="spend")
    getattr(log, method)("published", version="1.0.0")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "published" in captured.err
    assert "spend" in captured.err


def test_a_program_decides_where_logs_go_also_after_the_first_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = get_logger("mlforge.test")
    log.info("before")
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
    log.info("after")
    captured = capsys.readouterr()
    assert "before" in captured.err
    assert captured.out == '{"event": "after"}\n'


def test_the_standard_librarys_logging_gets_the_loggers_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    with caplog.at_level("INFO"):
        get_logger("mlforge.test").info("published")
    assert [(record.name, record.message) for record in caplog.records] == [
        ("mlforge.test", "published")
    ]

"""A run's log is bounded, however long the run lasts."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mlforge.errors import Unavailable
from worker.service.log_file import LogFile


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_a_log_that_grows_too_large_is_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "up.log", most_bytes=20, kept=2)
    for number in range(8):
        log.write(f"line {number}..\n")
    log.close()
    assert texts(tmp_path) == {
        "up.log": "line 6..\nline 7..\n",
        "up.log.1": "line 4..\nline 5..\n",
        "up.log.2": "line 2..\nline 3..\n",
    }


def test_the_log_of_the_run_before_is_put_aside(tmp_path: Path) -> None:
    for run in ("first", "second"):
        log = LogFile(tmp_path / "up.log")
        log.write(f"{run}\n")
        log.close()
    assert texts(tmp_path) == {"up.log": "second\n", "up.log.1": "first\n"}


def test_only_its_owner_can_read_a_log_also_after_it_was_put_aside(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "up.log", most_bytes=1)
    log.write("a\n")
    log.write("b\n")
    log.close()
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600, 0o600]


def test_a_line_longer_than_a_log_is_written_whole(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "up.log", most_bytes=4)
    log.write("a long line\n")
    log.close()
    assert texts(tmp_path) == {"up.log": "a long line\n"}


def test_no_line_of_several_threads_is_lost_or_torn(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "up.log", most_bytes=500, kept=100)

    def write(name: str) -> None:
        for number in range(100):
            log.write(f"{name} {number}\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    lines = [line for text in texts(tmp_path).values() for line in text.splitlines()]
    assert sorted(lines) == sorted(f"{name} {number}" for name in "abc" for number in range(100))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_told_with_the_logs_path_and_does_not_fail_the_end(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "up.log")
    log._file.close()
    log._file = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115 - the log closes it
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"up\.log: No space left on device; lines are lost"):
            log.write("a line\n")
    log.close()
    assert log._file.closed

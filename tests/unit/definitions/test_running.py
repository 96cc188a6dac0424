"""How a command finds the server of the `mlforge up` that runs for its project."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from mlforge.definitions.environment import redis_url
from mlforge.definitions.running import FOLDER, NOTE, running_url
from mlforge.errors import MlforgeError

URL = "unix:///tmp/somewhere.sock"


def note(folder: Path, content: object) -> None:
    path = folder / FOLDER / NOTE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize("target", [None, "definitions.py", "definitions.py:defs", "."])
def test_a_running_up_is_found_from_its_note(tmp_path: Path, target: str | None) -> None:
    note(tmp_path, {"pid": os.getpid(), "url": URL})
    assert running_url(target, tmp_path) == URL


def test_the_note_lies_beside_the_definitions_file_not_where_the_command_runs(
    tmp_path: Path,
) -> None:
    note(tmp_path / "shop", {"pid": os.getpid(), "url": URL})
    assert running_url("shop/definitions.py", tmp_path) == URL
    assert running_url(None, tmp_path) is None


def test_the_server_of_an_up_of_another_profile_is_not_taken(tmp_path: Path) -> None:
    note(tmp_path, {"pid": os.getpid(), "url": URL, "profile": "prod"})
    found = [running_url(None, tmp_path, profile) for profile in ("prod", "dev", None)]
    assert found == [URL, None, None]


def test_the_note_of_an_up_that_ended_counts_for_nothing(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    note(tmp_path, {"pid": ended.pid, "url": URL})
    assert running_url(None, tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[" * 200_000,
        "null",
        [],
        {"url": URL},
        {"pid": os.getpid()},
        {"pid": os.getpid(), "url": 3},
        {"pid": "x", "url": URL},
        {"pid": 0, "url": URL},
        {"pid": -1, "url": URL},
        {"pid": 1 << 70, "url": URL},
    ],
    ids=lambda content: str(content).replace(str(os.getpid()), "ours")[:30],
)
def test_a_note_that_is_none_counts_for_nothing(tmp_path: Path, content: object) -> None:
    note(tmp_path, content)
    assert running_url(None, tmp_path) is None


def test_a_file_that_should_hold_a_url_and_holds_none_is_told(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"{URL}\n")
    assert redis_url({"REDIS_URL_FILE": str(file)}) == URL
    file.write_text("\n")
    with pytest.raises(MlforgeError, match="is empty; name a file that holds the URL alone"):
        redis_url({"REDIS_URL_FILE": str(file)})

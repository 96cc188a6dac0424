"""How .ci/advisories.py judges what the advisory service answers; the service itself is not asked here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / ".ci" / "advisories.py"


def judged(folder: Path, *answers: Any) -> subprocess.CompletedProcess[str]:
    """Run it with a program in place of pip-audit that gives these answers in turn; None is an outage."""
    stand_in = folder / "pip-audit"
    (folder / "answers.json").write_text(json.dumps(answers))
    stand_in.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\nfrom pathlib import Path\n"
        f"left = Path({str(folder / 'answers.json')!r})\n"
        "answer, *rest = json.loads(left.read_text())\n"
        "left.write_text(json.dumps(rest))\n"
        "if answer is None: sys.exit('ConnectionError: no route')\n"
        "vulns = [{'id': bug, 'fix_versions': ['9']} for bug in answer]\n"
        "found = {'dependencies': [{'name': 'it', 'version': '1', 'vulns': vulns}]}\n"
        "Path(sys.argv[sys.argv.index('-o') + 1]).write_text(json.dumps(found))\n"
        "sys.exit(bool(vulns))\n"
    )
    stand_in.chmod(0o755)
    command = [sys.executable, str(SCRIPT), sys.executable, str(stand_in)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_known_vulnerability_fails_the_run_and_is_named(tmp_path: Path) -> None:
    done = judged(tmp_path, ["OLD-1"], ["NEW-1"])
    assert (done.returncode, done.stdout) == (1, "it 1: NEW-1 (9)\n")


@pytest.mark.slow
def test_none_known_passes(tmp_path: Path) -> None:
    done = judged(tmp_path, ["OLD-1"], [])
    assert done.returncode == 0
    assert done.stdout.startswith("none known in ")


@pytest.mark.slow
@pytest.mark.parametrize("answers", [(None,), (["OLD-1"], None), ([],)])
def test_a_service_that_is_away_or_knows_nothing_fails_no_run_but_is_told(
    tmp_path: Path, answers: tuple[Any, ...]
) -> None:
    done = judged(tmp_path, *answers)
    assert done.returncode == 0
    assert done.stdout.startswith("!!! NOT CHECKED")

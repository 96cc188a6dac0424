"""Are there known vulnerabilities in what an environment has installed? `advisories.py PYTHON PIP_AUDIT`.

Exit code 1 for a vulnerability that is known. An advisory service that cannot be reached, or that knows of
nothing at all, fails no run, for it says nothing of this project; but it is said, loudly.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

CANARY = "jinja2==3.1.2"  # known to be vulnerable: a service that finds nothing there tells nothing


def advisories(pip_audit: str, requirements: str) -> list[str] | None:
    """Each vulnerability in words; None if nobody could be asked."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, found = Path(folder, "requirements.txt"), Path(folder, "found.json")
        wanted.write_text(requirements)
        command = [pip_audit, "-r", str(wanted), "--no-deps", "--disable-pip"]
        command += ["--progress-spinner", "off", "--timeout", "15", "-f", "json", "-o", str(found)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not found.exists() and done.returncode != 0:
            print(done.stderr.strip().splitlines()[-1:], file=sys.stderr)
            return None
        document = json.loads(found.read_text())
    return [
        f"{one['name']} {one['version']}: {bug['id']} ({', '.join(bug['fix_versions']) or 'no fix'})"
        for one in document["dependencies"]
        for bug in one.get("vulns", ())
    ]


def main(python: str, pip_audit: str) -> int:
    """Ask, and tell."""
    freeze = [python, "-m", "pip", "freeze", "--exclude-editable"]
    installed = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout
    known = advisories(pip_audit, CANARY)
    if not known:
        why = (
            "could not be reached"
            if known is None
            else "knows nothing, not even of old vulnerabilities"
        )
        print(
            f"!!! NOT CHECKED: the advisory service {why}; dependencies are not audited in this run"
        )
        return 0
    found = advisories(pip_audit, installed)
    if found is None:
        print(
            "!!! NOT CHECKED: the advisory service went away; dependencies are not audited in this run"
        )
        return 0
    print("\n".join(found) or f"none known in {len(installed.splitlines())} packages")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

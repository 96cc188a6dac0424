"""Where things lie in a checkout."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
"""Real event sets, where somebody has laid them beside the checkout."""

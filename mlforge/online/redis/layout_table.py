"""The layouts of rows that there are, by the names that users write."""

from __future__ import annotations

from collections.abc import Mapping

from mlforge.online.redis.json_layout import JsonLayout
from mlforge.online.redis.layouts import RowLayout
from mlforge.online.redis.packed_layout import PackedLayout

LAYOUTS: Mapping[str, type[RowLayout]] = {
    layout.name: layout for layout in (JsonLayout, PackedLayout)
}

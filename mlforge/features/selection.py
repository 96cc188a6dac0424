"""Selections: which columns of a feature a request asks for, under which prefix, and by which keys."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mlforge.core.arguments import text
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.signatures import named_methods
from mlforge.core.values import check_name
from mlforge.errors import DefinitionError, did_you_mean


@named_methods
@dataclass(frozen=True, slots=True)
class Selection:
    """A feature as a request uses it; `user_spend["amount__sum__7d"]` and `user_spend.as_("buyer")` make some.

    columns: the value columns, in order; empty for all. prefix: of their names in the answer; empty for the
    feature's name. renamed: pairs of a key and the name that it has in spines and entities.
    """

    spec: FeatureSpec = field(repr=False)
    columns: tuple[str, ...] = ()
    prefix: str = ""
    renamed: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        """As it is written, with all columns where none is named."""
        columns = f"[{', '.join(map(repr, self.columns))}]" if self.columns else ""
        keys = "".join(f", {key}={name!r}" for key, name in self.renamed)
        renamed = f".as_({self.prefix!r}{keys})" if self.prefix or keys else ""
        return f"{self.feature}{columns}{renamed}"

    @property
    def feature(self) -> str:
        """The feature's name."""
        return self.spec.name

    def __getitem__(self, columns: str | tuple[str, ...]) -> Selection:
        """Some of the value columns; DefinitionError for unknown names, as far as columns do not follow from data."""
        names = columns if isinstance(columns, tuple) else (columns,)
        works = f'write {self.feature}["amount__sum__7d"]'
        if not names:
            raise DefinitionError(f"{self.feature}: no column is named; {works}")
        for name in names:
            text(name, f"{self.feature}: a column", works)
            self._check_column(name)
        if len(set(names)) < len(names):
            raise DefinitionError(f"{self.feature}: {list(names)} names a column twice")
        return replace(self, columns=names)

    def as_(self, prefix: str, /, **keys: str) -> Selection:
        """The same columns under another prefix, keys under other names; DefinitionError for an unknown key."""
        check_name(prefix, f"{self.feature}: as_: prefix")
        for key, name in keys.items():
            if key not in self.spec.keys:
                raise DefinitionError(
                    f"{self.feature}: as_: no key {key!r}; {did_you_mean(key, self.spec.keys)}"
                )
            text(name, f"{self.feature}: as_: the name of {key!r}", f'write {key}="buyer_id"')
        renamed = tuple((key, name) for key, name in keys.items() if key != name)
        return replace(self, prefix=prefix, renamed=renamed)

    def _check_column(self, name: str) -> None:
        known = self.spec.output_names
        if self.spec.columns and name not in known:
            raise DefinitionError(
                f"{self.feature}: no column {name!r}; {did_you_mean(name, known)}"
            )

"""The graph of a project, the search over its entries, and its chart."""

from __future__ import annotations

import pytest

from mlforge.errors import DefinitionError
from mlforge.registry.entries import ColumnEntry, ServiceEntry
from mlforge.registry.graph import FEATURE, SERVICE, SET, SOURCE, Graph, Node
from mlforge.registry.mermaid import flow_chart
from mlforge.registry.search import search

FILES, SPEND, PEAKS = Node(SOURCE, "in/"), Node(FEATURE, "spend"), Node(FEATURE, "peaks")
CHECKOUT, TRAIN, OTHER = Node(SERVICE, "checkout"), Node(SET, "/train"), Node(FEATURE, "other")
GRAPH = Graph.of(
    [SPEND, PEAKS, OTHER],
    [(FILES, SPEND), (SPEND, PEAKS), (SPEND, CHECKOUT), (PEAKS, CHECKOUT), (PEAKS, TRAIN)],
)


def test_what_a_node_is_made_from_and_who_uses_it_come_nearest_first() -> None:
    assert GRAPH.upstream(CHECKOUT) == [SPEND, PEAKS, FILES]
    assert GRAPH.downstream(FILES) == [SPEND, PEAKS, CHECKOUT, TRAIN]
    assert (GRAPH.made_from(CHECKOUT), GRAPH.users(PEAKS)) == ([SPEND, PEAKS], [CHECKOUT, TRAIN])
    assert (GRAPH.upstream(OTHER), GRAPH.downstream(OTHER)) == ([], [])
    assert GRAPH.roots == [OTHER, FILES]


def test_around_a_node_lie_no_users_of_what_it_is_made_from() -> None:
    around = GRAPH.around(TRAIN)
    assert set(around.nodes) == {FILES, SPEND, PEAKS, TRAIN}
    assert around.edges == ((FILES, SPEND), (SPEND, PEAKS), (PEAKS, TRAIN))
    assert GRAPH.around(OTHER) == Graph((OTHER,), ())


def test_a_name_may_need_its_kind_before_it() -> None:
    twice = Graph.of([*GRAPH.nodes, Node(SERVICE, "spend")], GRAPH.edges)
    assert GRAPH.named("spend") == twice.named("feature:spend") == SPEND
    with pytest.raises(
        DefinitionError, match="names 2 things; write feature:spend or service:spend"
    ):
        twice.named("spend")
    with pytest.raises(
        DefinitionError, match="no feature or service 'spent'; did you mean 'spend'"
    ):
        twice.named("spent", (FEATURE, SERVICE))
    with pytest.raises(DefinitionError, match="no feature or service 'in/'"):
        GRAPH.named("in/", (FEATURE, SERVICE))


def test_a_chart_has_each_node_and_edge_once_and_no_letter_that_ends_a_label() -> None:
    odd = Node(SOURCE, 'a"]\n<b>#;&/*.parquet')
    chart = flow_chart(Graph.of([], [(odd, SPEND)]), {"spend": "1.0.2"})
    assert chart.splitlines() == [
        "flowchart LR",
        '  n0[("a#quot;] #lt;b#gt;#35;;#amp;/*.parquet")]',
        '  n1["spend<br>1.0.2"]',
        "  n0 --> n1",
    ]


def service(
    name: str, *columns: ColumnEntry, owner: str = "", description: str = ""
) -> ServiceEntry:
    keys, nothing = ("user_id",), ()
    return ServiceEntry(
        name, owner, description, nothing, nothing, keys, nothing, columns, True, {}, None, nothing
    )


def test_a_search_wants_every_word_somewhere_and_puts_names_first() -> None:
    weekly = service("weekly", ColumnEntry("a", None, description="Money SPENT"))
    spend = service("user_spend", owner="Risk")
    told = service("other", description="what is spent")
    entries = [told, weekly, spend]
    assert [hit.entry.name for hit in search(entries, "SPEN")] == ["user_spend", "weekly", "other"]
    assert [hit.entry.name for hit in search(entries, "risk user_id")] == ["user_spend"]
    assert [hit.entry.name for hit in search([spend, service("spend")], "spend")] == [
        "spend",
        "user_spend",
    ]
    [hit] = search([weekly], "money")
    assert [(match.field, match.text) for match in hit.matches] == [("column", "a: Money SPENT")]
    assert search(entries, "risk weekly") == []

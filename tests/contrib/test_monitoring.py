"""Dashboard, alerts and scrape configuration ask for metrics and labels that are exported, in PromQL that is good."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpustack.metrics.registry import METRICS, Metric, MetricKind
from tests.needs import requires

HERE = Path(__file__).resolve().parent.parent.parent / "contrib" / "monitoring"
RULES, CONFIG, DASHBOARD = (
    HERE / "gpustack.rules.yml",
    HERE / "prometheus.yml",
    HERE / "grafana-dashboard.json",
)
OF_SCRAPING = {"job", "instance", "le"}
GRAFANA = {"$__rate_interval": "5m", "$model": ".*", "$worker": ".*"}

EXPORTED: dict[str, Metric] = {
    name: metric
    for metric in METRICS
    for name in (
        [f"{metric.name}_{end}" for end in ("bucket", "count", "sum")]
        if metric.kind is MetricKind.HISTOGRAM
        else [metric.name]
    )
}


def panels() -> list[dict[str, Any]]:
    return [p for p in json.loads(DASHBOARD.read_text())["panels"] if p["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            name, label = re.fullmatch(r"label_values\((\S+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
            yield f"${variable['name']}", f"count by ({label}) ({name})"


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_what_is_asked_for_is_exported(where: str, expression: str) -> None:
    names = set(re.findall(r"(?:gpustack:|process_)[a-z0-9_]+", expression))
    assert names <= EXPORTED.keys()
    assert names or expression.startswith("up{")
    known = OF_SCRAPING | {label for name in names for label in EXPORTED[name].labels}
    grouped = [
        label.strip() for found in re.findall(r"by \(([^)]*)\)", expression) for label in found.split(",")
    ]
    assert set(grouped) <= known
    for name, selected in re.findall(r"([a-z_:0-9]+)\{([^}]*)\}", expression):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selected))
        own = set() if name == "up" else set(EXPORTED[name].labels)
        assert labels <= own | OF_SCRAPING


def test_labels_in_what_people_read_are_there() -> None:
    for rule in rules():
        names = re.findall(r"(?:gpustack:|process_)[a-z0-9_]+", rule["expr"])
        known = OF_SCRAPING | {label for name in names for label in EXPORTED[name].labels}
        said = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", said)) <= known, rule["alert"]
    for panel in panels():
        for target in panel["targets"]:
            names = re.findall(r"(?:gpustack:|process_)[a-z0-9_]+", target["expr"])
            known = OF_SCRAPING | {label for name in names for label in EXPORTED[name].labels}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= known, panel["title"]


def test_panels_have_a_place_each_and_stand_on_no_other() -> None:
    taken: set[tuple[int, int]] = set()
    everything = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for panel in everything:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_prometheus_takes_rules_and_configuration(tmp_path: Path) -> None:
    promtool = requires("promtool", apt="prometheus")
    assert _run(promtool, "check", "rules", "--lint=all", str(RULES)) == 0
    assert _run(promtool, "check", "config", str(CONFIG)) == 0


def test_every_query_of_the_dashboard_is_good(tmp_path: Path) -> None:
    promtool = requires("promtool", apt="prometheus")
    made = []
    for number, (_, expression) in enumerate(expressions()):
        for name, stands_for in GRAFANA.items():
            expression = expression.replace(name, stands_for)
        made.append({"record": f"query:{number}", "expr": expression})
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": made}]}))
    assert _run(promtool, "check", "rules", str(path)) == 0


def _run(*command: str) -> int:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    print(done.stdout, done.stderr)
    return done.returncode

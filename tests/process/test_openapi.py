"""The OpenAPI document against the server that it describes: requests drawn from it are answered as it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mlforge import Definitions, Service
from mlforge.core import clock
from mlforge.core.values import to_us
from mlforge.online import RedisStore
from mlforge.serve.app import App
from mlforge.serve.server import listening
from tests.support.projects import Project, at, rows
from tests.support.workers import eventually

BUDGET_S = 50.0
BOUNDED = settings(
    max_examples=40,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
AGREEMENT = [status_code_conformance, content_type_conformance, response_schema_conformance]
ENDLESS = "/v1/events"
KEY = {"authorization": "Bearer key"}
NAMES = {
    "feature": ["spend", "other"],
    "service": ["checkout", "plain"],
    "version": ["1", "1.0.0", "2"],
    "source": ["events"],
}
NAMED_FEATURE = {"type": "string", "description": "a name, or name@version"}
ROW = {
    "type": "object",
    "properties": {
        "user_id": {"type": "integer", "minimum": 0, "maximum": 4},
        "at": {"type": "string", "format": "date-time"},
        "amount": {"type": "number"},
    },
    "required": ["user_id"],
}
"""An entity, or a row of the source."""


@pytest.fixture
def definitions(tmp_path: Path, redis_url: str) -> Iterator[Definitions]:
    """Two features and services of them, one with request columns of several dtypes, built and pushed."""
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0), (1, 3, 2.0), (2, 1.5, 5.0)))
    spend, other = project.define(), project.define(name="other")
    dtypes = {
        "price": pl.Float64,
        "when": pl.Datetime("us", "UTC"),
        "day": pl.Date,
        "count": pl.Int32,
        "word": pl.String,
        "sure": pl.Boolean,
    }
    checkout = Service(
        "checkout",
        features=[spend, other["amount__sum__2d"].as_("buyer", user_id="buyer_id")],
        request=dtypes,
        derive={
            "share": "price / spend__amount__sum__7d",
            "inverse": "1 / price",
            "waited": "days(t - when)",
        },
    )
    services = [checkout, Service("plain", features=[spend])]
    store = RedisStore.from_url(redis_url)
    definitions = project.definitions(spend, other, online_store=store, services=services)
    definitions.root = tmp_path
    with clock.fixed(to_us(at(5))):
        definitions.build(online=True)
    yield definitions
    definitions.close()


@contextmanager
def answering(app: App) -> Iterator[str]:
    """The URL of a server in a thread of this process."""
    with listening("127.0.0.1", 0) as listener:
        config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            eventually(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)


def narrowed(part: Any, sent: bool = False) -> Any:
    """The document with names and columns that there are in place of any text or object: else all requests would name what is not there.

    sent: whether the part is of a request's body.
    """
    if isinstance(part, list):
        return [narrowed(each, sent) for each in part]
    if not isinstance(part, dict):
        return part
    if part.get("name") in NAMES and "in" in part:
        return {**part, "schema": {"type": "string", "enum": NAMES[part["name"]]}}
    if sent and part.get("items") == {"type": "object"}:
        return {**part, "items": ROW}
    if part == NAMED_FEATURE:
        return {"type": "string", "enum": [*NAMES["feature"], "spend@1.0.0", "spend@2.0.0"]}
    narrow = {name: narrowed(each, sent or name == "requestBody") for name, each in part.items()}
    if sent and narrow.get("feature") == {"type": "string"}:
        narrow["feature"] = {"type": "string", "enum": NAMES["feature"]}
    return narrow


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_each_operation_answers_as_the_document_says(
    definitions: Definitions, tmp_path: Path, mode: GenerationMode
) -> None:
    """Requests that fit the document, and such that do not: none is a fault of the server, each answer is one that the document has."""
    keys = tmp_path / "keys.toml"
    keys.write_text(
        f'[all]\nsha256 = "{sha256(b"key").hexdigest()}"\noperates = true\nsources = ["events"]\n'
    )
    with answering(App(definitions, keys=keys)) as url:
        document = httpx.get(f"{url}/openapi.json", headers=KEY).json()
        schema = schemathesis.openapi.from_dict({**narrowed(document), "security": []})
        ends, statuses = time.monotonic() + BUDGET_S / 2, Counter[int]()

        def check(case: Case) -> None:
            if time.monotonic() >= ends:
                return
            response = case.call(url, headers=KEY, timeout=60)
            statuses[response.status_code] += 1
            if response.status_code >= 500:
                assert response.json()["reason"] == "not_served", (case, response.text)
            case.validate_response(response, checks=AGREEMENT)

        for each in schema.get_all_operations():
            operation = each.ok()
            if operation.path != ENDLESS:
                drawn = given(operation.as_strategy(generation_mode=mode))
                with suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else nullcontext():
                    BOUNDED(
                        drawn(check)
                    )()  # a request without parameters cannot be other than it is
        assert statuses[200] > 20 or mode is GenerationMode.NEGATIVE
        assert statuses[422] > 20


PACKAGES = "openapi-fetch@0.17.0 openapi-typescript@7.13.0 typescript@5.9.3"
PROGRAM = """
import createClient from "openapi-fetch";
import type { paths } from "./schema";

declare const process: { argv: string[] };
const client = createClient<paths, "application/json" | "application/problem+json">({
  baseUrl: process.argv[2],
  querySerializer: { object: { style: "form", explode: true } },
});

export async function share(): Promise<number | null> {
  const { data, error } = await client.POST("/v1/services/checkout", {
    body: {
      entities: [{ user_id: 1, buyer_id: 2 }],
      request: [{ price: 12.5, when: "2026-01-05T00:00:00Z", day: "2026-01-05", count: 1, word: null, sure: true }],
    },
  });
  if (error !== undefined) throw new Error(error.reason);
  return "features" in data ? data.derived[0].share : null;
}

export async function spent(): Promise<number | null | undefined> {
  const { data } = await client.GET("/v1/services/plain", { params: { query: { user_id: 1, layout: "flat" } } });
  return data !== undefined && "rows" in data ? data.rows[0].spend__amount__sum__7d : undefined;
}

export const kept = () =>
  client.GET("/v1/services/{service}@{version}", {
    params: { path: { service: "plain", version: "1" }, query: { columns: { user_id: "1" } } },
  });

export async function refused(): Promise<string | undefined> {
  const { error } = await client.POST("/v1/services/plain", { body: { entities: [{ user_id: 1 }, {}] } } as never);
  return error?.reason;
}

// @ts-expect-error: request columns are required
export const less = () => client.GET("/v1/services/checkout", { params: { query: { user_id: 1, buyer_id: 2 } } });
// @ts-expect-error: there is no such service
export const unknown = () => client.GET("/v1/services/chekout");
// @ts-expect-error: there is no such column
export const other = async () => (await spent())?.length;
"""
RUN = """
import { kept, refused, share, spent } from "./use.js";

const told = { share: await share(), spent: await spent(), kept: (await kept()).data.features, refused: await refused() };
console.log(JSON.stringify(told));
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm")
def test_a_client_in_typescript_is_made_from_the_document(
    definitions: Definitions, tmp_path: Path
) -> None:
    """The types of services, their columns and problems are those that a program relies on; what is wrong is no program, and what is right runs."""
    folder = tmp_path / "typescript"
    folder.mkdir()
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "use.ts").write_text(PROGRAM)
    (folder / "run.js").write_text(RUN)

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command.split(), cwd=folder, capture_output=True, text=True, timeout=200, check=False
        )

    installed = run(f"npm install --no-audit --no-fund {PACKAGES}")
    if installed.returncode != 0:
        pytest.skip(f"npm cannot install {PACKAGES}: {installed.stderr[-300:]}")
    with answering(App(definitions)) as url, clock.fixed(to_us(at(5))):
        (folder / "openapi.json").write_bytes(httpx.get(f"{url}/openapi.json").content)
        for command in (
            "npx openapi-typescript openapi.json -o schema.d.ts",
            "npx tsc --strict --target es2022 --module esnext --moduleResolution bundler use.ts",
            f"node run.js {url}",
        ):
            done = run(command)
            assert done.returncode == 0, done.stdout + done.stderr
        plain = httpx.post(f"{url}/v1/services/plain", json={"entities": [{"user_id": 1}]}).json()
    [row] = plain["features"]["spend"]
    spent = row["amount__sum__7d"]
    assert spent == 3.0
    assert json.loads(done.stdout) == {
        "share": 12.5 / spent,
        "spent": spent,
        "kept": plain["features"],
        "refused": "unfit_request",
    }


GO_LIBRARIES = Path("/usr/share/gocode")
"""Where Debian's packages of Go put their sources; of them the client needs golang-gopkg-validator.v2-dev."""
GO_PROGRAM = """
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"shop"
	"time"
)

func main() {
	configuration := shop.NewConfiguration()
	configuration.Servers = shop.ServerConfigurations{{URL: os.Args[1]}}
	client, here := shop.NewAPIClient(configuration), context.Background()
	price, day, count, sure := 12.3, "2026-01-05", int32(1), true
	when := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	request := *shop.NewReadServiceCheckoutRequestRequestInner(
		*shop.NewNullableFloat64(&price), *shop.NewNullableTime(&when), *shop.NewNullableString(&day),
		*shop.NewNullableInt32(&count), *shop.NewNullableString(nil), *shop.NewNullableBool(&sure))
	entity := *shop.NewReadServiceCheckoutRequestEntitiesInner(1, 2)
	body := *shop.NewReadServiceCheckoutRequest(
		[]shop.ReadServiceCheckoutRequestEntitiesInner{entity}, []shop.ReadServiceCheckoutRequestRequestInner{request})
	checkout, _, err := client.ServicesAPI.ReadServiceCheckout(here).ReadServiceCheckoutRequest(body).Execute()
	if err != nil {
		panic(err)
	}
	plain, _, err := client.ServicesAPI.GetServicePlain(here).UserId(3000000000).Execute()
	if err != nil {
		panic(err)
	}
	_, _, refused := client.ServicesAPI.GetServicePlain(here).UserId(1).MaxAge("often").Execute()
	told, _ := json.Marshal([]interface{}{checkout, plain, refused.Error()})
	fmt.Println(string(told))
}
"""


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("go") is None
    or shutil.which("java") is None
    or find_spec("openapi_generator_cli") is None
    or not (GO_LIBRARIES / "src/gopkg.in/validator.v2").exists(),
    reason="there is no Go with validator.v2, no Java, or no openapi-generator-cli",
)
def test_a_client_in_go_is_made_from_the_document(definitions: Definitions, tmp_path: Path) -> None:
    """Numbers are as wide as they are here: a client whose floats have 32 bits would be told other values."""
    package = find_spec("openapi_generator_cli")
    assert package is not None
    assert package.origin is not None
    jar = Path(package.origin).with_name("openapi-generator.jar")
    (tmp_path / "go.go").write_text(GO_PROGRAM)
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{tmp_path}/go:{GO_LIBRARIES}"}
    client = tmp_path / "go/src/shop"
    with answering(App(definitions)) as url, clock.fixed(to_us(at(5))):
        (tmp_path / "openapi.json").write_bytes(httpx.get(f"{url}/openapi.json").content)
        for command in (
            f"java -jar {jar} generate -g go -i openapi.json -o {client} --additional-properties=packageName=shop",
            f"rm -r {client}/test",
            f"go run go.go {url}",
        ):
            done = subprocess.run(
                command.split(),
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
    checkout, plain, refused = json.loads(done.stdout)
    [spent], [derived] = checkout["features"]["spend"], checkout["derived"]
    assert spent["amount__sum__7d"] == 3
    assert derived["share"] == 12.3 / 3.0
    assert plain["features"]["spend"][0]["amount__count__7d"] == 0
    assert "max_age 'often' is not a fixed duration" in refused

"""The connection type of mlforge, as Airflow finds it among installed packages: it imports nothing of Airflow."""

from __future__ import annotations

from typing import Any


def provider_info() -> dict[str, Any]:
    """The document of a provider, by Airflow's schema: the type `mlforge` of connections, with its hook."""
    return {
        "package-name": "mlforge",
        "name": "mlforge",
        "description": "A feature store's projects: build, push, validate, wait, and make training sets.",
        "connection-types": [
            {
                "connection-type": "mlforge",
                "hook-class-name": "mlforge.integrations.airflow.MlforgeHook",
            }
        ],
    }

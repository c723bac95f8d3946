"""`python -m infra.dashboard`: writes the Grafana dashboard, from the questions that it answers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "observability" / "dashboard.json"

Panel = tuple[str, str, tuple[tuple[str, str], ...]]
"""A title, a unit, and expressions with what their lines are called."""

SECTIONS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Is work done?",
        (
            ("Queued", "short", (("max by (queue) (darkroom_queued_generations)", "{{queue}}"),)),
            ("Longest wait", "s", (("max by (queue) (darkroom_queue_age_seconds)", "{{queue}}"),)),
            (
                "Edits ended a minute",
                "short",
                (("60 * sum by (outcome) (rate(darkroom_edits_total[5m]))", "{{outcome}}"),),
            ),
            (
                "Workers",
                "short",
                (("max by (gpu_type, region, busy) (darkroom_gpu_workers)", "{{gpu_type}} {{region}} busy: {{busy}}"),),
            ),
            ("Text encoders", "short", (("max(darkroom_text_encoders)", "workers"),)),
            ("Generations", "short", (("max by (state) (darkroom_generations)", "{{state}}"),)),
            (
                "Batches, and what is held back",
                "short",
                (("max(darkroom_batches)", "batches"), ("max(darkroom_paused)", "paused")),
            ),
        ),
    ),
    (
        "Where does the time go?",
        (
            *(
                (
                    f"Edits: {phase}",
                    "s",
                    tuple(
                        (
                            f"histogram_quantile({q}, sum by (le, model) "
                            f'(rate(darkroom_edit_phase_seconds_bucket{{phase="{phase}"}}[10m])))',
                            f"{{{{model}}}} p{round(q * 100)}",
                        )
                        for q in (0.5, 0.99)
                    ),
                )
                for phase in ("queue", "load", "execute", "upload")
            ),
            (
                "Prompts encoded by a worker of their own",
                "s",
                (
                    (
                        "histogram_quantile(0.99, sum by (le, model, outcome) "
                        "(rate(darkroom_text_encoding_seconds_bucket[10m])))",
                        "{{model}} {{outcome}} p99",
                    ),
                ),
            ),
            (
                "GPU idle between edits while work waits",
                "s",
                (("darkroom_gpu_idle_between_edits_seconds", "{{instance}}"),),
            ),
            (
                "Models loaded, taken off and out of memory an hour",
                "short",
                (
                    ("3600 * sum by (model) (rate(darkroom_model_load_seconds_count[1h]))", "{{model}} loaded"),
                    (
                        "3600 * sum by (model, reason) (rate(darkroom_model_evictions_total[1h]))",
                        "{{model}} {{reason}}",
                    ),
                    (
                        "3600 * sum by (model) (rate(darkroom_out_of_memory_total[1h]))",
                        "{{model}} out of memory",
                    ),
                ),
            ),
            (
                "GPU memory against the plan",
                "bytes",
                (
                    ("darkroom_gpu_peak_bytes", "{{instance}} {{model}}"),
                    ("darkroom_gpu_planned_bytes", "{{model}} planned"),
                ),
            ),
            ("Model states", "short", (("sum by (model, state) (darkroom_model_state)", "{{model}} {{state}}"),)),
            ("Pixels a second", "short", (("sum by (model) (rate(darkroom_edited_pixels_total[5m]))", "{{model}}"),)),
        ),
    ),
    (
        "Are callers served?",
        (
            (
                "Requests a second",
                "reqps",
                (("sum by (dialect, status) (rate(darkroom_http_requests_total[5m]))", "{{dialect}} {{status}}"),),
            ),
            (
                "Answer times, p99",
                "s",
                (
                    (
                        "histogram_quantile(0.99, sum by (le, route, method) (rate(darkroom_http_request_seconds_bucket[5m])))",
                        "{{method}} {{route}}",
                    ),
                ),
            ),
            (
                "Delay of events",
                "s",
                tuple(
                    (
                        f"histogram_quantile({q}, sum by (le) (rate(darkroom_event_delay_seconds_bucket[5m])))",
                        f"p{round(q * 100)}",
                    )
                    for q in (0.5, 0.99)
                ),
            ),
            ("Event streams", "short", (("sum(darkroom_event_streams)", "open"),)),
            (
                "Webhooks a minute",
                "short",
                (
                    ("60 * sum by (outcome) (rate(darkroom_webhook_calls_total[5m]))", "{{outcome}}"),
                    ("max(darkroom_webhook_tenants)", "tenants with some due"),
                ),
            ),
        ),
    ),
    (
        "Do the stores hold?",
        (
            (
                "Redis",
                "bytes",
                (
                    ("max(darkroom_store_used_bytes)", "used"),
                    ("max(darkroom_store_max_bytes)", "may be used"),
                    ("max(darkroom_record_bytes)", "records"),
                    ("max(darkroom_record_bytes_of_one_tenant)", "records of the largest tenant"),
                ),
            ),
            ("Redis answers", "short", (("max(darkroom_store_up)", "up"),)),
            (
                "Certificates hold for",
                "s",
                (
                    (
                        "min by (certificate) (darkroom_certificate_expires_timestamp_seconds) - time()",
                        "{{certificate}}",
                    ),
                ),
            ),
            (
                "Object store, p99",
                "s",
                (
                    (
                        "histogram_quantile(0.99, sum by (le, operation) (rate(darkroom_object_store_seconds_bucket[5m])))",
                        "{{operation}}",
                    ),
                ),
            ),
            (
                "Object store, calls a second",
                "short",
                (
                    (
                        "sum by (operation, outcome) (rate(darkroom_object_store_seconds_count[5m]))",
                        "{{operation}} {{outcome}}",
                    ),
                ),
            ),
            (
                "Housekeeping",
                "s",
                (
                    (
                        "time() - max by (sweep) (darkroom_sweep_last_success_timestamp_seconds)",
                        "{{sweep}}, since it went well",
                    ),
                ),
            ),
            (
                "Moved by housekeeping a minute",
                "short",
                (
                    ("60 * sum by (sweep, to) (rate(darkroom_swept_total[5m]))", "{{sweep}}: {{to}}"),
                    ("max(darkroom_deletions_overdue)", "deletions overdue"),
                ),
            ),
        ),
    ),
)

COLUMNS, WIDTH, HEIGHT = 3, 8, 8


def dashboard() -> dict[str, Any]:
    """What Grafana imports."""
    return {
        "title": "Darkroom",
        "uid": "darkroom",
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Data source"}],
        },
        "panels": list(_panels()),
    }


def _panels() -> Iterator[dict[str, Any]]:
    y = number = 0
    for section, panels in SECTIONS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": section,
            "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
            "panels": [],
        }
        y += 1
        for place, (title, unit, expressions) in enumerate(panels):
            number += 1
            column, line = place % COLUMNS, place // COLUMNS
            yield {
                "id": number,
                "type": "timeseries",
                "title": title,
                "datasource": {"type": "prometheus", "uid": "${source}"},
                "gridPos": {"x": column * WIDTH, "y": y + line * HEIGHT, "w": WIDTH, "h": HEIGHT},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
                "targets": [
                    {"refId": chr(65 + n), "expr": expression, "legendFormat": legend}
                    for n, (expression, legend) in enumerate(expressions)
                ],
            }
        y += -(-len(panels) // COLUMNS) * HEIGHT


def main() -> None:
    """Write it."""
    FILE.write_text(json.dumps(dashboard(), indent=1) + "\n")


if __name__ == "__main__":
    main()

"""`python -m infra.reference`: pages of `docs` that list what the code declares.

Settings, error codes, metrics, models' parameters.
"""

import inspect
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from api.dialects.oxen import contract
from api.http import errors as http_errors
from api.metrics import ApiMetrics
from api.settings import ApiSettings
from storage import setting_names
from storage.contracts import errors, parameters
from storage.ledger import recovery
from storage.metrics import Certificates
from storage.settings import StoreSettings
from workers.metrics import HousekeepingMetrics, ServiceCollector, TextEncoderMetrics, WorkerMetrics
from workers.settings import GpuSettings, WorkerSettings

DOCS = Path(__file__).parents[1] / "docs"

_PROCESSES = (
    ("Every process", StoreSettings, None),
    ("The API", ApiSettings, StoreSettings),
    ("GPU workers and housekeeping", WorkerSettings, StoreSettings),
    ("GPU workers", GpuSettings, WorkerSettings),
)


_OTHERS = {
    "DARKROOM_DATA_DIR": (".data", "`make up`: where its stores, weights, logs and keys are"),
    "DARKROOM_WORKERS": ("1", "`make up`: GPU workers, 1 to 64"),
    "DARKROOM_TEXT_ENCODERS": ("0", "`make up` and `python -m infra.each_gpu`: workers that only encode prompts"),
    "DARKROOM_GPUS": ("", "`python -m infra.each_gpu`: the GPUs that get a worker, instead of all"),
    "DARKROOM_CONFIG": ("./config", "Compose: the folder that containers see as `/config`"),
    "DARKROOM_REFERENCE_PAGES": ("", "`make test`: pages of client samples that are run"),
    "DARKROOM_URL": ("http://127.0.0.1:8000", "The command line: the service's address"),
    "DARKROOM_PROFILE": ("", "The command line: which of the configuration file's profiles"),
    "DARKROOM_CONFIG_FILE": ("", "The command line: where that file is"),
}
"""Variables that no process of a service reads: the default, and what each is for."""


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())


def settings() -> str:
    """Environment variables by process."""
    lines = [
        "# Settings", "",
        "Environment variables, read once when a process starts; a value that is not allowed stops the start and names the",
        "variable. Lists and objects are JSON. One whose name begins with `DARKROOM_` and is not known is told of when a process",
        "starts. Made from the code by `python -m infra.reference`.",
    ]  # fmt: skip
    for title, kind, base in _PROCESSES:
        lines += ["", f"## {title}", "", "| variable | default | |", "|---|---|---|"]
        inherited = base.model_fields if base else {}
        for name, field in kind.model_fields.items():
            if name not in inherited:
                variable = _variable(name, field)
                lines.append(f"| `{variable}` | {_default(field)} | {_bounded(field)} |")
    lines += ["", "## Make, compose and clients", "", "| variable | default | |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {f'`{default}`' if default else ''} | {told} |" for name, (default, told) in _OTHERS.items()
    ]
    return "\n".join(lines) + "\n"


def _variable(name: str, field: FieldInfo) -> str:
    return str(field.validation_alias or f"{setting_names.PREFIX}{name.upper()}")


def variables() -> str:
    """The names of all that begin with our prefix, a line each."""
    names = {_variable(name, field) for _, kind, _ in _PROCESSES for name, field in kind.model_fields.items()}
    return "\n".join(sorted(name for name in names.union(_OTHERS) if name.startswith(setting_names.PREFIX))) + "\n"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        made: Any = field.default_factory() if field.default_factory else ""  # type: ignore[call-arg]
        # One that is made anew each time (a worker's name) has no text.
        return "" if isinstance(made, str) or not made else f"`{json.dumps(made)}`"
    if value is None or value == () or value == "":
        return ""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path):
        return f"`{value.name}`"
    return f"`{json.dumps(value)}`" if isinstance(value, tuple) else f"`{value}`"


def _bounded(field: FieldInfo) -> str:
    """The description and the allowed range."""
    said = " ".join((field.description or "").split())
    symbols = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    bounds = [
        f"{symbol} {bound:g}"
        for part in field.metadata
        for name, symbol in symbols.items()
        if (bound := getattr(part, name, None)) is not None
    ]
    return f"{said} ({', '.join(bounds)})" if bounds else said


def error_codes() -> str:
    """The error tree's leaves."""
    lines = [
        "# Error codes", "",
        "Stable, the same in HTTP answers of the native API (`error.code`), in failed generations (`error_code`) and in events.",
        "The other dialects answer with their originals' statuses and shapes. *Again*: whether the same request may work later.",
        "Made from the code by `python -m infra.reference`.",
        "", "| code | status | again | |", "|---|---|---|---|",
    ]  # fmt: skip
    for kind in _leaves(errors.DarkroomError):
        again = "yes" if issubclass(kind, errors.TransientError) else "no"
        meaning = " ".join(inspect.getdoc(kind).split())  # type: ignore[union-attr]
        lines.append(f"| `{kind.code}` | {http_errors.STATUSES.get(kind, 500)} | {again} | {meaning} |")
    return "\n".join(lines) + "\n"


def _leaves(kind: type[errors.DarkroomError]) -> Iterator[type[errors.DarkroomError]]:
    if ("code" in vars(kind) or kind is errors.InternalError) and kind is not errors.DarkroomError:
        yield kind
    for below in kind.__subclasses__():
        yield from _leaves(below)


def model_parameters() -> str:
    """Every model's own parameters; models that take the same share a table."""
    known = StoreSettings().read_catalog().models
    alike: dict[str, list[str]] = {}
    for name, model in known.items():
        alike.setdefault("\n".join(_rows(model.parameters)), []).append(name)
    lines = [
        "# Parameters of models", "",
        "What a native request may have beside `model`, its pictures (`input_image`, `mask_image`) and `response_format`. A",
        "catalog of your own may declare others, as that of `make up` does for small sizes: `GET /api/ai/models/{id}` tells what",
        "a running service takes.",
        "Made from the shipped catalog by `python -m infra.reference`.",
    ]  # fmt: skip
    lines += ["", "## Every model", "", "| parameter | values | default | |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {_schema(one)} | {_told(one.get('default'))} | {_sentence(one['description'])} |"
        for name, one in contract.FIELDS.items()
    ]
    for rows, names in alike.items():
        listed = ", ".join(f"`{name}`" for name in names)
        lines += [
            "",
            f"## {names[0]}",
            "",
            f"For {listed}.",
            "",
            "| parameter | values | default | |",
            "|---|---|---|---|",
            rows,
        ]
    return "\n".join(lines) + "\n"


def _told(default: object) -> str:
    return "" if default is None else f"`{json.dumps(default)}`"


def _schema(one: Mapping[str, Any]) -> str:
    """The values of a field, by its JSON schema."""
    if "oneOf" in one:
        return " or ".join(map(_schema, one["oneOf"]))
    if "items" in one:
        return f"list of {_schema(one['items'])}"
    if "enum" in one:
        return ", ".join(f"`{choice}`" for choice in one["enum"])
    low = f"> {one['exclusiveMinimum']:.10g}" if "exclusiveMinimum" in one else ""
    low = f"≥ {one['minimum']:.10g}" if "minimum" in one else low
    high = f"≤ {one['maximum']:.10g}" if "maximum" in one else ""
    least, most = one.get("minLength"), one.get("maxLength")
    length = f"{f'{least} to' if least else 'at most'} {most} characters" if most else ""
    return ", ".join(filter(None, (one["type"], low, high, length)))


def _rows(declared: Mapping[str, parameters.Parameter]) -> Iterator[str]:
    for name, one in declared.items():
        default = "required" if one.required else _told(one.default)
        yield f"| `{name}` | {_schema(parameters.schema_of(one))} | {default} | {_sentence(one.description)} |"


def _sentence(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


class _Nothing:
    """A ledger and a store in which nothing is."""

    def run(self, call: Any) -> Any:
        """Whatever is asked."""
        return recovery.Standing(counts=defaultdict(int), queued={}, waited_s={}) if call.script == "gauges" else {}

    def info(self, section: str) -> dict[str, int]:
        """Of Redis."""
        return {"used_memory": 0}


def metrics() -> str:
    """What each process tells Prometheus."""
    api, worker, text_encoder, housekeeping = (CollectorRegistry() for _ in range(4))
    ApiMetrics(api)
    api.register(Certificates({}))
    WorkerMetrics(worker, gpu_type="", region="").watch(idle_s=lambda: 0.0, models=dict)
    worker.register(Certificates({}))
    TextEncoderMetrics(text_encoder)
    HousekeepingMetrics(housekeeping)
    nothing: Any = _Nothing()
    housekeeping.register(ServiceCollector(nothing, nothing))
    lines = [
        "# Metrics", "",
        "For Prometheus, on `DARKROOM_METRICS_PORT` of each process (`/metrics`), beside the usual ones of processes and Python.",
        "No label has values that callers make up. What housekeeping tells of the whole service is the same from each of its",
        "workers: take the largest. The dashboard, alerts and a configuration are in `infra/observability`; what to do on an",
        "alert is in [operating.md](operating.md#alerts). Made from the code by `python -m infra.reference`.",
    ]  # fmt: skip
    for title, registry in (
        ("The API", api),
        ("GPU workers", worker),
        ("Text encoders", text_encoder),
        ("Housekeeping", housekeeping),
    ):
        lines += ["", f"## {title}", "", "| metric | kind | labels | |", "|---|---|---|---|"]
        lines += [_metric(collector) for collector in registry._collector_to_names]
        lines = [line for block in lines for line in block.split("\n")]
    return "\n".join(lines) + "\n"


def _metric(collector: Any) -> str:
    """A collector's rows. What its labels are called is in no sample yet."""
    labels = getattr(collector, "_labelnames", ())
    rows = []
    for family in collector.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        named = ", ".join(f"`{one}`" for one in labels or getattr(family, "_labelnames", ()))
        rows.append(f"| `{name}` | {family.type} | {named} | {_sentence(family.documentation)} |")
    return "\n".join(rows)


PAGES: Mapping[str, Callable[[], str]] = {
    "metrics.md": metrics,
    "settings.md": settings,
    "errors.md": error_codes,
    "parameters.md": model_parameters,
    "../storage/setting_names.txt": variables,
}


if __name__ == "__main__":
    main()

"""The catalog from TOML tables: a later one overrides single keys, a fine-tune says what it extends."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from storage.contracts.catalog import Catalog


def merge(tables: Iterable[Mapping[str, Any]]) -> Catalog:
    """Build the catalog from parsed TOML tables; a later one overrides single keys of an earlier one.

    A model with `extends = "<name>"`, or `version_of`, has everything of that model that it does not say itself: a fine-tune
    names its weights and is done. Raises `ValueError` naming table and key.
    """
    merged: dict[str, Any] = {}
    for table in tables:
        merged = _overlay(_without_names_of(merged, table), table)
    models = merged.get("models", {})
    merged["models"] = {name: _extended(name, models) for name in models}
    try:
        return Catalog.model_validate(merged)
    except ValidationError as exc:
        first = exc.errors()[0]
        raise ValueError(f"catalog: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from exc


def _without_names_of(merged: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """What was merged so far, without the aliases that a later file gives to another model.

    Of names that make pictures from text those go that no longer are anybody's.
    """
    tables = later.get("models", {})
    owner = {alias.lower(): name for name, one in tables.items() for alias in (name, *one.get("aliases", ()))}
    models = {name: dict(one) for name, one in merged.get("models", {}).items()}
    for name, one in models.items():
        if "aliases" in one:
            one["aliases"] = [alias for alias in one["aliases"] if owner.get(alias.lower(), name) == name]
    left = {name: tables.get(name, {}).get("aliases", one.get("aliases", ())) for name, one in models.items()}
    known = {alias.lower() for name, aliases in left.items() for alias in (name, *aliases)} | set(owner)
    drawn = {name: other for name, other in merged.get("text_to_image", {}).items() if name.lower() in known}
    return {**merged, "models": models, "text_to_image": drawn}


def _extended(name: str, models: Mapping[str, Any]) -> dict[str, Any]:
    own = dict(models[name])
    base = own.pop("extends", own.get("version_of"))
    if base is None:
        return own
    if base not in models or {"extends", "version_of"} & set(models[base]):
        raise ValueError(f"catalog: models.{name}.extends: {base!r} is no model that stands by itself")
    # A fine-tune is like its base, but not the same: names are not inherited, nor what is said of the base's own weights.
    inherited = {key: value for key, value in models[base].items() if key not in ("aliases", "version")}
    weights, its_own = inherited.get("weights"), own.get("weights")
    if isinstance(weights, Mapping) and isinstance(its_own, Mapping) and "source" in its_own:
        inherited["weights"] = {key: value for key, value in weights.items() if key != "note"}
    return _overlay(inherited, own)


def _overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = _overlay(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return result

"""Which models a worker serves, by its settings; what does not fit is said before anything starts."""

from dataclasses import dataclass
from pathlib import Path

from storage.contracts import errors, planning
from storage.contracts.catalog import Catalog
from workers import host
from workers.settings import GpuSettings


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The catalog, the models to serve and to load at the start, and where compiled code is kept."""

    known: Catalog
    models: tuple[str, ...]
    preload: tuple[str, ...]
    compile_cache: Path | None
    host_gb: float | None
    """GB of the machine's memory that weights may be kept in; None where everything is there anyway."""


def assigned(settings: GpuSettings, *, text_encoders: bool = False) -> Assignment:
    """What a GPU worker serves, or a worker of text encoders. Raises `ValueError` when the settings do not fit."""
    known = settings.read_catalog()
    if settings.gpu_type not in known.gpu_types:
        raise ValueError(f"DARKROOM_GPU_TYPE {settings.gpu_type!r} is not in the catalog: {', '.join(known.gpu_types)}")
    if text_encoders:
        # Any kind of GPU encodes for any other.
        listed = [name for name, model in known.models.items() if planning.is_separable(model)]
    else:
        listed = [name for name, model in known.models.items() if settings.gpu_type in model.gpu_types]
    models = tuple(_named(known, name) for name in settings.models) or tuple(listed)
    preload = tuple(_named(known, name) for name in settings.preload)
    is_cpu = settings.gpu_type == "cpu"
    host_gb = None if is_cpu else host.memory_gb() / settings.workers_on_host
    if text_encoders:
        # The others' stay with GPU workers, which may be told the same names; nor is promised what has no room here.
        gpu = known.gpu_types[settings.gpu_type]
        apart = {name for name in models if planning.planned(known.models[name], gpu, host_gb=host_gb, encoding="only")}
        models, preload = (tuple(name for name in names if name in apart) for names in (models, preload))
    for model in preload:
        if model not in models:
            raise ValueError(f"DARKROOM_PRELOAD: {model!r} is not served here: {', '.join(models)}")
    if not models:
        what = "whose text encoder has room alone on" if text_encoders else "for"
        raise ValueError(f"the catalog lists no model {what} GPU type {settings.gpu_type!r}")
    if settings.region not in known.regions:
        raise ValueError(f"DARKROOM_REGION {settings.region!r} is not in the catalog: {', '.join(known.regions)}")
    compile_cache = None
    if not is_cpu and any(known.models[model].pipeline != "stand_in" for model in models):
        compile_cache = _checked_gpu(settings, known)
    return Assignment(
        known=known,
        models=models,
        preload=preload,
        compile_cache=compile_cache,
        host_gb=host_gb,
    )


def _checked_gpu(settings: GpuSettings, known: Catalog) -> Path | None:
    """A GPU that is not there is noticed now, not by failing whatever is claimed. Returns where compiled code is kept."""
    # Not above: a worker of stand-ins goes without torch.
    from workers import compiling
    from workers.pipelines import device

    device.check(settings.gpu_type, known.gpu_types[settings.gpu_type])
    return compiling.keep_in(settings.compile_cache) if settings.compile_cache is not None else None


def _named(known: Catalog, name: str) -> str:
    try:
        return known.name_of(name)
    except errors.ModelNotFoundError as exc:
        raise ValueError(f"DARKROOM_MODELS and DARKROOM_PRELOAD: {exc}") from exc

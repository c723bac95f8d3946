"""What queues are called."""

ANY_GPU = "any"


def of(model: str, gpu_type: str = ANY_GPU, region: str | None = None) -> str:
    """`edits.<model>.<gpu type>`, and `.<region>` for work that may run in that one alone; `any` is any GPU type."""
    return f"edits.{model}.{gpu_type}" + (f".{region}" if region else "")


def is_of_model(queue: str, model: str) -> bool:
    """Whether a queue is one of a model's; names of GPU types and regions have no dots."""
    return queue.startswith(f"edits.{model}.") and place_of(queue, model).count(".") <= 1


def place_of(queue: str, model: str) -> str:
    """Where a model's queue is served: `any`, or a GPU type, and `.<region>` for one region alone."""
    return queue.removeprefix(f"edits.{model}.")


def of_encodings(model: str, region: str) -> str:
    """`encodings.<model>.<region>`, served by workers of text encoders there."""
    return f"encodings.{model}.{region}"

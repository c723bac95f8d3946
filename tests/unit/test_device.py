"""A worker finds out whether its GPU is what it is said to be."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from storage.settings import StoreSettings
from workers import compiling, host
from workers.pipelines import device

KNOWN = StoreSettings().read_catalog().gpu_types


def _machine_with(monkeypatch: pytest.MonkeyPatch, name: str, mebibytes: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: name)
    properties = SimpleNamespace(total_memory=mebibytes * 2**20)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: properties)


@pytest.mark.parametrize(
    ("gpu_type", "name", "mebibytes"),
    [
        ("h100", "NVIDIA H100 80GB HBM3", 81559),
        ("h100", "NVIDIA H100 PCIe", 81559),
        ("h200", "NVIDIA H200", 143771),
        ("b200", "NVIDIA B200", 183359),
        ("l40s", "NVIDIA L40S", 46068),
        ("rtx-6000-ada", "NVIDIA RTX 6000 Ada Generation", 49140),
        ("rtx-pro-6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887),
        ("rtx-4090", "NVIDIA GeForce RTX 4090", 24564),
        ("rtx-5090", "NVIDIA GeForce RTX 5090", 32607),
    ],
)
def test_a_worker_starts_as_the_gpu_type_it_is(
    monkeypatch: pytest.MonkeyPatch, gpu_type: str, name: str, mebibytes: int
) -> None:
    _machine_with(monkeypatch, name, mebibytes)
    device.check(gpu_type, KNOWN[gpu_type])


@pytest.mark.parametrize(
    ("gpu_type", "name", "mebibytes"),
    [
        ("h100", "NVIDIA H200", 143771),
        ("h200", "NVIDIA GH200 480GB", 97871),
        ("h200", "NVIDIA GH200 144G HBM3e", 146831),
        ("h100", "NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40448),
        ("h100", "NVIDIA H100 80GB HBM3 MIG 7g.80gb", 81408),
        ("h100", "NVIDIA H100 NVL", 95830),
        ("rtx-4090", "NVIDIA GeForce RTX 4090 Laptop GPU", 16376),
        ("rtx-4090", "NVIDIA GeForce RTX 4090 D", 24564),
        ("rtx-4080", "NVIDIA GeForce RTX 4080 Laptop GPU", 12282),
        ("l40s", "NVIDIA L40", 46068),
        ("rtx-6000-ada", "NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887),
        ("rtx-pro-6000", "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 97887),
    ],
)
def test_a_worker_does_not_start_as_a_gpu_type_that_it_is_not(
    monkeypatch: pytest.MonkeyPatch, gpu_type: str, name: str, mebibytes: int
) -> None:
    _machine_with(monkeypatch, name, mebibytes)
    with pytest.raises(ValueError, match=f"DARKROOM_GPU_TYPE is {gpu_type} .*{name.split()[1]}"):
        device.check(gpu_type, KNOWN[gpu_type])


def test_the_cpu_is_checked_for_nothing() -> None:
    device.check("cpu", KNOWN["cpu"])


def test_the_machines_memory_is_counted() -> None:
    assert 1 < host.memory_gb() < 10_000


def test_compiled_code_is_kept_apart_for_each_torch_and_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(variable, "")
    kept = set()
    for name in ("NVIDIA H100 80GB HBM3", "NVIDIA H200"):
        _machine_with(monkeypatch, name, 81559)
        folder = compiling.keep_in(tmp_path)
        assert torch.__version__ in folder.name
        assert (
            Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).parent == Path(os.environ["TRITON_CACHE_DIR"]).parent == folder
        )
        assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).is_dir()
        kept.add(folder)
    assert len(kept) == 2

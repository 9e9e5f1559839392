import pytest
import torch

from dlcore import device
from dlcore.device import choose_device, device_name, peak_memory_bytes, reset_peak_memory
from dlcore.errors import DeviceError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("there", "chosen"), [({"cuda", "mps", "cpu"}, "cuda"), ({"mps", "cpu"}, "mps"), ({"cpu"}, "cpu")]
)
def test_auto_takes_the_fastest_device_there(monkeypatch: pytest.MonkeyPatch, there: set[str], chosen: str) -> None:
    monkeypatch.setattr(device, "_is_there", there.__contains__)
    assert choose_device("auto").type == chosen
    assert choose_device("cpu") == CPU


def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_is_there", {"cpu"}.__contains__)
    with pytest.raises(DeviceError, match=r"device 'cuda' must be there.* sees only cpu"):
        choose_device("cuda")


def test_an_unknown_device_is_refused_with_the_known_names() -> None:
    with pytest.raises(DeviceError, match="device must be one of auto, cpu, cuda, mps; got 'tpu'"):
        choose_device("tpu")


def test_the_processor_has_a_name() -> None:
    assert device_name(CPU).strip()
    assert "\n" not in device_name(CPU)


def test_peak_memory_of_the_process_grows_with_what_it_holds() -> None:
    reset_peak_memory(CPU)
    before = peak_memory_bytes(CPU)
    if before is None:
        pytest.skip("this system does not say")
    held = torch.ones(before // 4 + 2**24)  # 4 bytes each: more than was ever held
    after = peak_memory_bytes(CPU)
    assert after is not None and after >= before + 2**24
    assert held.sum() > 0

"""Names in the state dict of a network that `dlcore.models` builds, known before anything is built."""

from dlcore.config import ModelConfig


def tensor_names(config: ModelConfig) -> list[tuple[str, ...]]:
    """Names in the state dict of what each Linear layer and its normalization train, in the order of `draw_tensors`."""
    stride = 2 + (config.normalization != "none") + (config.dropout > 0)
    names: list[tuple[str, ...]] = []
    for i in range(0, stride * config.depth, stride):
        weight, bias, gain, shift = f"{i}.weight", f"{i}.bias", f"{i + 1}.weight", f"{i + 1}.bias"
        by_kind = {"none": (weight, bias), "batch": (weight, shift, gain), "layer": (weight, bias, gain, shift)}
        names.append(by_kind[config.normalization])
    return [*names, (f"{stride * config.depth}.weight", f"{stride * config.depth}.bias")]


def statistic_names(config: ModelConfig) -> list[tuple[str, ...]]:
    """Names in the state dict of the running mean and variance of each hidden layer; empty where there are none."""
    if config.normalization != "batch":
        return []
    return [
        tuple(names[2].replace("weight", f"running_{of}") for of in ("mean", "var"))
        for names in tensor_names(config)[:-1]
    ]

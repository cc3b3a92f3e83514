"""What a module is made of, found as often as a forecast asks for it: `Module.modules` takes several times as long."""

from __future__ import annotations

from torch import Tensor, nn


def parts(module: nn.Module) -> list[nn.Module]:
    """The module and the modules in it, each of them once, in no particular order."""
    found: dict[int, nn.Module] = {}
    waiting: list[nn.Module | None] = [module]
    while waiting:
        part = waiting.pop()
        if part is not None and id(part) not in found:
            found[id(part)] = part
            waiting.extend(part._modules.values())
    return list(found.values())


def parameters(found: list[nn.Module]) -> list[Tensor]:
    """The parameters of these modules, without those of the modules in them, each of them once."""
    return list({id(p): p for part in found for p in part._parameters.values() if p is not None}.values())


def buffers(found: list[nn.Module]) -> list[Tensor]:
    """Their buffers, likewise."""
    return list({id(b): b for part in found for b in part._buffers.values() if b is not None}.values())

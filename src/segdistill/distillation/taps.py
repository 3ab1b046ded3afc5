"""Taps: named tensors of a network, read by forward hooks at module paths."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segdistill.names import unknown


def first_tensor(output: Any) -> Tensor | None:
    """The tensor of a module's output: itself, `out` or `logits` of a mapping or object, or the first
    item of a sequence; None where there is none."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return first_tensor(output.get("out", output.get("logits")))
    if hasattr(output, "logits"):
        return first_tensor(output.logits)
    if isinstance(output, (tuple, list)) and output:
        return first_tensor(output[0])
    return None


def uncompiled(network: nn.Module) -> nn.Module:
    """The network inside `torch.compile`, or the network itself: the one whose modules have their own names."""
    inner: nn.Module = getattr(network, "_orig_mod", network)
    return inner


def tap_paths(network: nn.Module) -> dict[str, str]:
    """The taps that a network declares, name -> module path.

    Raises:
        ValueError: The network declares no taps.
    """
    paths = getattr(network, "taps", None)
    if not isinstance(paths, Mapping):
        raise ValueError(
            f"{type(network).__name__} declares no taps; wrap it (segdistill.models.wrap), or add a `taps` "
            "attribute, a mapping of names to module paths"
        )
    return dict(paths)


class Taps:
    """Reads named tensors of a network while it runs.

    A path names a submodule, whose output is read; `path:input` reads its first input instead, and the
    empty path stands for the network itself. Only opened taps have hooks, so that an unread
    auxiliary head need not run.

    A network may be compiled (`torch.compile`, or `.compile()`), with `fullgraph=True` too: its tensors are
    then copied where they are read, since a later in-place change cannot be detected. Code compiled
    before the taps were opened does not run their hooks; `collect` refuses it.

    Args:
        network: The network to read from.
        paths: Tap name -> module path.

    Raises:
        ValueError: A path names no submodule; the message gives the nearest one.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
        >>> taps = Taps(network, {"features": "0"})
        >>> _ = network(torch.zeros(1, 3, 2, 2))
        >>> taps.collect()["features"].shape
        torch.Size([1, 4, 2, 2])
    """

    def __init__(self, network: nn.Module, paths: Mapping[str, str]) -> None:
        self.paths = dict(paths)
        self._tensors: dict[str, tuple[Tensor, int | None]] = {}
        modules = dict(uncompiled(network).named_modules())
        self._hooks: list[Any] = []
        self._points: list[tuple[Any, Any]] = []
        for name, path in self.paths.items():
            module_path, _, side = path.partition(":")
            if module_path not in modules:
                raise ValueError(f"tap {name!r}: {unknown('module', module_path, modules)}")
            if side not in ("", "input"):
                raise ValueError(f"tap {name!r} is {path!r}; expected only 'input' after the colon")
            module = modules[module_path]
            if side:
                self._points.append((module.register_forward_pre_hook, self._read_input(name)))
            else:
                self._points.append((module.register_forward_hook, self._read_output(name)))
        self.open()

    def _read_output(self, name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._keep(name, first_tensor(output))

        return hook

    def _read_input(self, name: str) -> Any:
        def hook(_module: nn.Module, inputs: Any) -> None:
            self._keep(name, first_tensor(inputs))

        return hook

    def _keep(self, name: str, tensor: Tensor | None) -> None:
        if tensor is None:
            raise ValueError(
                f"tap {name!r} at {self.paths[name]!r} gives no tensor; expected a module whose output "
                "is a tensor, or a mapping with 'out' or 'logits'"
            )
        if torch.compiler.is_compiling():
            self._tensors[name] = (tensor.clone(), None)
        else:
            self._tensors[name] = (tensor, tensor._version)

    def collect(self) -> dict[str, Tensor]:
        """Return the tensors of the last forward pass and forget them.

        Raises:
            ValueError: A tap was not reached in the forward pass, or its tensor was changed in place
                after it was read.
        """
        tensors, self._tensors = self._tensors, {}
        for name, path in self.paths.items():
            if name not in tensors:
                raise ValueError(
                    f"tap {name!r} at {path!r} was not reached in the forward pass; expected a module "
                    "that runs in every step. If the network was compiled and run before, discard that "
                    "code first (torch.compiler.reset())"
                )
            tensor, version = tensors[name]
            changed = version is not None and not tensor.is_inference()
            if changed and tensor._version != version:
                raise ValueError(
                    f"tap {name!r} at {path!r} was changed in place after it was read. Tap the next "
                    "module, or build the network without in-place operations there"
                )
        return {name: tensors[name][0] for name in self.paths}

    def open(self) -> None:
        """Restore the same hooks after `close`; code compiled with them still runs them."""
        self._hooks = [register(hook) for register, hook in self._points]

    def close(self) -> None:
        """Remove the hooks from the network."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def __enter__(self) -> "Taps":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

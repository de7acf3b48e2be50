"""Runs of one test file share what they load from equal files: models are not loaded again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from guided.core.device import Device
from guided.models import loading


def _written(path: Path) -> tuple[Any, ...]:
    """A file or folder, with what tells whether it was written since."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return (path, *((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files))


class Shared:
    """What was loaded, by what it was loaded from and by how."""

    def __init__(self) -> None:
        self.loaded: dict[Any, Any] = {}

    def once(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        if key not in self.loaded:
            self.loaded[key] = make()
        return self.loaded[key]

    def of_path(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """A loader ``(path, device, **options)``."""

        def loaded(path: Any, device: Device, **options: Any) -> Any:
            if not isinstance(path, Path) or not path.exists():
                return load(path, device, **options)
            key = (load.__name__, _written(path), device, *sorted(options.items()))
            return self.once(key, lambda: load(path, device, **options))

        return loaded

    def of_reference(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """The loader of a CLIP: ``(reference, device, **options)``."""

        def loaded(given: Any, device: Device, **options: Any) -> Any:
            reference = loading.reference_of(given, options.get("role", "scorer"))
            if reference.kind not in ("card", "folder"):
                return load(given, device, **options)
            path = reference.path if reference.kind == "folder" else None
            if path is not None and not path.is_dir():
                return load(given, device, **options)
            files = _written(path) if path is not None else ()
            key = (load.__name__, reference.text, files, device, *sorted(options.items()))
            return self.once(key, lambda: load(given, device, **options))

        return loaded

    def of_denoiser(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """The loader of a diffusion model; its CLIP is asked for by every run that notes it."""
        from guided.generators.diffusion import parts_of

        def loaded(folder: Path, scorer: Any, device: Device, *, name: str = "") -> Any:
            parts = parts_of(folder)
            clip = None if parts is None else scorer(parts.scorer)
            key = (load.__name__, _written(folder), id(clip), device, name)
            made = self.once(key, lambda: (load(folder, lambda _: clip, device, name=name), clip))
            return made[0]

        return loaded


@contextmanager
def sharing() -> Iterator[None]:
    """Within, runs share their CLIPs, generators, embedders and diffusion models."""
    shared = Shared()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_scorer", shared.of_reference(loading.load_scorer))
        for name in ("load_generator", "load_embedder", "load_distance", "load_delta"):
            patch.setattr(loading, name, shared.of_path(getattr(loading, name)))
        patch.setattr(loading, "load_denoiser", shared.of_denoiser(loading.load_denoiser))
        yield

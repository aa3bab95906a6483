"""Models loaded and unloaded by name: those of --bundle, and the folders of --watch."""

from typing import Any

from service.config import Config, NamedBundle
from service.errors import BadRequest, UnknownModel
from service.folder import MODEL_NAME
from service.repository import Repository

_UNLOAD_PARAMETERS = ("unload_dependents",)  # Triton's client always sends it; there are none


class RepositoryControl:
    """Does what administrators ask for; who is one is checked before."""

    def __init__(self, config: Config, repository: Repository) -> None:
        self._config, self._repository = config, repository

    async def load(self, request: Any) -> None:
        """Loads a model, or again. Raises BadRequest, UnknownModel, LoadFailed."""
        _check(request, ())
        await self._repository.load(self._find(request.model_name))

    async def unload(self, request: Any) -> None:
        """Unloads a model until it is loaded again. Raises BadRequest, UnknownModel."""
        _check(request, _UNLOAD_PARAMETERS)
        await self._repository.unload(request.model_name)

    def _find(self, name: str) -> NamedBundle:
        for bundle in self._config.bundles:
            if bundle.name == name:
                return bundle
        if self._config.watch is not None and MODEL_NAME.fullmatch(name):
            folder = self._config.watch / name
            if folder.is_dir():
                return NamedBundle(name, folder)
        raise UnknownModel(
            f"model is {name[:100]!r}; this server can load what --bundle names and the folders "
            "of --watch"
        )


def _check(request: Any, known: tuple[str, ...]) -> None:
    if request.repository_name:
        raise BadRequest("repository_name is set; there is one repository, leave it empty")
    for name in request.parameters:
        if name not in known:
            raise BadRequest(
                f"parameters has {name[:100]!r}; it may have {', '.join(known) or 'none'}, a "
                "model's options are the server's own"
            )

"""Loads and unloads models by name for administrators: --bundle models and --watch folders."""

from typing import Any

from service.config import MODEL_NAME, Config, NamedBundle
from service.errors import BadRequest, UnknownModel
from service.repository import Repository

_UNLOAD_PARAMETERS = ("unload_dependents",)  # always sent by Triton's client; has no effect


class RepositoryControl:
    """Loads and unloads models; the caller has checked that the call is an administrator's."""

    def __init__(self, config: Config, repository: Repository) -> None:
        self._config, self._repository = config, repository

    async def load(self, request: Any) -> None:
        """Loads or reloads a model. Raises BadRequest, UnknownModel, LoadFailed."""
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
            f"model is {name[:100]!r}; this server can load the models of --bundle and the folders "
            "of --watch"
        )


def _check(request: Any, known: tuple[str, ...]) -> None:
    if request.repository_name:
        raise BadRequest("repository_name is set; leave it empty, there is only one repository")
    allowed = f"may only have {', '.join(known)}" if known else "must be empty"
    for name in request.parameters:
        if name not in known:
            raise BadRequest(
                f"parameters has {name[:100]!r}; it {allowed}: models cannot be configured by calls"
            )

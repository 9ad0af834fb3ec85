"""The versions of the model that are served, and which of them a request goes to."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from bayling.serve.answering import Answering
from bayling.serve.errors import ApiError
from bayling.templates import Message

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Version:
    """One version, ready to answer."""

    name: str
    """The registered model's."""
    version: str
    languages: list[str]
    answering: Answering
    page: str | None = None
    """Its page in MLflow."""

    @property
    def id(self) -> str:
        """What a request names to be answered by this very version."""
        return f"{self.name}@{self.version}"

    def using(self, adapter: str) -> Version:
        """The same version, answering with an adapter."""
        return replace(self, answering=self.answering.using(adapter))


class Fleet:
    """What the API can answer with; changed as a whole while requests run."""

    def __init__(
        self, name: str, load: Callable[[str], Version], adapters: Sequence[str] = ()
    ) -> None:
        """
        Args:
            load: makes a version ready; may take seconds.
            adapters: the names of those that every version can answer with.
        """
        self.name = name
        self.adapters = tuple(adapters)
        self._load = load
        self._versions: dict[str, Version] = {}
        self._shares: dict[str, float] = {}
        self._plan: dict[str, float] = {}
        self._changing = threading.Lock()
        self._troubles: dict[str, str] = {}

    def take(self, shares: Mapping[str, float]) -> None:
        """Serve these versions from now on, each with its share of the traffic, as far as they are
        loaded. While none of them is, what was served before goes on.

        Args:
            shares: version → 0 to 1, 1 in all. With a share of 0 a version answers only who
                names it. The first one keeps the conversations that a growing share of the
                others has not reached yet.
        """
        with self._changing:
            self._plan, self._troubles = dict(shares), {}
            self._follow(self._plan, {})

    def load(self) -> None:
        """Load what the last plan names and is not there yet. Blocks; requests go on meanwhile.

        A version that cannot be loaded is left out, as `troubles` says. Ends early when another
        plan is taken, which goes before.

        Raises:
            Exception: what loading raised, where that leaves no version at all.
        """
        plan = self._plan
        failure: Exception | None = None
        for version in plan:
            if version in self._versions:
                continue
            loaded: dict[str, Version] = {}
            try:
                loaded[version] = self._load(version)
            except Exception as error:
                log.error("version %s cannot be served: %s", version, error)
                failure = error
            with self._changing:
                if self._plan is not plan:
                    return
                self._follow(plan, loaded)
                if failure is not None and not loaded:
                    self._troubles[version] = str(failure) or type(failure).__name__
        if failure is not None and not self._versions:
            raise failure

    def _follow(self, plan: dict[str, float], new: Mapping[str, Version]) -> None:
        there = {**self._versions, **new}
        versions = {version: there[version] for version in plan if version in there}
        if versions:
            self._versions = versions
            self._shares = {version: plan[version] for version in versions}

    @property
    def shares(self) -> dict[str, float]:
        """The shares that hold at this moment."""
        return dict(self._shares)

    @property
    def troubles(self) -> dict[str, str]:
        """Versions that were to be served and could not be loaded → why."""
        return dict(self._troubles)

    @property
    def versions(self) -> list[Version]:
        """All that are served; the one with most of the traffic first."""
        return sorted(self._versions.values(), key=lambda one: -self._shares.get(one.version, 0))

    @property
    def main(self) -> Version:
        """The version with most of the traffic.

        Raises:
            ApiError: none is served yet.
        """
        if not self._versions:
            raise ApiError(503, "no version of the model is served yet", code="unavailable")
        return self.versions[0]

    def main_version(self) -> str:
        """The number of the version with most of the traffic; empty while there is none."""
        return self.versions[0].version if self._versions else ""

    def choose(self, model: str | None, conversation: str) -> Version:
        """The version for a request. A conversation stays with its version.

        Args:
            model: what the request names: the model, one of its versions, or nothing; the first
                two also with an adapter, as `bayling:formal` or `bayling@7:formal`.
            conversation: what tells one conversation from another, and stays while it goes on.

        Raises:
            ApiError: there is no such model or version here.
        """
        main = self.main
        if model is None:
            model = self.name
        plain, _, adapter = model.partition(":")
        version = next((one for one in self._versions.values() if one.id == plain), None)
        if plain == self.name:
            version = self._share_of(conversation) or main
        if version is not None and model == plain:
            return version
        if version is not None and adapter in self.adapters:
            return version.using(adapter)
        known = [self.name, *(one.id for one in self.versions)]
        known += [f"{self.name}:{one}" for one in self.adapters]
        raise ApiError(
            404,
            f"there is no model {model!r} here: this server has {', '.join(map(repr, known))}",
            param="model",
            code="model_not_found",
        )

    def _share_of(self, conversation: str) -> Version | None:
        digest = hashlib.blake2b(conversation.encode(errors="replace"), digest_size=8).digest()
        place = int.from_bytes(digest) / 2**64
        # Newcomers lie at the lower end: a conversation changes its version only when a
        # share grows over it.
        versions, shares = self._versions, self._shares
        for version in reversed(versions):
            place -= shares.get(version, 0.0)
            if place < 0:
                return versions[version]
        return None


def conversation_key(messages: Sequence[Message]) -> str:
    """What stays the same while a conversation goes on: how it began."""
    users = [message.content for message in messages if message.role == "user"]
    return users[0] if users else ""

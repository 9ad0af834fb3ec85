from __future__ import annotations

import json
import socket
from operator import attrgetter
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from bayling.config import compose
from bayling.errors import UserError
from bayling.scale import ScaleConfig
from bayling.serve import client, run
from bayling.serve.application import Arguments, ServedModel
from bayling.serve.config import Auth, ServeConfig, TracingConfig

CONF = Path(__file__).parents[2] / "conf" / "serve"


def test_the_defaults_and_the_shipped_files_are_valid() -> None:
    ServeConfig().validate()
    for path in sorted(CONF.glob("*.yaml")):
        merged = OmegaConf.merge(OmegaConf.structured(ServeConfig), OmegaConf.load(path))
        config = OmegaConf.to_object(merged)
        assert isinstance(config, ServeConfig)
        config.validate()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("host", "0.0.0.0"),
        ("port", 70_000),
        ("max_batch", 0),
        ("min_replicas", -1),
        ("max_replicas", 0),
        ("max_queued_requests", 0),
        ("request_timeout_s", 0),
        ("stream_interval_s", -1),
        ("max_ongoing_requests", 8),
        ("target_ongoing_requests", 1000),
        ("requests_per_minute", 0),
        ("tokens_per_minute", -1),
        ("concurrent_requests", 0),
        ("body_timeout_s", 0),
        ("mlflow_traces", 1.5),
        ("tracing.share", -0.1),
        ("tracing.endpoint", "collector:4318"),
        ("tracing.endpoint", "http://"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_key(key: str, value: object) -> None:
    config = ServeConfig()
    *groups, name = key.split(".")
    setattr(attrgetter(groups[0])(config) if groups else config, name, value)
    with pytest.raises(UserError, match=rf"serve\.{key}="):
        try:
            config.validate()
        except UserError as error:
            # "must be …, not 0" and "=0 is …" are both fine, as long as the key is in it.
            raise UserError(str(error).replace(f"serve.{key} ", f"serve.{key}= ")) from None


def test_a_configuration_travels_to_the_replicas_as_json() -> None:
    config = ServeConfig(
        auth=Auth.off, log_texts=True, mlflow_traces=0.25, tracing=TracingConfig(None, 0.5)
    )
    arguments = Arguments(config, ServedModel("", "bayling", {"7": "/x"}), "cpu", 1, 0, True)
    assert Arguments.read(json.loads(json.dumps(arguments.write()))) == arguments


def test_tracing_is_set_like_every_other_key() -> None:
    address = "http://collector:4318/v1/traces"
    composed = compose([f"serve.tracing.endpoint={address}", "serve.tracing.share=0.1"])
    assert composed.serve.tracing == TracingConfig(address, 0.1)
    with pytest.raises(UserError, match=r"did you mean serve\.tracing\.endpoint"):
        compose(["serve.tracing.endpiont=x"])


def test_logging_texts_is_told_before_anything_starts(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = ServeConfig(port=taken.getsockname()[1], log_texts=True)
        with pytest.raises(UserError, match=r"serve\.port"):
            run.deploy(config, ServedModel("", "bayling", {}), {}, ScaleConfig())
    assert "prompts and answers of all callers are written to the log" in caplog.text


def test_beyond_this_machine_keys_are_needed_and_where_they_come_from_is_told() -> None:
    with pytest.raises(UserError, match=r"bayling key new NAME.*serve\.keys_file=keys\.jsonl"):
        ServeConfig(host="0.0.0.0").validate()
    with pytest.raises(UserError, match=r"serve\.auth=on .*bayling key new NAME"):
        ServeConfig(auth=Auth.on).validate()
    for config in (
        ServeConfig(host="0.0.0.0", keys_file="keys.jsonl"),
        ServeConfig(keys_file="keys.jsonl"),
        ServeConfig(auth=Auth.on, keys_file="keys.jsonl"),
    ):
        config.validate()
        assert config.needs_keys
    for config in (ServeConfig(), ServeConfig(host="0.0.0.0", auth=Auth.off)):
        config.validate()
        assert not config.needs_keys


def test_keys_that_nobody_is_asked_for_are_refused() -> None:
    with pytest.raises(UserError, match=r"serve\.auth=off"):
        ServeConfig(auth=Auth.off, keys_file="keys.jsonl").validate()


@pytest.mark.parametrize(
    "origin", ["*", "example.org", "https://example.org/", "https://*.example.org", "ftp://a.b"]
)
def test_a_site_whose_pages_may_ask_is_named_in_full(origin: str) -> None:
    ServeConfig(cors_origins=["https://example.org", "http://localhost:3000"]).validate()
    with pytest.raises(UserError, match=r"serve\.cors_origins.*https://example\.org"):
        ServeConfig(cors_origins=[origin]).validate()


def test_a_server_that_listens_everywhere_is_found_on_this_machine() -> None:
    assert run.base_url(ServeConfig(host="0.0.0.0", port=8001)) == "http://127.0.0.1:8001"
    assert run.base_url(ServeConfig(host="::")) == "http://[::1]:8000"
    assert run.base_url(ServeConfig(host="10.0.0.7")) == "http://10.0.0.7:8000"


def test_a_port_that_is_taken_is_named_with_the_key_that_changes_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"{port}.*serve\.port"):
            run.check_port("127.0.0.1", port)
    run.check_port("127.0.0.1", port)


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(UserError, match="bayling serve"):
        client.translate("http://127.0.0.1:9", "Hello", "de")


def test_adapters_are_set_on_the_command_line_as_the_readme_does() -> None:
    composed = compose(["serve.adapters=[formal:/models/adapters/formal,law:./law]"])
    composed.serve.validate()
    assert composed.serve.adapter_folders == {"formal": "/models/adapters/formal", "law": "./law"}


@pytest.mark.parametrize("adapters", [["formal"], ["my adapter:/x"], ["a:/x", "a:/y"], [":/x"]])
def test_adapters_that_make_no_sense_are_refused(adapters: list[str]) -> None:
    with pytest.raises(UserError, match=r"serve\.adapters has"):
        ServeConfig(adapters=adapters).validate()

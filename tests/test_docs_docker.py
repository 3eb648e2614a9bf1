"""The Dockerfile and the compose file: parsed, and held to what a service on a network needs.

No engine is needed; building the image needs one.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import ROOT

DOCKERFILE = ROOT / "Dockerfile"


def instructions(text: str) -> list[tuple[str, str]]:
    """Instructions in order, continuation lines joined, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for name, rest in instructions(DOCKERFILE.read_text(encoding="utf-8")):
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest))
    return found


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return found


def of(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for found, rest in stage if found == name]


def test_images_are_pinned(stages: list[list[tuple[str, str]]], compose: dict[str, Any]) -> None:
    images = [of(stage, "FROM")[0].split()[0] for stage in stages] + [
        compose["services"]["database"]["image"]
    ]
    for image in images:
        assert re.fullmatch(r"[a-z]+:\d+\.\d+(\.\d+)?-\w+(-\w+)?", image), (
            f"{image} is not pinned to a release"
        )


def test_python_is_one_that_the_package_takes(stages: list[list[tuple[str, str]]]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = {re.search(r"python:(\d+\.\d+)", of(stage, "FROM")[0])[1] for stage in stages}  # type: ignore[index]
    assert versions == {"3.11"}
    assert project["requires-python"] == ">=3.11"
    extras = re.search(r"EXTRAS=(\S+)", " ".join(of(stages[0], "ARG")))
    assert extras is not None
    assert set(extras[1].split(",")) <= project["optional-dependencies"].keys()


def test_nothing_runs_as_root(stages: list[list[tuple[str, str]]]) -> None:
    last = stages[-1]
    (user,) = of(last, "USER")
    assert user.split(":")[0].isdigit()
    assert int(user.split(":")[0]) >= 10000
    names = [name for name, _ in last]
    assert "RUN" not in names[names.index("USER") :], "something is installed by the user without rights"


def test_packages_have_the_pinned_versions(stages: list[list[tuple[str, str]]]) -> None:
    installs = [rest for stage in stages for rest in of(stage, "RUN") if "pip install" in rest]
    assert installs
    assert all("-c constraints.txt" in rest for rest in installs)
    assert all("--no-install-recommends" in r for s in stages for r in of(s, "RUN") if "apt-get install" in r)
    assert not any(name == "ADD" for stage in stages for name, _ in stage)


def test_health_is_asked_for_without_a_key(stages: list[list[tuple[str, str]]]) -> None:
    from shelfwise.service.app import make_app  # noqa: F401  (the route below is the application's)

    (health,) = of(stages[-1], "HEALTHCHECK")
    (port,) = of(stages[-1], "EXPOSE")
    assert f"http://127.0.0.1:{port}/v2/health/ready" in health
    assert '"/v2/health/ready"' in (ROOT / "src/shelfwise/service/app.py").read_text(encoding="utf-8")


def test_what_is_copied_is_there_and_not_ignored(stages: list[list[tuple[str, str]]]) -> None:
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line[:1] == "!"
    }
    copied = {
        path for rest in of(stages[0], "COPY") for path in rest.split()[:-1] if not path.startswith("--")
    }
    assert copied == kept
    assert all((ROOT / path).exists() for path in copied)


def test_commands_are_verbs_with_their_options(
    stages: list[list[tuple[str, str]]], compose: dict[str, Any]
) -> None:
    import json

    import typer

    from shelfwise.cli import app

    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for words in (json.loads(of(stages[-1], "CMD")[0]), compose["services"]["service"]["command"]):
        options = {option for parameter in verbs[words[0]].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_the_service_cannot_change_its_own_system(compose: dict[str, Any]) -> None:
    service = compose["services"]["service"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    bundle = next(volume for volume in service["volumes"] if volume.split(":")[1] == "/bundle")
    assert bundle.endswith(":ro")


def test_the_database_is_reached_by_the_service_alone(compose: dict[str, Any]) -> None:
    database = compose["services"]["database"]
    assert "ports" not in database
    assert database["networks"] == ["back"]
    assert compose["networks"]["back"]["internal"] is True
    assert "healthcheck" in database
    assert compose["services"]["service"]["depends_on"]["database"]["condition"] == "service_healthy"


def test_no_secret_is_written_down(compose: dict[str, Any]) -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8") + DOCKERFILE.read_text(encoding="utf-8")
    assert not re.search(r"(?i)password\s*[:=]\s*[\"']?[a-z0-9]{4,}[\"']?\s*$", text, re.MULTILINE)
    named = set(compose["secrets"])
    assert all(set(service["secrets"]) <= named for service in compose["services"].values())
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "/deploy/" in ignored


def test_everything_that_is_named_is_declared(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert set(service["networks"]) <= compose["networks"].keys()
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source.startswith("./") or source in compose["volumes"], volume
        assert set(service.get("depends_on", {})) <= compose["services"].keys()


def test_hadolint_finds_nothing() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout

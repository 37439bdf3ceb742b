"""A second, small repository adopts the gate: the steps of ci/workflows/gate.yml, copied with nothing but its HERE lines changed,
are replayed on pull requests that pass, fail, rename a benchmark and come from a fork."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CI = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).with_name("fake_benchmark.py")
PINNED = re.compile(r"^[\w-]+/[\w./-]+@[0-9a-f]{40}$")
GH = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["GH_LOG"], "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
if "--jq" in sys.argv:  # which comment is the gate's
    print(os.environ.get("GH_COMMENT", ""), end="")
"""


def workflow() -> dict:
    """The workflow as another project has it: its own build line and program, and a revision of the gate."""
    text = (CI / "workflows" / "gate.yml").read_text()
    text = re.sub(r"(?m)^  BUILD: .*# HERE$", "  BUILD: mkdir -p build && install bench.sh build/bench", text)
    text = text.replace("OWNER/REPOSITORY/ci/action@" + 40 * "0", "someone/gate/ci/action@" + 40 * "a")
    return yaml.safe_load(text)


class Repository:
    """A git repository with a benchmark program, and pull requests to it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.base = self.commit("--row a=100 --row b=70 --noise 0.001")

    def git(self, *words: str) -> str:
        environment = os.environ | {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        done = subprocess.run(
            ["git", "-C", self.folder, *words], capture_output=True, text=True, check=True, env=environment
        )
        return done.stdout.strip()

    def commit(self, arguments: str) -> str:
        (self.folder / "bench.sh").write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} {arguments} "$@"\n')
        self.git("add", "bench.sh")
        self.git("commit", "--quiet", "-m", arguments)
        return self.git("rev-parse", "HEAD")


def substitute(text: str, values: dict) -> str:
    """GitHub's expressions, as far as the workflow and the action use them."""

    def value(found: re.Match) -> str:
        expression = found[1].strip()
        if "==" in expression:
            one, other = (values.get(side.strip(), "") for side in expression.split("=="))
            return "true" if one == other else "false"
        return str(values[expression])

    return re.sub(r"\$\{\{(.*?)\}\}", value, str(text))


class Replay:
    """Runs a workflow's steps in order; stops at the first that fails, as GitHub does."""

    def __init__(self, repository: Repository, workspace: Path, head: str, fork: bool):
        self.repository, self.workspace, self.head = repository, workspace, head
        self.workspace.mkdir()
        self.outputs: dict[str, str] = {}
        self.values = {
            "github.event.pull_request.base.sha": repository.base,
            "github.event.pull_request.number": "7",
            "github.event.pull_request.head.repo.full_name": "stranger/thing" if fork else "owner/thing",
            "github.repository": "owner/thing",
            "github.token": "token",
            "runner.os": "Linux",
            "runner.temp": str(workspace / "temp"),
            "github.action_path": str(CI / "action"),
        }
        self.environment = os.environ | {
            "GITHUB_STEP_SUMMARY": str(workspace / "summary"),
            "GITHUB_OUTPUT": str(workspace / "output"),
            "GITHUB_REPOSITORY": "owner/thing",
            "GH_LOG": str(workspace / "gh.log"),
            "PATH": f"{workspace / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        gh = workspace / "bin" / "gh"
        gh.parent.mkdir()
        gh.write_text(GH)
        gh.chmod(0o755)
        (workspace / "temp" / "gate-environment" / "bin").mkdir(parents=True)
        python = workspace / "temp" / "gate-environment" / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)

    def run(self, document: dict) -> int:
        """Exit status of the step that failed, 0 if none did."""
        variables = document["env"]
        self.values |= {f"env.{key}": value for key, value in variables.items()}
        for step in document["jobs"]["gate"]["steps"]:
            inputs = {key: substitute(value, self.values) for key, value in step.get("with", {}).items()}
            name = step.get("uses", "").partition("@")[0]
            if name == "actions/checkout":
                revision = inputs.get("ref", self.head)
                subprocess.run(["git", "clone", "--quiet", self.repository.folder, self.workspace / inputs["path"]], check=True)
                subprocess.run(["git", "-C", self.workspace / inputs["path"], "checkout", "--quiet", revision], check=True)
            elif name == "someone/gate/ci/action":
                status = self._action(inputs)
                if status:
                    return status
            elif "run" in step:
                folder = self.workspace / step.get("working-directory", ".")
                status = self._shell(step["run"], variables, folder)
                if status:
                    return status
        return 0

    def _action(self, given: dict) -> int:
        action = yaml.safe_load((CI / "action" / "action.yml").read_text())
        defaults = {key: substitute(value.get("default", ""), self.values) for key, value in action["inputs"].items()}
        values = self.values | {f"inputs.{key}": value for key, value in (defaults | given).items()}
        first = 0
        for step in action["runs"]["steps"]:
            if step["name"] == "NumPy":  # this Python has it
                continue
            if "comment" in step.get("if", "") and values["inputs.comment"] != "true":
                continue
            variables = {key: substitute(value, values) for key, value in step["env"].items()}
            first = self._shell(step["run"], variables, self.workspace) or first
        for line in (self.workspace / "output").read_text().splitlines():
            key, _, value = line.partition("=")
            self.outputs[key] = value
        return first

    def _shell(self, script: str, variables: dict, folder: Path) -> int:
        words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        return subprocess.run(
            words, cwd=folder, env=self.environment | {k: str(v) for k, v in variables.items()}, check=False,
            capture_output=True,
        ).returncode  # fmt: skip

    def comments(self) -> list[list[str]]:
        """What was asked of GitHub."""
        log = self.workspace / "gh.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def replay(tmp_path):
    repository = Repository(tmp_path / "repository")

    def run(arguments: str, fork: bool = False, comment: str = "") -> tuple[int, Replay]:
        one = Replay(repository, tmp_path / f"run{len(list(tmp_path.iterdir()))}", repository.commit(arguments), fork)
        one.environment["GH_COMMENT"] = comment
        return one.run(workflow()), one

    return run


def test_a_pull_request_that_changes_nothing_passes_with_one_comment(replay):
    status, run = replay("--row a=100 --row b=70 --noise 0.0011")
    assert status == 0 and (run.outputs["verdict"], run.outputs["exit_code"]) == ("PASS", "0")
    assert "Gate: PASS" in (run.workspace / "summary").read_text() and (run.workspace / "gate-results/junit.xml").exists()
    listing, writing = run.comments()
    assert "--jq" in listing and writing[:3] == ["api", "--method", "POST"]


def test_a_slowdown_fails_and_rewrites_the_comment(replay):
    status, run = replay("--row a=100 --row b=77 --noise 0.001", comment="4711")
    assert status == 1 and (run.outputs["verdict"], run.outputs["exit_code"]) == ("FAIL", "1")
    assert run.comments()[1][1:4] == ["--method", "PATCH", "repos/owner/thing/issues/comments/4711"]


def test_a_renamed_benchmark_is_named_as_such(replay):
    status, run = replay("--row a=100 --row b_new=70 --noise 0.001")
    summary = (run.workspace / "summary").read_text()
    assert status == 1 and run.outputs["verdict"] == "FAIL" and "MISSING" in summary and "removed" in summary


def test_a_fork_gets_its_verdict_and_no_comment(replay):
    status, run = replay("--row a=100 --row b=77 --noise 0.001", fork=True)
    assert status == 1 and run.outputs["verdict"] == "FAIL" and run.comments() == []


def test_a_build_that_fails_stops_before_the_gate(replay):
    status, run = replay("--row a=1", fork=False)
    document = workflow()
    document["env"]["BUILD"] = "false"
    again = Replay(run.repository, run.workspace.with_name("again"), run.head, False)
    assert again.run(document) == 1 and again.outputs == {}


def test_actions_are_pinned_and_permissions_small():
    document = workflow()
    uses = [step["uses"] for step in document["jobs"]["gate"]["steps"] if "uses" in step]
    assert len(uses) == 5 and all(PINNED.match(one) for one in uses)
    assert document["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert "pull_request_target" not in (CI / "workflows" / "gate.yml").read_text()
    checkouts = [step for step in document["jobs"]["gate"]["steps"] if step.get("uses", "").startswith("actions/checkout")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)

"""Builds the wheel of `pip install ./ci/gate` without setuptools, so that nothing is left in the checkout and nothing else is
downloaded. The hooks are those of PEP 517."""

from __future__ import annotations

import base64
import hashlib
import tomllib
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SKIPPED = {Path(__file__).name}  # no part of the installed package


def build_wheel(wheel_directory: str, config_settings: object = None, metadata_directory: object = None) -> str:
    """Writes the wheel into `wheel_directory` and returns its name."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stem = f"{project['name'].replace('-', '_')}-{project['version']}"
    information = f"{stem}.dist-info"
    files = {f"gate/{path.name}": path.read_bytes() for path in sorted(HERE.glob("*.py")) if path.name not in SKIPPED}
    files[f"{information}/METADATA"] = _metadata(project).encode()
    files[f"{information}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: gate\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    scripts = "".join(f"{name} = {target}\n" for name, target in project["scripts"].items())
    files[f"{information}/entry_points.txt"] = f"[console_scripts]\n{scripts}".encode()
    record = "".join(f"{name},sha256={_hash(content)},{len(content)}\n" for name, content in files.items())
    files[f"{information}/RECORD"] = f"{record}{information}/RECORD,,\n".encode()
    name = f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in files.items():
            wheel.writestr(zipfile.ZipInfo(path), content)
    return name


def build_sdist(sdist_directory: str, config_settings: object = None) -> str:
    """Not offered: the wheel is built from the folder itself."""
    raise NotImplementedError("build the wheel from ci/gate")


def _metadata(project: dict) -> str:
    lines = [f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\nSummary: {project['description']}"]
    lines.append(f"Requires-Python: {project['requires-python']}")
    return "\n".join([*lines, *(f"Requires-Dist: {one}" for one in project["dependencies"])]) + "\n"


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()

"""Compiles the hot path whenever the package is built or installed: a build hook of Hatchling.

Without cargo, or where compiling fails, the package is built without it, and Python does all of the work;
CALLFOLD_REQUIRE_NATIVE=1 makes a failure of that. See README.md beside this.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

REQUIRED: Final = "CALLFOLD_REQUIRE_NATIVE"
COMPILED: Final = "_native.pyd" if sys.platform == "win32" else "_native.abi3.so"
LIBRARY: Final = {"win32": "_native.dll", "darwin": "lib_native.dylib"}.get(sys.platform, "lib_native.so")


class NotCompiledError(RuntimeError):
    """Says in a few words why there is no compiled part, and in `output` what the compiler said."""

    def __init__(self, reason: str, output: str = "") -> None:
        super().__init__(reason)
        self.output = output


class NativeBuildHook(BuildHookInterface[Any]):
    """Puts the compiled part beside the Python files: there a checkout finds it, and a wheel takes it from there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before a wheel is built, also the one that an editable installation is made of."""
        folder = Path(self.root, "pipeline", "native")
        try:
            _put(_compiled(folder), folder / COMPILED)
        except NotCompiledError as error:
            if os.environ.get(REQUIRED) == "1":
                raise SystemExit(f"{error.output}\n{REQUIRED} is 1, and {error}") from None
            # One that is still there is of other sources than these.
            (folder / COMPILED).unlink(missing_ok=True)
            _say(
                f"callfold is built without its compiled part ({error}): all works, at about a third of the speed"
            )
            return
        if version == "standard":
            platform = self.build_config.builder.get_best_matching_tag().rpartition("-")[2]
            build_data["pure_python"] = False
            build_data["tag"] = f"cp311-abi3-{platform}"
            build_data["artifacts"].append(f"/pipeline/native/{COMPILED}")


def _compiled(folder: Path) -> Path:
    """The library, compiled if anything of it has changed."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise NotCompiledError("this Python takes no library of the stable ABI")
    cargo = shutil.which("cargo")
    if cargo is None:
        raise NotCompiledError("there is no cargo on the PATH: https://rustup.rs installs it")
    target = folder / os.environ.get("CARGO_TARGET_DIR", "target")
    line = [cargo, "build", "--release", "--locked", "--target-dir", str(target)]
    try:
        done = subprocess.run(  # noqa: S603  the compiler on the PATH, over our own crate
            line,
            cwd=folder,
            check=False,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise NotCompiledError(f"cargo does not run: {error}") from None
    if done.returncode != 0:
        said = [text for text in done.stderr.splitlines() if text.startswith("error")]
        raise NotCompiledError(f"cargo fails: {said[0] if said else done.returncode}", done.stderr)
    made = target / "release" / LIBRARY
    if not made.exists():
        raise NotCompiledError(f"cargo made no {made}")
    return made


def _put(made: Path, compiled: Path) -> None:
    # In one step, and only if it is another one: programs may be running on the one that is there.
    content = made.read_bytes()
    if compiled.exists() and compiled.read_bytes() == content:
        return
    aside = compiled.with_name(f"{compiled.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(compiled)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")

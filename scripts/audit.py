"""Looks the pinned packages up among known vulnerabilities: make lint.

A known vulnerability fails, unless it is ignored below with a reason. Where the service that knows them cannot be
reached, nothing was looked up: that is said, and does not fail. What was found to be clean is believed for a day.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OURS = ("requirements.txt", "requirements-dev.txt")
THEIRS = ("requirements-label-studio.txt",)
"""Label Studio's own packages, which this project only starts: told, not failed for."""

IGNORED: dict[str, str] = {}
"""Vulnerabilities by id, with the reason why they do no harm here."""

_DAY = 24 * 3600


def audit(file: Path, *options: str) -> dict[str, list[Any]] | None:
    """Vulnerabilities by package and version; None if the service did not answer.

    Args:
        file: of pinned packages.
        options: for pip-audit.
    """
    command = [
        sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--progress-spinner", "off",
        "--format", "json", "--vulnerability-service", "osv", "--timeout", "10", "--requirement", str(file), *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        if "ConnectionError" in done.stderr or "Timeout" in done.stderr or "HTTPError" in done.stderr:
            return None
        raise SystemExit(f"pip-audit failed on {file.name}:\n{done.stderr[-2000:]}") from None
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped:
        raise SystemExit(f"pip-audit could not look up {', '.join(skipped)} of {file.name}")
    return {f"{package['name']} {package['version']}": package["vulns"] for package in packages if package["vulns"]}


def report(found: dict[str, list[Any]]) -> bool:
    """Print what is known of packages; whether any of it counts."""
    counts = False
    for package, known in found.items():
        for item in known:
            names = [item["id"], *item["aliases"]]
            reason = next((IGNORED[name] for name in names if name in IGNORED), "")
            fixed = ", ".join(item["fix_versions"]) or "no version"
            print(f"{package}: {' = '.join(names)}, mended in {fixed}{f'; ignored: {reason}' if reason else ''}")
            counts = counts or not reason
    return counts


def main(arguments: list[str] | None = None) -> int:
    """Look all packages up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT, help="with the files of pinned packages")
    parser.add_argument("--osv-url", help="another vulnerability service")
    options = parser.parse_args(arguments)
    more = ["--osv-url", options.osv_url] if options.osv_url else []
    unreasoned = [name for name, reason in IGNORED.items() if not reason.strip()]
    if unreasoned:
        raise SystemExit(f"no reason is given for ignoring {', '.join(unreasoned)}")
    failed = False
    for name in (*OURS, *THEIRS):
        file = options.folder / name
        if not file.exists():
            continue
        digest = hashlib.sha256(file.read_bytes() + json.dumps(IGNORED).encode()).hexdigest()[:16]
        clean = options.folder / ".cache" / f"audited-{digest}"
        if clean.exists() and time.time() - clean.stat().st_mtime < _DAY:
            continue
        found = audit(file, *more)
        if found is None:
            print(f"\n*** {name} WAS NOT AUDITED: the vulnerability service does not answer. ***")
            print("*** Run `make lint` again where it can be reached before you publish anything. ***\n")
            continue
        counts = report(found)
        if name in THEIRS:
            print(f"{name}: {len(found)} of Label Studio's own packages have known vulnerabilities")
        elif counts:
            failed = True
            continue
        if not found:
            clean.parent.mkdir(exist_ok=True)
            clean.touch()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""The list of folders whose project settings the user trusts, in a file beside the user's own settings.

Must not know which settings need trust.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from engine.errors import InputError
from engine.files import is_disk_full, read_small_file
from infill.user_folders import make_own

FILE_NAME = "trusted.json"
FILE_BYTES = 1 << 20


class TrustList:
    """The trusted folders in `file`, which need not exist. A folder includes everything below it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def folders(self) -> list[Path]:
        """Raises InputError if the file cannot be read."""
        try:
            names = json.loads(read_small_file(self.file, FILE_BYTES))
        except FileNotFoundError:
            return []
        except OSError as reason:
            raise InputError(f"{self.file} cannot be read ({reason.strerror}); check its permissions.") from reason
        except (ValueError, RecursionError) as reason:
            raise InputError(
                f"{self.file} cannot be read ({reason}); remove it, and trust your folders again."
            ) from reason
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{self.file} is not a list of folders; remove it, and trust your folders again.")
        return [Path(name) for name in names]

    def includes(self, folder: Path) -> bool:
        resolved = folder.resolve()
        return any(resolved.is_relative_to(trusted) for trusted in self.folders())

    def add(self, folder: Path) -> Path:
        """Returns the folder as it is stored. Raises InputError if it is not a folder."""
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}; check the name.")
        resolved = folder.resolve()
        self._write({*self.folders(), resolved})
        return resolved

    def remove(self, folder: Path) -> bool:
        """Returns False if exactly this folder was not in the list."""
        folders = self.folders()
        if folder.resolve() not in folders:
            return False
        self._write(one for one in folders if one != folder.resolve())
        return True

    def _write(self, folders: Iterable[Path]) -> None:
        text = json.dumps(sorted(map(str, folders)), indent=1) + "\n"
        try:
            make_own(self.file.parent)
            handle, temporary = tempfile.mkstemp(prefix=f".{self.file.name}.", dir=self.file.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    stream.write(text)
                os.replace(temporary, self.file)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as reason:
            remedy = "free disk space" if is_disk_full(reason) else "check its permissions"
            raise InputError(f"{self.file} cannot be written ({reason.strerror}); {remedy}.") from reason

"""Filled texts, diffs, and files written without loss."""

import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from engine.errors import InputError
from infill.cli import text_edits
from infill.cli.encodings import Decoded
from infill.request import Hole


def test_holes_are_filled_in_any_order() -> None:
    fillings = [(Hole(4, 6), "Z"), (Hole(0, 0), "A"), (Hole(2, 3), "")]
    assert text_edits.apply("012345", fillings) == "A013Z"


@pytest.mark.parametrize(
    ("before", "after"),
    [("a\nb\nc\n", "a\nB\nc\n"), ("a\nb", "a\nc"), ("a", "a\n"), ("", "new\n"), ("a\r\nb\r\n", "a\r\nX\r\nb\r\n")],
)
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_applies_the_diff(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes(before.encode())
    diff = text_edits.unified_diff(before, after, "file.txt")
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=diff.encode(), check=True)
    assert file.read_bytes() == after.encode()


@pytest.mark.parametrize("name", ["a\n--- a/b\n+++ b/b", 'a"\\b', "a\tb", "é", "\udcff.py", "a\x1b[2J"])
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_name_cannot_lead_a_diff_to_another_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("a\n")
    diff = text_edits.unified_diff("a\n", "b\n", name)
    assert "\x1b" not in diff and len(diff.splitlines()) == 5
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=os.fsencode(diff), check=True)
    assert file.read_text() == "b\n"


def test_equal_texts_give_an_empty_diff() -> None:
    assert text_edits.unified_diff("a\n", "a\n", "x") == ""


def test_writing_keeps_mode_byte_order_mark_and_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    file.chmod(0o751)
    source = text_edits.read_source(file)
    assert source.text == "one\r\ntwo"
    text_edits.write_in_place(source, "one\r\nnew\r\ntwo", tmp_path)
    assert file.read_bytes() == b"\xef\xbb\xbfone\r\nnew\r\ntwo"
    assert stat.S_IMODE(file.stat().st_mode) == 0o751
    assert os.listdir(tmp_path) == ["file.py"]


def test_a_symbolic_link_is_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a.py", tmp_path / "link.py"
    target.write_text("old")
    link.symlink_to(target)
    text_edits.write_in_place(text_edits.read_source(link), "new", tmp_path)
    assert link.is_symlink() and target.read_text() == "new"


def test_a_file_that_has_changed_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("old")
    source = text_edits.read_source(file)
    file.write_text("edited")
    with pytest.raises(InputError, match="has changed since it was read"):
        text_edits.write_in_place(source, "new", tmp_path)
    assert file.read_text() == "edited"


def test_a_failed_write_leaves_only_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.py"
    file.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left.*; free disk space, or print"):
        text_edits.write_in_place(text_edits.read_source(file), "new", tmp_path)
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["a.py"]


def test_a_link_out_of_the_tree_is_not_followed(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    target = outside / "a.py"
    target.write_text("old")
    (tree / "link.py").symlink_to(target)
    (tree / "folder").symlink_to(outside)
    for path in (tree / "link.py", tree / "folder" / "a.py", tree / ".." / "outside" / "a.py"):
        with pytest.raises(InputError, match="leads out of"):
            text_edits.write_in_place(text_edits.read_source(path), "new", tree)
    assert target.read_text() == "old" and os.listdir(outside) == ["a.py"]


def test_a_folder_exchanged_for_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("tree/sub", "outside"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.py").write_text("old")
    source = text_edits.read_source(tmp_path / "tree" / "sub" / "a.py")
    open_file = os.open

    def exchange(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "sub":
            (tmp_path / "tree" / "sub").rename(tmp_path / "sub")
            (tmp_path / "tree" / "sub").symlink_to(tmp_path / "outside")
        return open_file(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", exchange)
    with pytest.raises(InputError, match="cannot be written"):
        text_edits.write_in_place(source, "new", tmp_path / "tree")
    assert (tmp_path / "outside" / "a.py").read_text() == "old"


def test_the_tree_of_a_named_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert text_edits.named_tree(Path("src/a.py")) == tmp_path
    assert text_edits.named_tree(Path("../b.py")) == tmp_path.parent


def test_a_hard_link_stays_one(tmp_path: Path) -> None:
    file, other = tmp_path / "a.py", tmp_path / "b.py"
    file.write_text("old and long")
    other.hardlink_to(file)
    text_edits.write_in_place(text_edits.read_source(file), "new", tmp_path)
    assert other.read_text() == "new" and file.samefile(other) and sorted(os.listdir(tmp_path)) == ["a.py", "b.py"]


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="needs extended attributes")
def test_extended_attributes_stay(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("old")
    try:
        os.setxattr(file, "user.note", b"kept")
    except OSError:
        pytest.skip("the file system has no extended attributes")
    text_edits.write_in_place(text_edits.read_source(file), "new", tmp_path)
    assert file.read_text() == "new" and os.getxattr(file, "user.note") == b"kept"
    assert os.listdir(tmp_path) == ["a.py"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_group_stays_and_the_file_of_another_user_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("old")
    os.chown(file, 0, 12345)
    text_edits.write_in_place(text_edits.read_source(file), "new", tmp_path)
    assert file.read_text() == "new" and file.stat().st_gid == 12345
    os.chown(file, 12345, 12345)
    with pytest.raises(InputError, match="belongs to another user"):
        text_edits.write_in_place(text_edits.read_source(file), "newer", tmp_path)
    assert file.read_text() == "new"


@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_a_setuid_or_setgid_file_is_not_written(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "a.py"
    file.write_text("old")
    file.chmod(mode)
    with pytest.raises(InputError, match="is setuid or setgid"):
        text_edits.write_in_place(text_edits.read_source(file), "new", tmp_path)
    assert file.read_text() == "old" and stat.S_IMODE(file.stat().st_mode) == mode


def test_a_pipe_is_not_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is not a regular file"):
        text_edits.write_in_place(text_edits.SourceFile(tmp_path / "pipe", Decoded(""), b""), "new", tmp_path)


def test_a_failed_overwrite_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, write = tmp_path / "a.py", os.pwrite
    file.write_text("old")
    (tmp_path / "b.py").hardlink_to(file)

    def full(handle: int, content: bytes, offset: int) -> int:
        if offset >= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, content[:3], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(InputError, match="No space left.*; free disk space, or print"):
        text_edits.write_in_place(text_edits.read_source(file), "much longer", tmp_path)
    assert file.read_text() == "old"


def test_a_file_that_cannot_be_read_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    binary = tmp_path / "binary.py"
    binary.write_bytes(b"x\n# caf\xe9\n\0")
    with pytest.raises(InputError, match=r"not UTF-8 text \(line 2\); name its encoding .* convert"):
        text_edits.read_source(binary)
    with pytest.raises(InputError, match="no file"):
        text_edits.read_source(tmp_path / "absent.py")
    with pytest.raises(InputError, match="is a folder"):
        text_edits.read_source(tmp_path)


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    """A pipe without a writer is not waited for, and a device without an end is not read."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(InputError, match=f"{path} is not a regular file; send its text to `gesso infill -`"):
            text_edits.read_source(path)
    with (tmp_path / "long.py").open("wb") as stream:
        stream.truncate(text_edits.MOST_BYTES + 1)
    with pytest.raises(InputError, match="has more than 8 MiB; name a smaller file"):
        text_edits.read_source(tmp_path / "long.py")

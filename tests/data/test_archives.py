"""Tars: plain and compressed, hostile and damaged."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from roarline.data.archives import compression, list_members, read_members, stream_members
from roarline.data.raw import STREAMED
from roarline.errors import DataError
from tests.data.builders import write_tar

FILES = {"a/1.png": b"one", "a/2.png": b"", "b/long.png": b"x" * 5000}


@pytest.mark.parametrize(("mode", "kind"), [("w", ""), ("w:gz", "gz"), ("w:xz", "xz"), ("w:bz2", "bz2")])
def test_every_compression_gives_the_same_members(tmp_path: Path, mode: str, kind: str) -> None:
    path = write_tar(tmp_path / "any.name", FILES, mode)
    assert compression(path) == kind
    members = list_members(path)
    assert {member.path: member.size for member in members} == {name: len(data) for name, data in FILES.items()}
    assert dict(stream_members(path, FILES)) == FILES
    assert read_members(path, {"a/1.png", "missing"}) == {"a/1.png": b"one"}
    assert all((member.offset == STREAMED) == bool(kind) for member in members)


def test_the_offsets_of_a_plain_tar_lead_to_the_bytes(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "plain.tar", FILES)
    for member in list_members(path):
        assert path.read_bytes()[member.offset : member.offset + member.size] == FILES[member.path]


def test_only_regular_files_with_plain_names_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("/etc/evil.png", "../evil.png", "a/../../evil.png", "./fine//x.png", "ok.png"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            member = tarfile.TarInfo(f"odd-{kind.decode()}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    assert [member.path for member in list_members(path)] == ["fine/x.png", "ok.png"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_truncated_tar_is_named(tmp_path: Path, mode: str) -> None:
    whole = write_tar(tmp_path / "whole.tar", {"a.png": bytes(range(256)) * 400}, mode).read_bytes()
    path = tmp_path / "half.tar"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"half\.tar: can't be read as a tar"):
        dict(stream_members(path, {"a.png"}))


def test_what_is_no_tar_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.tar"
    path.write_text("no tar at all " * 100)
    with pytest.raises(DataError, match=r"notes\.tar: can't be read as a tar"):
        list_members(path)

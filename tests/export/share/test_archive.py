"""Archives of runs: packing and unpacking, and refusals of hostile and damaged archives."""

import io
import json
import os
import shutil
import stat
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from edited import copy_with_metadata
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TEACHER

from export import describe_archive, pack, unpack
from export.artefacts import load_agent
from export.share.manifest import CARD, MANIFEST, Manifest
from teachers import InputError, load_teacher, teacher_config, train_teacher
from teachers.runs import outputs
from teachers.runs.checkpoint_readable import UnreadableError
from teachers.runs.checkpoints import (
    CheckpointWarning,
    DamagedError,
    json_digest,
    read_metadata,
)
from teachers.runs.metadata import parameter_digest

Members = list[tuple[zipfile.ZipInfo, bytes]]
Edit = Callable[[Path, Path], object]  # reads the first archive and writes the second


def read_contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="session")
def archive(teacher_run, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("archives") / "teacher.zip"
    pack(teacher_run, file)
    return file


@pytest.mark.parametrize("kind", ["teacher", "student"])
@pytest.mark.parametrize("full", [False, True])
def test_unpack_restores_the_packed_run(teacher_run, student_run, tmp_path, kind, full) -> None:
    run = {"teacher": teacher_run, "student": student_run}[kind]
    packed = pack(run, tmp_path / "run.zip", full=full)
    unpacked = unpack(tmp_path / "run.zip", tmp_path / "run")
    assert packed | {"out": ""} == unpacked | {"out": ""}
    assert describe_archive(tmp_path / "run.zip") == {
        k: unpacked[k] for k in unpacked if k != "out"
    }
    there, here = load_agent(run), load_agent(tmp_path / "run")
    assert there.metadata == here.metadata
    assert parameter_digest(there.params) == parameter_digest(here.params)
    original, copy = read_contents(run), read_contents(tmp_path / "run")
    assert copy.pop(CARD).startswith(b"---\nlibrary_name: crl-distill")
    assert copy.items() <= original.items()
    if full:
        assert copy == original
    else:
        tops = {path.split("/")[2] for path in copy if path.startswith("checkpoints/")}
        assert tops == {"_CHECKPOINT_METADATA", "metadata", "checksums", "params"}
        assert {path for path in copy if "/" not in path} == {"config.toml"}


def test_pack_passes_over_a_damaged_checkpoint(teacher_run, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    for file in (run / "checkpoints" / "160" / "params" / "d").iterdir():
        file.write_bytes(b"")
    with pytest.warns(CheckpointWarning, match="checkpoint 160 .* using 80"):
        assert pack(run, tmp_path / "run.zip")["step"] == 80
    assert pack(teacher_run, tmp_path / "older.zip", checkpoint=80)["step"] == 80


@pytest.mark.parametrize(
    "error",
    [UnreadableError("cannot be read now"), DamagedError("is damaged"), InputError("no task")],
)
def test_pack_shares_without_check_only_where_the_task_is_missing(
    error, teacher_run, tmp_path, monkeypatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("export.share.bundle.load_agent", fail)
    if type(error) is InputError:
        assert pack(teacher_run, tmp_path / "run.zip")["step"] == 160
        return
    with pytest.raises(type(error), match=str(error)):
        pack(teacher_run, tmp_path / "run.zip", checkpoint=160)
    assert not (tmp_path / "run.zip").exists()


def test_pack_says_which_other_checkpoint_cannot_be_read(
    teacher_run, tmp_path, monkeypatch
) -> None:
    def read(run, step):
        if step == 80:
            raise UnreadableError("cannot read checkpoint 80")
        return read_metadata(run, step)

    monkeypatch.setattr("export.share.bundle.read_metadata", read)
    with pytest.raises(UnreadableError, match="cannot read checkpoint 80"):
        pack(teacher_run, tmp_path / "run.zip", full=True)


# test_fixtures.py resumes a stored archive, and the test above compares every file.
@pytest.mark.slow
def test_unpack_of_a_full_archive_can_be_resumed(teacher_run, tmp_path) -> None:
    pack(teacher_run, tmp_path / "run.zip", full=True)
    unpack(tmp_path / "run.zip", tmp_path / "run")
    config = teacher_config("reacher", overrides={**TEACHER, "steps": TEACHER["steps"] + 40})
    resumed = train_teacher(config, tmp_path / "run", resume=True)
    assert resumed.metadata.metrics["steps"] == TEACHER["steps"] + 40


def test_pack_gives_the_same_bytes_again(archive, teacher_run, tmp_path) -> None:
    shutil.copytree(teacher_run, tmp_path / "copy")  # with other times and another order of files
    pack(tmp_path / "copy", tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    assert zipfile.ZipFile(archive).namelist()[0] == MANIFEST


def test_pack_keeps_the_run_s_own_card(archive, tmp_path) -> None:
    unpack(archive, tmp_path / "run")
    (tmp_path / "run" / CARD).write_text("# Mine")
    pack(tmp_path / "run", tmp_path / "again.zip")
    unpack(tmp_path / "again.zip", tmp_path / "again")
    assert (tmp_path / "again" / CARD).read_text() == "# Mine"


def test_pack_leaves_out_unfinished_checkpoints_and_hidden_files(teacher_run, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    before = pack(run, tmp_path / "before.zip", full=True)
    names = [
        "checkpoints/200.orbax-checkpoint-tmp-1/params/x",
        "unfinished/checkpoints/2/metadata/metadata",
        *(".token", ".git/config", ".lock"),
    ]
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("secret")
    assert pack(run, tmp_path / "after.zip", full=True)["files"] == before["files"]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("place", ["config.toml", "task_source", "config", "older"])
def test_pack_warns_of_the_folder_of_the_task_file(teacher_run, tmp_path, place, full) -> None:
    private, run = "/home/me/robots/mine.py:Mine", tmp_path / "run"
    if place in ("task_source", "config"):
        config = {**read_metadata(teacher_run).config, "task": private}
        value = private if place == "task_source" else config
        copy_with_metadata(teacher_run, run, **{place: value})
    else:
        shutil.copytree(teacher_run, run)
    if place == "config.toml":
        (run / "config.toml").write_text(f'task = "{private}"\n')
    if place == "older":
        metadata = run / "checkpoints" / "80" / "metadata" / "metadata"
        raw = {**json.loads(metadata.read_text()), "task_source": private}
        metadata.write_text(json.dumps(raw))
        sums = metadata.parents[1] / "checksums" / "metadata"
        digests = {**json.loads(sums.read_text()), "metadata": json_digest(raw)}
        sums.write_text(json.dumps(digests))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pack(run, tmp_path / "run.zip", full=full)
    messages = [str(each.message) for each in caught if private in str(each.message)]
    if place == "older" and not full:
        assert messages == []
        return
    (message,) = messages
    assert "\n" not in message
    assert str(run) in message
    assert "train it again with this version" in message


def test_pack_does_not_warn_of_the_name_of_the_task_file(teacher_run, tmp_path) -> None:
    source = {"task_source": "mine.py:Mine", "task_digest": "0" * 64}
    run = copy_with_metadata(teacher_run, tmp_path / "run", **source)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pack(run, tmp_path / "run.zip")
    assert (tmp_path / "run.zip").is_file()


@pytest.mark.parametrize("place", ["config.toml", "checkpoints", "checkpoints/160/params/d", CARD])
def test_pack_refuses_links(teacher_run, tmp_path, place) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    (run / CARD).write_text("card")
    (run / place).rename(tmp_path / "elsewhere")
    (run / place).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{place} is a link"):
        pack(run, tmp_path / "run.zip")
    assert not list(tmp_path.glob("*.zip*"))
    assert not list(tmp_path.glob(".*"))


def test_pack_and_unpack_overwrite_nothing(archive, teacher_run, tmp_path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    (tmp_path / "taken.zip").write_text("mine")
    with pytest.raises(InputError, match=r"taken already holds files.*nothing was overwritten"):
        unpack(archive, taken)
    with pytest.raises(InputError, match=r"taken.zip exists.*nothing was overwritten"):
        unpack(archive, tmp_path / "taken.zip")
    with pytest.raises(InputError, match=r"taken.zip exists.*nothing was overwritten"):
        pack(teacher_run, tmp_path / "taken.zip")
    with pytest.raises(InputError, match=r"must end in \.zip"):
        pack(teacher_run, tmp_path / "run.tar")
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(InputError, match=r"folder.zip is a folder"):
        pack(teacher_run, tmp_path / "folder.zip")
    assert read_contents(tmp_path) == {"taken/thesis.txt": b"mine", "taken.zip": b"mine"}


def test_unpack_accepts_an_empty_folder(archive, tmp_path) -> None:
    unpack(archive, tmp_path)
    assert load_teacher(tmp_path).task.name == "reacher"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("call", [pack, unpack])
def test_pack_and_unpack_leave_nothing_after_an_interruption(
    archive, teacher_run, tmp_path, monkeypatch, call, error
) -> None:
    from export.share import archive as module

    copied = []

    def failing(read: Callable, entry: object, source: str, write: Callable | None = None) -> None:
        if write:
            copied.append(write(read(100)))
            if len(copied) == 3:
                raise error

    monkeypatch.setattr(module, "copy_verified", failing)
    expected, words = (
        (KeyboardInterrupt, None)
        if isinstance(error, KeyboardInterrupt)
        else (InputError, "No space")
    )
    source = teacher_run if call is pack else archive
    with pytest.raises(expected, match=words):
        call(source, tmp_path / "x.zip")
    assert not list(tmp_path.iterdir())


def test_pack_refuses_a_run_that_changes_meanwhile(teacher_run, tmp_path, monkeypatch) -> None:
    from export.share import archive as module

    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    make_bundle = module.make_bundle

    def change_afterwards(*arguments: object, **options: object) -> object:
        bundle = make_bundle(*arguments, **options)
        (run / "config.toml").write_text("seed = 1")
        return bundle

    monkeypatch.setattr(module, "make_bundle", change_afterwards)
    with pytest.raises(InputError, match=r"'config.toml' changed meanwhile"):
        pack(run, tmp_path / "run.zip")


def test_unpack_refuses_a_full_disk_first(archive, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(outputs, "free_bytes", lambda _: 1)
    with pytest.raises(InputError, match="only 1 are free"):
        unpack(archive, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def rewrite(
    archive: Path,
    file: Path,
    *,
    change_manifest: Callable[[dict], object] = lambda manifest: None,
    change_members: Callable[[Members], object] = lambda members: None,
) -> None:
    """Writes an archive again with another manifest or other members."""
    with zipfile.ZipFile(archive) as old:
        members = [(info, old.read(info)) for info in old.infolist()]
    manifest = json.loads(members[0][1])
    change_manifest(manifest)
    members[0] = (members[0][0], json.dumps(manifest).encode())
    change_members(members)
    with zipfile.ZipFile(file, "w") as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of duplicates
        for info, content in members:
            new.writestr(info, content)


def rename_file(path: str) -> Edit:
    """Returns an edit that gives `config.toml` another path, in the manifest too."""

    def change_manifest(manifest: dict) -> None:
        (entry,) = (entry for entry in manifest["files"] if entry["path"] == "config.toml")
        entry["path"] = path

    def change_members(members: Members) -> None:
        for info, _ in members:
            if info.filename == "config.toml":
                info.filename = path

    return lambda archive, file: rewrite(
        archive, file, change_manifest=change_manifest, change_members=change_members
    )


def set_mode(mode: int) -> Edit:
    def change_members(members: Members) -> None:
        members[-1][0].external_attr = mode << 16

    return lambda archive, file: rewrite(archive, file, change_members=change_members)


def set_manifest(**fields: object) -> Edit:
    return lambda archive, file: rewrite(
        archive, file, change_manifest=lambda manifest: manifest.update(fields)
    )


def edit_members(change_members: Callable[[Members], object]) -> Edit:
    return lambda archive, file: rewrite(archive, file, change_members=change_members)


def edit_bytes(change: Callable[[bytes], bytes]) -> Edit:
    return lambda archive, file: file.write_bytes(change(archive.read_bytes()))


def flip_bit(raw: bytes) -> bytes:
    """Returns an archive with one bit of its last file's content changed."""
    with zipfile.ZipFile(io.BytesIO(raw)) as reader:
        info = reader.infolist()[-1]
    index = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
    return raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]


def make_bomb(archive: Path, file: Path) -> None:
    """Writes an archive with a member that unpacks to far more than it declares."""
    rewrite(
        archive,
        file,
        change_members=lambda members: members.__setitem__(-1, (members[-1][0], bytes(10**7))),
    )
    info = zipfile.ZipFile(archive).infolist()[-1]
    raw = bytearray(file.read_bytes())
    true_size = (10**7).to_bytes(4, "little")
    for start in (raw.find(true_size), raw.rfind(true_size)):  # in the local and the central header
        raw[start : start + 4] = info.file_size.to_bytes(4, "little")
    file.write_bytes(raw)


HOSTILE = {
    "absolute": (rename_file("/etc/config.toml"), "'/etc/config.toml' is an absolute path"),
    "parent": (rename_file("../config.toml"), "'../config.toml' leaves the folder"),
    "inner parent": (rename_file("a/../../b"), "leaves the folder"),
    "backslash": (rename_file("..\\config.toml"), "holds a backslash"),
    "drive": (rename_file("C:config.toml"), "a colon"),
    "dot": (rename_file("./config.toml"), "ends in a dot"),
    "trailing space": (rename_file("config.toml "), "ends in a dot or a space"),
    "empty part": (rename_file("a//b"), "has an empty part"),
    "folder": (rename_file("a/"), "is a folder"),
    "control": (rename_file("a\nb"), "a control character"),
    "not normal": (rename_file("cafe\u0301"), "Unicode's normal form"),
    "other case": (rename_file("readme.MD"), "occurs twice"),
    "file and folder": (rename_file("checkpoints"), "both a file and a folder"),
    "two manifests": (rename_file(MANIFEST), "'manifest.json'"),
    "link": (set_mode(stat.S_IFLNK | 0o777), "is a link"),
    "device": (set_mode(stat.S_IFBLK | 0o666), "a special file"),
    "fifo": (set_mode(stat.S_IFIFO | 0o666), "a special file"),
    "twice": (edit_members(lambda members: members.append(members[-1])), "occurs twice"),
    "extra": (
        edit_members(lambda members: members.append((zipfile.ZipInfo("extra"), b""))),
        "'extra' is not in its manifest",
    ),
    "missing": (edit_members(lambda members: members.pop()), "is missing"),
    "no manifest": (edit_members(lambda members: members.pop(0)), "holds no run of crl-distill"),
    "other bytes": (
        edit_members(
            lambda members: members.__setitem__(-1, (members[-1][0], members[-1][1][::-1]))
        ),
        "does not have its checksum",
    ),
    "other size": (
        edit_members(
            lambda members: members.__setitem__(-1, (members[-1][0], members[-1][1] + b"x"))
        ),
        "is not of the size",
    ),
    "bomb": (make_bomb, "is damaged or not from crl-distill|cannot be read"),
    "flip_bit bit": (edit_bytes(flip_bit), "cannot be read|checksum"),
    "cut off": (edit_bytes(lambda raw: raw[:-100]), "damaged or no zip archive"),
    "empty": (edit_bytes(lambda raw: b""), "damaged or no zip archive"),
    "no zip": (edit_bytes(lambda raw: b"#!/bin/sh\n" * 100), "damaged or no zip archive"),
    "newer": (
        set_manifest(format_version=2, crl_distill="9.1.0", files="another layout"),
        r"archive format 2, newer than this crl-distill reads \(1\); install crl-distill 9.1.0 or later",
    ),
    "newer, of a strange version": (
        set_manifest(format_version=2, crl_distill="\x1b[2J"),
        "install the newest crl-distill",
    ),
    "another format": (set_manifest(format="recipe"), "holds no run of crl-distill"),
    "no files": (set_manifest(files=None), "has no valid files"),
    "a strange task": (set_manifest(task="\x1b[2J"), "control characters"),
    "deep JSON": (
        edit_members(lambda members: members.__setitem__(0, (members[0][0], b"[" * 10**5))),
        "is not JSON",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_unpack_refuses_hostile_and_damaged_archives(archive, tmp_path, case) -> None:
    edit, words = HOSTILE[case]
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "hostile.zip"
    edit(archive, file)
    with pytest.raises(InputError, match=words) as refused:
        unpack(file, tmp_path / "out")
    assert str(refused.value).startswith(str(file))
    assert str(refused.value).isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["hostile.zip"]


def test_unpack_refuses_encrypted_members(archive, tmp_path) -> None:
    raw = bytearray(archive.read_bytes())
    central = raw.rfind(b"PK\x01\x02")  # the last entry's record in the table of contents
    raw[central + 8] |= 1
    file = tmp_path / "secret.zip"
    file.write_bytes(raw)
    with pytest.raises(InputError, match="is encrypted"):
        unpack(file, tmp_path / "out")


def test_unpack_refuses_a_member_of_another_size_than_listed(archive, tmp_path) -> None:
    def change(manifest: dict) -> None:
        manifest["files"][-1]["size"] = 2**60

    file = tmp_path / "huge.zip"
    rewrite(archive, file, change_manifest=change)
    with pytest.raises(InputError, match="is not of the size that its manifest says"):
        unpack(file, tmp_path / "out")


def test_unpack_ignores_later_fields_of_the_format(archive, tmp_path) -> None:
    file = tmp_path / "later.zip"
    rewrite(archive, file, change_manifest=lambda manifest: manifest.update(colour="red"))
    unpack(file, tmp_path / "out")
    assert load_teacher(tmp_path / "out").task.name == "reacher"


def test_pack_refuses_file_names_of_other_systems(teacher_run, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    (run / "a:b").write_text("")
    with pytest.raises(InputError, match="'a:b' holds a backslash, a colon"):
        pack(run, tmp_path / "run.zip", full=True)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_unpack_finds_damage_or_restores_the_run(archive, data) -> None:
    raw = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # Half of the damage to the table of contents at the end, which is a small part of the file.
        start = data.draw(st.sampled_from([0, max(0, len(raw) - 2500)]))
        index = data.draw(st.integers(start, len(raw) - 1))
        raw[index] ^= data.draw(st.integers(1, 255))
    raw = raw[: data.draw(st.sampled_from([len(raw)] * 4 + [len(raw) // 2, len(raw) - 1]))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        (folder / "in" / "damaged.zip").write_bytes(raw)
        try:
            unpack(folder / "in" / "damaged.zip", folder / "out")
        except InputError as error:
            message = str(error)
        else:
            unpack(archive, folder / "whole")
            assert read_contents(folder / "out") == read_contents(folder / "whole")
            return
        assert "\n" not in message
        assert os.listdir(folder) == ["in"]


def test_describe_archive_names_format_and_version(archive) -> None:
    described = describe_archive(archive)
    assert (described["format_version"], described["kind"]) == (1, "teacher")
    assert described["crl_distill"]
    assert Manifest.model_fields["format"].default == "crl-distill run"

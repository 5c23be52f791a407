"""Archives: what goes in comes out, the same bytes each time, and nothing hostile or damaged is written."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TEACHER

from export import describe_archive, pack, unpack
from export.artefacts import load_agent
from export.share.manifest import CARD, NAME, Manifest
from teachers import InputError, load_teacher, teacher_config, train_teacher
from teachers.runs import outputs
from teachers.runs.checkpoints import CheckpointWarning
from teachers.runs.metadata import parameter_digest


def contents(folder: Path) -> dict[str, bytes]:
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
def test_an_unpacked_run_is_the_run_that_was_packed(
    teacher_run, student_run, tmp_path, kind, full
) -> None:
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
    original, copy = contents(run), contents(tmp_path / "run")
    assert copy.pop(CARD).startswith(b"---\nlibrary_name: crl-distill")
    assert copy.items() <= original.items()
    if full:
        assert copy == original
    else:
        tops = {path.split("/")[2] for path in copy if path.startswith("checkpoints/")}
        assert tops == {"_CHECKPOINT_METADATA", "metadata", "checksums", "params"}
        assert {path for path in copy if "/" not in path} == {"config.toml"}


def test_a_damaged_checkpoint_is_not_shared(teacher_run, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    for file in (run / "checkpoints" / "160" / "params" / "d").iterdir():
        file.write_bytes(b"")
    with pytest.warns(CheckpointWarning, match="checkpoint 160 .* using 80"):
        assert pack(run, tmp_path / "run.zip")["step"] == 80
    assert pack(teacher_run, tmp_path / "older.zip", checkpoint=80)["step"] == 80


def test_a_full_archive_can_be_resumed(teacher_run, tmp_path) -> None:
    pack(teacher_run, tmp_path / "run.zip", full=True)
    unpack(tmp_path / "run.zip", tmp_path / "run")
    config = teacher_config("reacher", overrides={**TEACHER, "steps": TEACHER["steps"] + 40})
    resumed = train_teacher(config, tmp_path / "run", resume=True)
    assert resumed.metadata.metrics["steps"] == TEACHER["steps"] + 40


def test_the_same_run_gives_the_same_bytes(archive, teacher_run, tmp_path) -> None:
    shutil.copytree(teacher_run, tmp_path / "copy")  # with other times and another order of files
    pack(tmp_path / "copy", tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    assert zipfile.ZipFile(archive).namelist()[0] == NAME


def test_what_was_unpacked_is_packed_with_its_own_card(archive, tmp_path) -> None:
    unpack(archive, tmp_path / "run")
    (tmp_path / "run" / CARD).write_text("# Mine")
    pack(tmp_path / "run", tmp_path / "again.zip")
    unpack(tmp_path / "again.zip", tmp_path / "again")
    assert (tmp_path / "again" / CARD).read_text() == "# Mine"


def test_unfinished_checkpoints_and_hidden_files_stay(teacher_run, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    before = pack(run, tmp_path / "before.zip", full=True)
    for name in ("checkpoints/200.orbax-checkpoint-tmp-1/params/x", ".token", ".git/config"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("secret")
    assert pack(run, tmp_path / "after.zip", full=True)["files"] == before["files"]


@pytest.mark.parametrize("place", ["config.toml", "checkpoints", "checkpoints/160/params/d", CARD])
def test_a_run_with_a_link_is_refused(teacher_run, tmp_path, place) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    (run / CARD).write_text("card")
    (run / place).rename(tmp_path / "elsewhere")
    (run / place).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{place} is a link"):
        pack(run, tmp_path / "run.zip")
    assert not list(tmp_path.glob("*.zip*"))
    assert not list(tmp_path.glob(".*"))


def test_nothing_is_overwritten(archive, teacher_run, tmp_path) -> None:
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
    assert contents(tmp_path) == {"taken/thesis.txt": b"mine", "taken.zip": b"mine"}


def test_an_empty_folder_is_filled(archive, tmp_path) -> None:
    unpack(archive, tmp_path)
    assert load_teacher(tmp_path).task.name == "reacher"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("call", [pack, unpack])
def test_an_interruption_or_a_full_disk_leaves_nothing(
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
        (KeyboardInterrupt, "")
        if isinstance(error, KeyboardInterrupt)
        else (InputError, "No space")
    )
    source = teacher_run if call is pack else archive
    with pytest.raises(expected, match=words):
        call(source, tmp_path / "x.zip")
    assert not list(tmp_path.iterdir())


def test_a_run_that_changes_meanwhile_is_refused(teacher_run, tmp_path, monkeypatch) -> None:
    from export.share import archive as module

    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    honest = module.bundle

    def late(*given: object, **named: object) -> object:
        made = honest(*given, **named)
        (run / "config.toml").write_text("seed = 1")
        return made

    monkeypatch.setattr(module, "bundle", late)
    with pytest.raises(InputError, match=r"'config.toml' changed meanwhile"):
        pack(run, tmp_path / "run.zip")


def test_a_disk_too_small_is_said_first(archive, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(outputs, "free_bytes", lambda _: 1)
    with pytest.raises(InputError, match="only 1 are free"):
        unpack(archive, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def rewritten(
    archive: Path,
    file: Path,
    *,
    change: Callable[[dict], None] = lambda manifest: None,
    entries: Callable[[list[tuple[zipfile.ZipInfo, bytes]]], None] = lambda entries: None,
) -> None:
    """Writes an archive again with another manifest or other entries."""
    with zipfile.ZipFile(archive) as old:
        held = [(info, old.read(info)) for info in old.infolist()]
    manifest = json.loads(held[0][1])
    change(manifest)
    held[0] = (held[0][0], json.dumps(manifest).encode())
    entries(held)
    with zipfile.ZipFile(file, "w") as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of duplicates
        for info, content in held:
            new.writestr(info, content)


def renamed(path: str) -> Callable[[Path, Path], None]:
    """An archive in which `config.toml` has another path, in the manifest too."""

    def change(manifest: dict) -> None:
        (entry,) = (entry for entry in manifest["files"] if entry["path"] == "config.toml")
        entry["path"] = path

    def entries(held: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
        for info, _ in held:
            if info.filename == "config.toml":
                info.filename = path

    return lambda archive, file: rewritten(archive, file, change=change, entries=entries)


def with_mode(mode: int) -> Callable[[Path, Path], None]:
    def entries(held: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
        held[-1][0].external_attr = mode << 16

    return lambda archive, file: rewritten(archive, file, entries=entries)


def with_manifest(**fields: object) -> Callable[[Path, Path], None]:
    return lambda archive, file: rewritten(archive, file, change=lambda m: m.update(fields))


def with_entries(change: Callable[[list], object]) -> Callable[[Path, Path], None]:
    return lambda archive, file: rewritten(
        archive, file, entries=lambda held: change(held) and None
    )


def with_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path, Path], None]:
    return lambda archive, file: (file.write_bytes(change(archive.read_bytes())), None)[1]


def flipped(raw: bytes) -> bytes:
    """One bit of the last file's content."""
    with zipfile.ZipFile(io.BytesIO(raw)) as reader:
        info = reader.infolist()[-1]
    place = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


def bomb(archive: Path, file: Path) -> None:
    """An entry that unpacks to far more than it declares."""
    rewritten(archive, file, entries=lambda held: held.__setitem__(-1, (held[-1][0], bytes(10**7))))
    info = zipfile.ZipFile(archive).infolist()[-1]
    raw = bytearray(file.read_bytes())
    false = (10**7).to_bytes(4, "little")
    for place in (raw.find(false), raw.rfind(false)):  # in the local and the central header
        raw[place : place + 4] = info.file_size.to_bytes(4, "little")
    file.write_bytes(raw)


HOSTILE = {
    "absolute": (renamed("/etc/config.toml"), "'/etc/config.toml' is an absolute path"),
    "parent": (renamed("../config.toml"), "'../config.toml' leaves the folder"),
    "inner parent": (renamed("a/../../b"), "leaves the folder"),
    "backslash": (renamed("..\\config.toml"), "holds a backslash"),
    "drive": (renamed("C:config.toml"), "a colon"),
    "dot": (renamed("./config.toml"), "ends in a dot"),
    "trailing space": (renamed("config.toml "), "ends in a dot or a space"),
    "empty part": (renamed("a//b"), "has an empty part"),
    "folder": (renamed("a/"), "is a folder"),
    "control": (renamed("a\nb"), "a control character"),
    "not normal": (renamed("cafe\u0301"), "Unicode's normal form"),
    "other case": (renamed("readme.MD"), "occurs twice"),
    "file and folder": (renamed("checkpoints"), "both a file and a folder"),
    "two manifests": (renamed(NAME), "'manifest.json'"),
    "link": (with_mode(stat.S_IFLNK | 0o777), "is a link"),
    "device": (with_mode(stat.S_IFBLK | 0o666), "a special file"),
    "fifo": (with_mode(stat.S_IFIFO | 0o666), "a special file"),
    "twice": (with_entries(lambda held: held.append(held[-1])), "occurs twice"),
    "extra": (
        with_entries(lambda held: held.append((zipfile.ZipInfo("extra"), b""))),
        "'extra' is not in its manifest",
    ),
    "missing": (with_entries(lambda held: held.pop()), "is missing"),
    "no manifest": (with_entries(lambda held: held.pop(0)), "holds no run of crl-distill"),
    "other bytes": (
        with_entries(lambda held: held.__setitem__(-1, (held[-1][0], held[-1][1][::-1]))),
        "does not have its checksum",
    ),
    "other size": (
        with_entries(lambda held: held.__setitem__(-1, (held[-1][0], held[-1][1] + b"x"))),
        "is not of the size",
    ),
    "bomb": (bomb, "is damaged or not ours|cannot be read"),
    "flipped bit": (with_bytes(flipped), "cannot be read|checksum"),
    "cut off": (with_bytes(lambda raw: raw[:-100]), "damaged or no zip archive"),
    "empty": (with_bytes(lambda raw: b""), "damaged or no zip archive"),
    "no zip": (with_bytes(lambda raw: b"#!/bin/sh\n" * 100), "damaged or no zip archive"),
    "newer": (
        with_manifest(format_version=2, crl_distill="9.1.0", files="another layout"),
        r"archive format 2, newer than this crl-distill reads \(1\); install crl-distill 9.1.0 or later",
    ),
    "newer, of a strange version": (
        with_manifest(format_version=2, crl_distill="\x1b[2J"),
        "install the newest crl-distill",
    ),
    "another format": (with_manifest(format="recipe"), "holds no run of crl-distill"),
    "no files": (with_manifest(files=None), "has no valid files"),
    "a strange task": (with_manifest(task="\x1b[2J"), "control characters"),
    "deep JSON": (
        with_entries(lambda held: held.__setitem__(0, (held[0][0], b"[" * 10**5))),
        "is not JSON",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_and_damaged_archives_are_refused(archive, tmp_path, case) -> None:
    make, words = HOSTILE[case]
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "hostile.zip"
    make(archive, file)
    with pytest.raises(InputError, match=words) as refused:
        unpack(file, tmp_path / "out")
    assert str(refused.value).startswith(str(file))
    assert str(refused.value).isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["hostile.zip"]


def test_an_encrypted_entry_is_refused(archive, tmp_path) -> None:
    raw = bytearray(archive.read_bytes())
    central = raw.rfind(b"PK\x01\x02")  # the last entry's record in the table of contents
    raw[central + 8] |= 1
    file = tmp_path / "secret.zip"
    file.write_bytes(raw)
    with pytest.raises(InputError, match="is encrypted"):
        unpack(file, tmp_path / "out")


def test_more_than_the_disk_has_is_refused_before_it_is_read(archive, tmp_path) -> None:
    def change(manifest: dict) -> None:
        manifest["files"][-1]["size"] = 2**60

    file = tmp_path / "huge.zip"
    rewritten(archive, file, change=change)
    with pytest.raises(InputError, match="is not of the size that its manifest says"):
        unpack(file, tmp_path / "out")


def test_later_fields_of_the_same_format_are_passed_over(archive, tmp_path) -> None:
    file = tmp_path / "later.zip"
    rewritten(archive, file, change=lambda manifest: manifest.update(colour="red"))
    unpack(file, tmp_path / "out")
    assert load_teacher(tmp_path / "out").task.name == "reacher"


def test_a_file_name_that_cannot_travel_is_refused(teacher_run, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher_run, run)
    (run / "a:b").write_text("")
    with pytest.raises(InputError, match="'a:b' holds a backslash, a colon"):
        pack(run, tmp_path / "run.zip", full=True)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_damage_is_found_or_does_no_harm(archive, data) -> None:
    raw = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # Half of the damage to the table of contents at the end, which is a small part of the file.
        start = data.draw(st.sampled_from([0, max(0, len(raw) - 2500)]))
        place = data.draw(st.integers(start, len(raw) - 1))
        raw[place] ^= data.draw(st.integers(1, 255))
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
            assert contents(folder / "out") == contents(folder / "whole")
            return
        assert "\n" not in message
        assert os.listdir(folder) == ["in"]


def test_a_manifest_says_who_wrote_it(archive) -> None:
    described = describe_archive(archive)
    assert (described["format_version"], described["kind"]) == (1, "teacher")
    assert described["crl_distill"]
    assert Manifest.model_fields["format"].default == "crl-distill run"

"""Push and pull against a local server that stands in for the hub."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from export import pull, push
from export.share.manifest import MANIFEST
from students import load_student
from teachers import InputError, load_teacher
from teachers.runs.metadata import parameter_digest

REPO = "ada/reacher-teacher"


def test_pull_restores_the_pushed_run(hub, teacher_run, tmp_path) -> None:
    pushed = push(teacher_run, REPO)
    assert pushed["url"] == f"{hub.url}/{REPO}"
    pulled = pull(REPO, tmp_path / "run")
    assert pulled["commit"] == pushed["commit"]
    assert pulled["files"] == pushed["files"]
    there, here = load_teacher(teacher_run), load_teacher(tmp_path / "run")
    assert parameter_digest(there.params) == parameter_digest(here.params)
    assert there.metadata == here.metadata
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert not (tmp_path / "run" / ".cache").exists()


def test_push_uploads_a_student_with_card_and_large_files(hub, student_run, tmp_path) -> None:
    push(student_run, "ada/student", private=True)
    assert hub.repositories["ada/student"].private
    assert hub.objects  # binary files went through LFS
    card = hub.tree("ada/student")["README.md"].decode()
    assert "crl-distill share pull ada/student" in card
    pull("ada/student", tmp_path / "run")
    assert parameter_digest(load_student(student_run).params) == parameter_digest(
        load_student(tmp_path / "run").params
    )


@pytest.mark.slow
def test_push_replaces_the_earlier_run(hub, teacher_run, tmp_path) -> None:
    push(teacher_run, REPO, full=True)
    hub.repositories[REPO].commit("main", hub.tree(REPO) | {"notes.txt": b"the owner's"})
    earlier = set(hub.tree(REPO))
    assert "metrics.jsonl" in earlier

    run = tmp_path / "later"
    shutil.copytree(teacher_run, run)
    (run / "checkpoints" / "160").rename(run / "checkpoints" / "200")
    before = len(hub.repositories[REPO].commits)
    push(run, REPO)
    assert len(hub.repositories[REPO].commits) == before + 1
    steps = {path.split("/")[1] for path in hub.tree(REPO) if path.startswith("checkpoints/")}
    assert steps == {"200"}
    assert "metrics.jsonl" not in hub.tree(REPO)
    assert hub.tree(REPO)["notes.txt"] == b"the owner's"
    assert pull(REPO, tmp_path / "pulled")["step"] == 200
    assert not (tmp_path / "pulled" / "notes.txt").exists()


@pytest.mark.slow
def test_push_and_pull_separate_revisions(hub, teacher_run, student_run, tmp_path) -> None:
    first = push(teacher_run, REPO)["commit"]
    push(student_run, REPO, revision="small")
    push(student_run, REPO)
    assert pull(REPO, tmp_path / "main")["kind"] == "student"
    assert pull(REPO, tmp_path / "small", revision="small")["kind"] == "student"
    assert pull(REPO, tmp_path / "first", revision=first)["kind"] == "teacher"
    with pytest.raises(InputError, match="has no revision 'large'"):
        pull(REPO, tmp_path / "large", revision="large")


@pytest.mark.parametrize("change", [Path.unlink, lambda file: file.write_text("seed = 1")])
def test_push_refuses_a_run_that_changes_meanwhile(
    hub, student_run, tmp_path, monkeypatch, change
) -> None:
    from export.share import hub as module

    run = tmp_path / "run"
    shutil.copytree(student_run, run)
    make_bundle = module.make_bundle

    def change_afterwards(*arguments: object, **options: object) -> object:
        bundle = make_bundle(*arguments, **options)
        change(run / "config.toml")
        return bundle

    monkeypatch.setattr(module, "make_bundle", change_afterwards)
    with pytest.raises(InputError, match=r"'config\.toml' changed meanwhile"):
        push(run, "ada/student")
    assert set(hub.tree("ada/student")) == {".gitattributes"}


def test_push_of_the_same_run_changes_nothing(hub, student_run) -> None:
    assert push(student_run, "ada/student")["files"] == push(student_run, "ada/student")["files"]


@pytest.mark.parametrize("token", [None, "hf_bob", "hf_nobody"])
def test_push_and_pull_refuse_a_private_repository_of_another(
    hub, teacher_run, tmp_path, monkeypatch, token
) -> None:
    push(teacher_run, REPO, private=True)
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    for call in (lambda: pull(REPO, tmp_path / "run"), lambda: push(teacher_run, REPO)):
        with pytest.raises(
            InputError, match=r"ada/reacher-teacher.*HF_TOKEN|may not do this"
        ) as no:
            call()
        assert "\n" not in str(no.value)
        assert token is None or token not in str(no.value)
    assert not list(tmp_path.iterdir())


def test_push_private_refuses_a_public_repository(hub, teacher_run) -> None:
    push(teacher_run, REPO)
    before = hub.tree(REPO)
    with pytest.raises(InputError, match="exists and is public"):
        push(teacher_run, REPO, private=True)
    assert hub.tree(REPO) == before


def test_push_refuses_all_but_the_owner(hub, teacher_run, monkeypatch) -> None:
    push(teacher_run, REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    with pytest.raises(InputError, match="use one that may write to ada"):
        push(teacher_run, REPO)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="hf auth login"):
        push(teacher_run, REPO)


def test_push_takes_a_token(hub, teacher_run, monkeypatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert push(teacher_run, REPO, token="hf_ada")["repo"] == REPO


@pytest.mark.parametrize("repo", ["", "reacher", "a/b/c", "ada/..", "ada/x.git", "ada/a b"])
def test_push_and_pull_refuse_invalid_names(teacher_run, tmp_path, repo) -> None:
    for call in (lambda: push(teacher_run, repo), lambda: pull(repo, tmp_path / "run")):
        with pytest.raises(InputError, match="give it as OWNER/NAME"):
            call()


def test_push_and_pull_explain_a_missing_network(hub, teacher_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    with pytest.raises(InputError, match="cannot be reached for ada/reacher-teacher"):
        pull(REPO, tmp_path / "run")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/")
    for call in (lambda: pull(REPO, tmp_path / "run"), lambda: push(teacher_run, REPO)):
        with pytest.raises(InputError, match="cannot be reached for ada/reacher-teacher"):
            call()


def without(path: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda tree: {name: content for name, content in tree.items() if name != path}


def with_file(path: str, content: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda tree: tree | {path: content}


def with_manifest(**fields: object) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda tree: tree | {MANIFEST: json.dumps(json.loads(tree[MANIFEST]) | fields).encode()}


OUTSIDE = {"path": "../outside", "size": 0, "sha256": "0" * 64}
DAMAGE = {
    "not ours": (without(MANIFEST), "holds no run of crl-distill"),
    "missing": (without("config.toml"), "'config.toml' is missing"),
    "longer": (with_file("config.toml", b"x" * 10**6), "'config.toml' is not of the size"),
    "newer": (
        with_manifest(format_version=2, crl_distill="9.1.0"),
        r"archive format 2, newer .* install crl-distill 9.1.0 or later",
    ),
    "no JSON": (with_file(MANIFEST, b"{"), "is not JSON"),
    "outside": (with_manifest(files=[OUTSIDE]), "'../outside' leaves the folder"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_pull_refuses_damaged_runs(hub, teacher_run, tmp_path, case) -> None:
    change, words = DAMAGE[case]
    push(teacher_run, REPO)
    hub.repositories[REPO].commit("main", change(hub.tree(REPO)))
    with pytest.raises(InputError, match=words):
        pull(REPO, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_pull_refuses_other_bytes_of_the_same_size(hub, teacher_run, tmp_path) -> None:
    push(teacher_run, REPO)
    tree = hub.tree(REPO)
    hub.repositories[REPO].commit("main", tree | {"config.toml": tree["config.toml"][::-1]})
    with pytest.raises(InputError, match=r"'config\.toml' does not have its checksum"):
        pull(REPO, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_pull_leaves_nothing_after_an_interruption(hub, teacher_run, tmp_path, monkeypatch) -> None:
    from export.share import hub as module

    push(teacher_run, REPO)
    download_file, calls = module._download_file, []

    def interrupt_fifth(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return download_file(*arguments)

    monkeypatch.setattr(module, "_download_file", interrupt_fifth)
    with pytest.raises(KeyboardInterrupt):
        pull(REPO, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_pull_refuses_a_used_folder_before_any_request(hub, tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="nothing was overwritten"):
        pull(REPO, tmp_path)
    assert not hub.requests


def test_push_explains_an_invalid_card(hub, student_run, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(student_run, run)
    (run / "README.md").write_text("---\n- : [\n---\n# Mine\n")
    with pytest.raises(InputError, match=r"Invalid metadata in README\.md") as refused:
        push(run, "ada/student")
    assert "\n" not in str(refused.value)


def test_push_and_pull_explain_an_error_of_the_hub(hub, teacher_run, tmp_path) -> None:
    hub.failing = 503
    for call in (lambda: pull(REPO, tmp_path / "run"), lambda: push(teacher_run, REPO)):
        with pytest.raises(InputError, match="ada/reacher-teacher: the hub answered 503"):
            call()

"""Exports end as the same bytes, whichever engine makes them, in whatever batches, killed or not."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import audio_cases
import numpy as np
import pytest
import torch
import video_cases
from conftest import ROOT, one_d_piece_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import codeczoo
from codeczoo import export, zoo
from codeczoo.cli.main import main
from codeczoo.core.errors import FormatError, InputError
from codeczoo.export import clips, parquet, shard
from codeczoo.export.appearing import PARTIAL
from codeczoo.export.batches import Runner
from codeczoo.export.engines.local import Local
from codeczoo.export.engines.ranks import Rank, Ranks, this_rank
from codeczoo.export.engines.turns import Turns
from codeczoo.export.pictures import Pictures
from codeczoo.export.plan import Plan
from codeczoo.io import audio, image, video

PICTURES, BAD = 23, 2  # in shards of 4


class Case(NamedTuple):
    """Pictures and a codec; what an undisturbed export of them is."""

    photos: Path
    codec: Path
    whole: Path


def command(case: Case, out: Path, *more: Any) -> list[str]:
    shared = ("--codec", case.codec, "--format", "parquet", "--shard", 4, "--device", "cpu")
    return [str(a) for a in ("export", case.photos, "-o", out, *shared, *more)]


def files(folder: Path) -> dict[str, bytes]:
    """Everything of an export but its plan, which says where inputs lie."""
    assert not [p.name for p in folder.iterdir() if p.name.startswith(".")]
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name not in ("plan.json", "inputs.jsonl")}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("engines")
    (root / "photos").mkdir()
    for i in range(PICTURES):
        noise = np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        size = (40 + i % 3, 33)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(root / "photos" / f"{i:02d}.png")
    for i in range(BAD):
        (root / "photos" / f"1{i}_bad.jpg").write_bytes(b"no picture")
    torch.manual_seed(0)
    zoo.save(root / "codec.safetensors", codeczoo.build(one_d_piece_tree()))
    made = Case(root / "photos", root / "codec.safetensors", root / "whole")
    assert main(command(made, made.whole)) == 1
    return made


def test_an_export_is_whole(case: Case) -> None:
    reader = export.read(case.whole)
    lines = [json.loads(line) for line in (case.whole / "manifest.jsonl").read_text().splitlines()]
    names = sorted(p.name for p in case.photos.iterdir())
    assert [Path(line["path"]).name for line in lines] == names and len(lines) == PICTURES + BAD
    done = [line["id"] for line in lines if line["status"] == "done"]
    assert done == [reader.document(i).id for i in range(len(reader))] and len(done) == PICTURES
    bad = [line for line in lines if line["status"] == "failed"]
    assert len(bad) == BAD and all(line["why"].startswith("it is not an image") for line in bad)
    codes = torch.cat([reader.tokens(i).codes.flatten() for i in range(len(reader))])
    assert reader.header["used"] == [len(codes.unique())] and len(codes.unique()) > 4


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_batches_change_nothing(case: Case, tmp_path: Path, batch: int) -> None:
    assert main(command(case, tmp_path / "out", "--batch", batch)) == 1
    assert files(tmp_path / "out") == files(case.whole)


@pytest.mark.parametrize("media", ["audio", "video"])
def test_batches_of_other_media_change_nothing(tmp_path: Path, media: str) -> None:
    """Files of several lengths, padded in batches that differ."""
    pytest.importorskip("av")
    if media == "audio":
        codec = audio_cases.build("encodec causal reflect")
        for i, size in enumerate((700, 900, 2400, 2500, 7, 1300)):
            noise = torch.rand(1, size, generator=torch.Generator().manual_seed(i)) - 0.5
            audio.write(tmp_path / "in" / f"{i}.wav", noise, 2400)
    else:
        codec = video_cases.build("vidtok")
        for i, size in enumerate((5, 9, 6, 1, 9, 4)):
            with video.Writer(tmp_path / "in" / f"{i}.gif", 10, 1) as file:
                file.append(torch.rand(3, size, 16, 24, generator=torch.Generator().manual_seed(i)))
    zoo.save(tmp_path / "codec.safetensors", codec)
    case = Case(tmp_path / "in", tmp_path / "codec.safetensors", tmp_path / "1")
    for batch in (1, 2, 5):
        assert main(command(case, tmp_path / str(batch), "--batch", batch, "--shard", 5)) == 0
    assert files(tmp_path / "2") == files(tmp_path / "5") == files(tmp_path / "1")
    reader = export.read(tmp_path / "1")
    assert len(reader) == 6 and len(np.unique(np.concatenate([reader.ids(i).flatten() for i in range(6)]))) > 8


# --- killed, full, read-only -----------------------------------------------------------------------------------------


def test_killed_at_any_moment_it_goes_on(case: Case, tmp_path: Path) -> None:
    """Each process is killed a little after it has added a file or two, until there is nothing left to do."""
    context, dice, out = get_context("forkserver"), random.Random(0), tmp_path / "out"
    context.set_forkserver_preload(["codeczoo.cli.export", "codeczoo.export.store", "codeczoo.export.media"])
    kills, exit_code = 0, None
    while exit_code is None:
        wanted, late = there(out) + dice.choice((1, 1, 2)), 0.02 * dice.random()
        process = context.Process(target=main, args=(command(case, out, "--resume"),))
        process.start()
        while process.is_alive() and there(out) < wanted:
            time.sleep(0.001)
        process.join(late)
        exit_code = process.exitcode
        process.kill()
        process.join()
        kills += exit_code is None
    assert kills > 3 and files(out) == files(case.whole)


def there(out: Path) -> int:
    """How many files of an export are there."""
    return sum(not path.name.startswith(".") for path in out.iterdir()) if out.exists() else 0


def test_files_that_are_not_there_yet_are_told_by_their_suffix(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what a process leaves that is killed at any moment can be found and removed."""
    replace, names = Path.replace, {}

    def record(path: Path, target: Path) -> Path:
        names[Path(target).name] = path.name
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", record)
    assert main(command(case, tmp_path / "out")) == 1
    assert {"inputs.jsonl", "plan.json", "part-000001.parquet", "manifest.jsonl", "header.json"} <= names.keys()
    assert all(name.startswith(".") and name.endswith(PARTIAL) for name in names.values())


@pytest.mark.parametrize("left", ["nothing", "inputs", "half a part", "an empty part", "no part", "no header"])
def test_what_a_killed_export_leaves_is_no_hindrance(case: Case, tmp_path: Path, left: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(case.whole, out)
    (out / "header.json").unlink()
    for name in ("part-000001", "plan", "header"):
        (out / f".{name}-host-1.partial").write_bytes(b"PAR1")
    part = out / "part-000001.parquet"
    if left in ("nothing", "inputs"):
        for path in out.iterdir():
            if not path.name.startswith(".") and (left, path.name) != ("inputs", "inputs.jsonl"):
                path.unlink()
    elif left == "half a part":
        part.write_bytes(part.read_bytes()[:1000])
    elif left == "an empty part":
        part.write_bytes(b"")
    elif left == "no part":
        part.unlink()
    with pytest.raises(InputError, match=r"not finished|no export"):
        export.read(out)
    assert main(command(case, out, *(["--resume"] if left != "nothing" else []))) == 1
    assert files(out) == files(case.whole)


def test_parts_of_another_export_are_told(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    shutil.copytree(case.whole, out)
    (out / "header.json").unlink()
    (out / "part-000001.parquet").write_bytes((out / "part-000002.parquet").read_bytes())
    assert main(command(case, out, "--resume")) == 2
    assert "part-000001.parquet: a part of another export" in capsys.readouterr().err


def test_only_the_same_options_go_on(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    shutil.copytree(case.whole, out)
    for more, message in [
        (("--resume", "--positions", 3), 'begun with prefix {"positions": null'),
        (("--resume", "--pattern", "parallel"), "patterns.Flat"),
        (("--resume", "--shard", 5), "begun with shard 4, not 5"),
        (("--resume", "--column", "image"), 'begun with column null, not "image"'),
        ((), "holds an export, finished: --resume goes on, --overwrite begins anew"),
    ]:
        capsys.readouterr()
        assert main(command(case, out, *more)) == 2, more
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1
    assert main(command(case, out, "--resume", "--batch", 2, "--json")) == 1
    told = json.loads(capsys.readouterr().out)
    bad = [Path(failed["path"]).name for failed in told["failed"]]
    assert told["exported"] == PICTURES and bad == ["10_bad.jpg", "11_bad.jpg"]
    assert files(out) == files(case.whole)


def test_a_full_disk_is_one_line_and_no_loss(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No file may grow beyond 4 kB: the plan fits, parts do not."""
    out, (soft, hard) = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        code = main(command(case, out))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    told = capsys.readouterr().err
    assert code == 2 and told.count("\n") == 1 and "cannot write" in told and "--resume goes on" in told
    assert parts(out) == 0 and (out / "plan.json").is_file() and not list(out.glob(".*"))
    assert main(command(case, out, "--resume")) == 1 and files(out) == files(case.whole)


def test_a_device_without_memory_wants_smaller_batches(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Runner.encode

    def encode(self: Any, xs: Any, prefix: Any) -> Any:
        if self.batch > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, xs, prefix)

    monkeypatch.setattr(Runner, "encode", encode)
    out = tmp_path / "out"
    assert main(command(case, out)) == 2
    assert capsys.readouterr().err.count("with a smaller --batch") == 1
    assert main(command(case, out, "--resume", "--batch", 2)) == 1 and files(out) == files(case.whole)


def test_where_nothing_can_be_written(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(case, case.codec / "out")) == 2
    assert capsys.readouterr().err == f"codeczoo: error: cannot make {case.codec / 'out'}: Not a directory\n"


def test_a_plan_that_fails_takes_nothing_away(case: Case, tmp_path: Path) -> None:
    shutil.copytree(case.whole, tmp_path / "out")
    empty = Case(tmp_path / "none", case.codec, case.whole)
    assert main(command(empty, tmp_path / "out", "--overwrite")) == 2
    assert files(tmp_path / "out") == files(case.whole)
    assert main(command(empty, tmp_path / "new")) == 2 and not (tmp_path / "new").exists()


# --- engines ---------------------------------------------------------------------------------------------------------


def parts(out: Path) -> int:
    return len(list(out.glob("part-*"))) if out.exists() else 0


def test_launchers_say_which_rank_this_is() -> None:
    assert this_rank({"RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "1"}) == Rank(2, 3, 1)
    assert this_rank({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}) == Rank(0, 2, 0)
    for environment in ({"RANK": "0"}, {"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}):
        with pytest.raises(InputError):
            this_rank(environment)


def test_a_rank_makes_its_own_parts_first_and_then_those_of_others(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 began and died at once; then rank 2 died over its second part."""
    order: list[int] = []

    class Dead(BaseException):
        pass

    def work(self: Any, number: int, following: Iterable[int]) -> Iterator[Any]:
        if order and rank == 2:
            raise Dead
        order.append(number)
        yield from real(self, number, following)

    rank, real = 2, shard.Worker.work
    monkeypatch.setattr(shard.Worker, "work", work)
    monkeypatch.setenv("WORLD_SIZE", "3")
    out, arguments = tmp_path / "out", command(case, tmp_path / "out", "--engine", "ranks")
    monkeypatch.setattr(Ranks, "run", lambda self: iter(()))
    monkeypatch.setenv("RANK", "0")
    assert main(arguments) == 2 and parts(out) == 0  # it made the plan
    monkeypatch.undo()
    monkeypatch.setattr(shard.Worker, "work", work)
    for name, value in {"WORLD_SIZE": "3", "RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Dead):
        main(arguments)
    assert order == [2] and parts(out) == 1
    rank = 1
    monkeypatch.setenv("RANK", "1")
    assert main(arguments) == 0
    assert order == [2, 1, 4, 6, 5, 3, 0] and len(export.read(out)) == PICTURES
    monkeypatch.setenv("RANK", "0")  # which writes the card
    assert main([*arguments, "--resume"]) == 0 and files(out) == files(case.whole)


def test_what_ranks_cannot_do(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for more, message in [
        (("--overwrite",), "--overwrite would delete"),
        (("--format", "npy"), "--engine ranks makes parquet"),
        (("--workers", 2), "--workers is for --engine ray"),
    ]:
        assert main(command(case, tmp_path / "out", "--engine", "ranks", *more)) == 2
        assert message in capsys.readouterr().err


def started(arguments: list[str], **environment: str) -> "subprocess.Popen[str]":
    env = os.environ | {"PYTHONPATH": str(ROOT / "codecs"), "OMP_NUM_THREADS": "1"} | environment
    pipe, python = subprocess.PIPE, (sys.executable, "-m", "codeczoo")
    return subprocess.Popen([*python, *arguments], env=env, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
def test_ranks_on_one_folder(case: Case, tmp_path: Path) -> None:
    """Three processes; one is killed when the first part is there."""
    arguments = command(case, tmp_path / "out", "--engine", "ranks")
    ranks = [started(arguments, RANK=str(rank), WORLD_SIZE="3") for rank in range(3)]
    while not parts(tmp_path / "out"):
        time.sleep(0.01)
    ranks[2].kill()
    told = [rank.communicate(timeout=240) for rank in ranks]
    assert [rank.returncode for rank in ranks[:2]] == [0, 0], told
    assert files(tmp_path / "out") == files(case.whole)
    assert f"{PICTURES} exported" in told[0][0] and not told[1][0]


def worker_of(case: Case, out: Path, monkeypatch: pytest.MonkeyPatch) -> shard.Worker:
    """Of an export that was planned, and of which no part was made."""
    with monkeypatch.context() as patches:
        patches.setattr("codeczoo.export.engines.Local.run", lambda self: iter(()))
        assert main(command(case, out)) == 2
    codec = zoo.load(case.codec)
    return shard.Worker(Plan.open(out), Runner(codec, str(case.codec), zoo.weights_hash(codec)))


def test_the_next_shard_is_read_while_one_is_encoded(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, read, arrived = worker_of(case, tmp_path / "out", monkeypatch), Counter[str](), threading.Event()
    names = [[Path(one.where).name for one in worker.plan.inputs_of(number)] for number in (0, 1, 2)]

    def load(self: Any, found: Any, source: Path) -> Any:
        read[source.name] += 1
        if source.name == names[1][0]:
            arrived.set()
        return real_load(self, found, source)

    def encode(*args: Any, **kwargs: Any) -> Any:
        assert arrived.wait(60)
        return real_encode(*args, **kwargs)

    real_load, real_encode = Pictures._load, worker.media.runner.codec.encode
    monkeypatch.setattr(Pictures, "_load", load)
    monkeypatch.setattr(worker.media.runner.codec, "encode", encode)
    for number in (0, 1, 2):
        with closing(worker.work(number, range(number + 1, 3))) as work:
            facts = next(facts for facts in work if worker.plan.part(number).exists())  # as ranks leave it
        assert facts.documents + len(facts.failed) == 4
        assert worker.plan.part(number).read_bytes() == (case.whole / worker.plan.part(number).name).read_bytes()
    assert read == Counter(chain.from_iterable(names))  # none twice


def test_a_worker_may_be_told_wrong_what_follows(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = worker_of(case, tmp_path / "out", monkeypatch)
    for number, following in [(0, [3, 1]), (1, []), (4, [2]), (2, [0]), (5, [5])]:
        assert [*worker.work(number, following)][-1].shard == number
        assert worker.plan.part(number).read_bytes() == (case.whole / worker.plan.part(number).name).read_bytes()


def test_a_part_that_failed_shifts_no_other(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever went wrong, and though another worker has made the part meanwhile."""
    worker = worker_of(case, tmp_path / "out", monkeypatch)
    shutil.copy(case.whole / worker.plan.part(0).name, worker.plan.part(0))
    for error in (FileNotFoundError("gone"), OSError("full"), RuntimeError("bad"), KeyboardInterrupt()):
        with monkeypatch.context() as patches:
            patches.setattr(parquet.Writer, "add", raising(error))
            with pytest.raises((InputError, RuntimeError, KeyboardInterrupt)):
                [*worker.work(0, [1])]
        assert [*worker.work(1)][-1].shard == 1
        assert worker.plan.part(1).read_bytes() == (case.whole / worker.plan.part(1).name).read_bytes()
        worker.plan.part(1).unlink()


def raising(error: BaseException) -> Any:
    def run(*_: Any) -> None:
        raise error

    return run


@pytest.mark.parametrize("engine", [Local, lambda worker: Ranks(worker, Rank(0, 2, 0))])
def test_an_engine_leaves_no_thread_behind(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Any
) -> None:
    """Though a part whose files have been read already is made by another before it is begun."""
    worker, before = worker_of(case, tmp_path / "out", monkeypatch), set(threading.enumerate())
    for facts in engine(worker).run():
        if facts.shard == 0 and facts.documents == 1:
            for number in range(1, len(worker.plan.shards)):
                shutil.copy(case.whole / worker.plan.part(number).name, worker.plan.part(number))
    assert set(threading.enumerate()) <= before


def test_trouble_of_a_later_shard_is_told_at_its_turn(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worker_of(case, tmp_path / "out", monkeypatch)
    shutil.copy(case.whole / worker.plan.part(0).name, worker.plan.part(2))  # of another shard
    made = []
    with pytest.raises(FormatError, match="a part of another export"):
        made.extend(facts.shard for facts in Local(worker).run())
    assert set(made) == {0, 1} and worker.plan.part(1).is_file()


@pytest.mark.parametrize("shared", [0, 5])
def test_a_rank_leaves_off_what_another_has_made(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: int
) -> None:
    """Rank 0 of 2 makes a part, its own or the last of the other, which appears when one of four pictures is done."""
    worker, seen = worker_of(case, tmp_path / "out", monkeypatch), []
    plan = worker.plan
    for facts in Ranks(worker, Rank(0, 2, 0)).run():
        seen.append((facts.shard, facts.documents))
        if facts.shard == shared and facts.documents == 1:
            shutil.copy(case.whole / plan.part(shared).name, plan.part(shared))
    assert [documents for number, documents in seen if number == shared] == [1, 4]
    assert {number for number, _ in seen} == set(range(len(plan.shards)))
    for number in range(len(plan.shards)):
        assert plan.part(number).read_bytes() == (case.whole / plan.part(number).name).read_bytes()
    assert not [path for path in plan.part(0).parent.iterdir() if path.name.startswith(".")]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 9), st.integers(1, 4), st.randoms(use_true_random=False))
def test_every_shard_has_its_turn(shards: int, workers: int, chance: random.Random) -> None:
    """Whoever is slow or dies: each is made once."""
    turns, made, busy = Turns(range(shards)), [], dict[int, int]()
    while turns or busy:
        for worker in range(workers):
            if turns and worker not in busy:
                busy[worker], following = turns.take(worker)
                assert not {*following, busy[worker]} & {*made} and busy[worker] not in following
        worker = chance.choice([*busy])
        shard = busy.pop(worker)
        if chance.random() < 0.2:
            turns.lost(worker, shard)
        else:
            made.append(shard)
    assert sorted(made) == list(range(shards))


def test_a_worker_keeps_its_next_shard_until_nothing_else_is_left() -> None:
    turns = Turns(range(5))
    assert turns.take(0) == (0, [1]) and turns.take(7) == (2, [3])
    assert turns.take(0) == (1, [4]) and len(turns) == 2
    turns.lost(7, 2)
    assert turns.take(0) == (4, [2]) and turns.take(7) == (3, []) and turns.take(7) == (2, []) and not turns


@pytest.mark.slow
def test_ray_actors_and_one_that_dies(case: Case, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from codeczoo.export.engines.ray import Ray

    arguments = command(case, tmp_path / "plan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codeczoo.export.engines.Local.run", lambda self: iter(()))
        assert main(arguments) == 2  # it made the plan
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    try:
        engine = Ray(Plan.open(tmp_path / "plan"), 8, 2)
        killed = 0
        made = []
        for facts in engine.run():
            made.append(facts.shard)
            if not killed:
                killed = next(actor_pids())
                os.kill(killed, signal.SIGKILL)
        assert sorted(made) == list(range(7))
    finally:
        ray.shutdown()
    assert main([*arguments, "--resume"]) == 1 and files(tmp_path / "plan") == files(case.whole)


def actor_pids() -> Iterator[int]:
    """Processes of Ray that are actors of ours."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::Actor"):
                yield int(path.parent.name)
        except OSError:
            continue


# --- the same media, however they come --------------------------------------------------------------------------------


@pytest.mark.parametrize("media", ["image", "audio", "video"])
def test_media_give_the_same_tokens_from_files_tars_and_tables(
    tmp_path: Path, media: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each kind a short one and a long one, which is read in pieces."""
    datasets = pytest.importorskip("datasets")
    folder, random_ = tmp_path / "in", torch.Generator().manual_seed(0)
    if media == "image":
        codec = codeczoo.build(one_d_piece_tree())
        for i, size in enumerate((40, 100)):
            image.write(folder / f"{i}.png", torch.rand(3, size, 30, generator=random_))
    elif media == "audio":
        codec = audio_cases.build("encodec causal reflect")
        for i, size in enumerate((1000, 40000)):
            audio.write(folder / f"{i}.wav", torch.rand(2, size, generator=random_) - 0.5, 2400)
    else:
        codec = video_cases.build("vidtok")
        monkeypatch.setattr(clips, "SHORT", 4 * 16 * 24)
        for i, frames in enumerate((3, 9)):
            with video.Writer(folder / f"{i}.mp4", 10, 1) as file:
                file.append(torch.rand(3, frames, 16, 24, generator=random_))
    zoo.save(tmp_path / "codec.safetensors", codec)
    found = sorted(folder.iterdir())
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for path in found:
            tar.add(path, path.name)
    rows = [{"bytes": path.read_bytes(), "path": None} for path in found]
    table = datasets.Dataset.from_dict({"media": rows, "label": [0, 1]})
    table.to_parquet(tmp_path / "rows.parquet")
    table.save_to_disk(tmp_path / "rows")
    (tmp_path / "list.jsonl").write_text("".join(json.dumps({"path": str(path), "label": 2}) + "\n" for path in found))
    readers = []
    for place in ("in", "all.tar", "rows.parquet", "rows", "list.jsonl"):
        case, out = Case(tmp_path / place, tmp_path / "codec.safetensors", tmp_path), tmp_path / f"out of {place}"
        assert main(command(case, out)) == 0, place
        readers.append(export.read(out))
    for reader in readers[1:]:
        for i in range(2):
            assert np.array_equal(reader.ids(i), readers[0].ids(i)), (reader.folder, i)
            assert reader.document(i).sha256 == readers[0].document(i).sha256
            assert reader.document(i).fit == readers[0].document(i).fit
    assert readers[2].document(1).about == {"label": 1} and readers[4].document(1).about == {"label": 2}

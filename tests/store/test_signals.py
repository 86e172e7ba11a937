"""The cache of teacher signals: found by content, refused when it is another's, whole after a kill."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.errors import SignalError, StorageError
from tutelage.signals import Sparse, TopK
from tutelage.signals.thin import seeded, threshold, top_k
from tutelage.store.signal_kinds import Draws, HiddenStates, Threshold, TopKTail
from tutelage.store.signals import Identity, SignalCache, SignalWriter, key_of

V = 97
SAID = {"teacher": "sha256:t", "tokenizer": "sha256:k", "student_tokenizer": "sha256:s", "template": "sha256:c",
        "dataset": "sha256:d", "sampling": "given", "logprobs": "raw"}  # fmt: skip
IDENTITY = Identity(Threshold(0.05), **SAID, vocabulary=V)
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from tests.store.test_signals import IDENTITY, example
from tutelage.store.signals import SignalWriter

def capture(say):
    with SignalWriter(Path(sys.argv[1]), IDENTITY, shard_positions=60) as writer:
        for number in range(int(sys.argv[2])):
            ids_T, positions_N, found = example(number)
            if ids_T not in writer:
                os.write(say, b"%d\\n" % number)
                writer.add(ids_T, positions_N, found)

torch.set_num_threads(1)  # no threads yet: each capture is a process of its own without loading torch again
moments = random.Random(5)
for attempt in range(8):
    hear, say = os.pipe()
    child = os.fork()
    if not child:
        os.close(hear)
        capture(say)
        os._exit(0)
    os.close(say)
    stop_after = moments.randrange(10, 50) if attempt < 7 else 10**6
    with open(hear) as lines:
        for heard, line in enumerate(lines):
            print(line, end="")
            if heard == stop_after:
                time.sleep(moments.random() * 0.004)
                os.kill(child, signal.SIGKILL)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == (-signal.SIGKILL if attempt < 7 else 0), ended
    if attempt == 2:
        Path(sys.argv[1], "000099.signals.new").write_bytes(b"half a shard")
"""


def text(number: int) -> torch.Tensor:
    return torch.randint(V, (5 + number % 30,), generator=seeded("text", number))


def logp(ids_T: torch.Tensor) -> torch.Tensor:
    """What this test's teacher thinks of every position: it depends on the ids alone."""
    generator = seeded(key_of(ids_T).hex())
    return (torch.randn(len(ids_T), V, generator=generator) * 2).log_softmax(-1)


def example(number: int) -> tuple[torch.Tensor, torch.Tensor, Sparse]:
    """A text, the positions of its answer, and their signal."""
    ids_T = text(number)
    positions_N = torch.arange(number % 3, len(ids_T) - 1)
    return ids_T, positions_N, threshold(logp(ids_T)[positions_N], 0.05, seeded(key_of(ids_T).hex(), 1))


def kept(signal: Sparse) -> list[dict[int, float]]:
    return [
        {int(token): float(weight) for token, weight in zip(ids, weights, strict=True) if weight > 0}
        for ids, weights in zip(signal.ids_NK, signal.weights_NK, strict=True)
    ]


def capture(folder: Path, count: int = 40, shard_positions: int = 100) -> SignalCache:
    with SignalWriter(folder, IDENTITY, shard_positions) as writer:
        for number in range(count):
            writer.add(*example(number))
    return SignalCache(folder, IDENTITY)


def assert_right(cache: SignalCache, count: int) -> None:
    assert len(cache) == count
    for number in random.Random(count).sample(range(count), count):
        ids_T, positions_N, signal = example(number)
        found = cache.read(ids_T)
        assert torch.equal(found.positions_N, positions_N)
        for row, wanted in zip(kept(found.signal), kept(signal), strict=True):
            assert row.keys() == wanted.keys()
            assert all(abs(row[token] - wanted[token]) <= 0.05 / 3 + 1e-6 for token in wanted)


def test_trap_d1_rows_are_found_by_content_in_any_order_for_two_epochs(tmp_path: Path) -> None:
    cache = capture(tmp_path)
    assert len(list(tmp_path.glob("*.signals"))) > 3
    for _ in range(2):
        assert_right(cache, 40)
    changed = text(3).clone()
    changed[0] = (changed[0] + 1) % V
    with pytest.raises(SignalError, match=f"no sequence {key_of(changed).hex()}"):
        cache.read(changed)
    assert changed not in cache and text(3) in cache


def test_trap_d1_order_of_capture_changes_nothing(tmp_path: Path) -> None:
    forward = capture(tmp_path / "a", 20)
    with SignalWriter(tmp_path / "b", IDENTITY) as writer:
        for number in reversed(range(20)):
            writer.add(*example(number))
            writer.add(*example(number))  # a second time is no second entry
    backward = SignalCache(tmp_path / "b", IDENTITY)
    assert forward.positions == backward.positions and len(forward) == len(backward) == 20
    for number in range(20):
        one, other = (kept(cache.read(text(number)).signal) for cache in (forward, backward))
        assert one == other


def test_some_positions_can_be_asked_for(tmp_path: Path) -> None:
    cache = capture(tmp_path, 12)
    ids_T, positions_N, _ = example(11)
    whole = kept(cache.read(ids_T).signal)
    part = cache.read(ids_T, positions_N[[5, 2]])
    assert kept(part.signal) == [whole[5], whole[2]] and part.positions_N.tolist() == positions_N[[5, 2]].tolist()
    assert len(cache.read(ids_T, positions_N[:0]).signal) == 0
    for absent in (0, len(ids_T) - 1):
        with pytest.raises(SignalError, match=f"no position {absent} "):
            cache.read(ids_T, torch.tensor([3, absent]))


@pytest.mark.parametrize("field", [*SAID, "vocabulary", "kind", "c", "parts"])
def test_trap_e1_any_other_identity_is_a_miss(tmp_path: Path, field: str) -> None:
    capture(tmp_path, 3)
    kind: dict[str, Any] = {"kind": Draws(50), "c": Threshold(0.04), "parts": Threshold(0.05, 5)}
    other = (
        replace(IDENTITY, kind=kind[field])
        if field in kind
        else replace(IDENTITY, **{field: V + 1 if field == "vocabulary" else "sha256:new"})
    )
    said = "now " + (str(V + 1) if field == "vocabulary" else "{'name'" if field in kind else "sha256:new")
    for opened in (SignalCache, SignalWriter):
        with pytest.raises(SignalError) as caught:
            opened(tmp_path, other)
        assert ("kind" if field in kind else field) + " was " in str(caught.value) and said in str(caught.value)
    assert_right(SignalCache(tmp_path, IDENTITY), 3)


def test_trap_e1_a_shard_of_another_cache_is_refused(tmp_path: Path) -> None:
    capture(tmp_path / "a", 3)
    other = replace(IDENTITY, template="sha256:other")
    with SignalWriter(tmp_path / "b", other) as writer:
        writer.add(*example(7))
    (tmp_path / "b" / "000001.signals").rename(tmp_path / "a" / "000002.signals")
    with pytest.raises(StorageError, match="another cache"):
        SignalCache(tmp_path / "a", IDENTITY)


def test_trap_e1_another_head_is_another_cache() -> None:
    from tutelage.signals import Head

    weight_VD = torch.randn(V, 8, generator=seeded("head"))
    kinds = [
        HiddenStates.of(head)
        for head in (Head(weight_VD), Head(weight_VD + 1e-6), Head(weight_VD, scale=2.0), Head(weight_VD, softcap=30.0),
                     Head(weight_VD, torch.zeros(V)))
    ]  # fmt: skip
    assert len({json.dumps(kind.described()) for kind in kinds}) == 5
    assert HiddenStates.of(Head(weight_VD.clone())) == kinds[0]


def test_every_poisoned_byte_is_found_and_placed(tmp_path: Path) -> None:
    capture(tmp_path, 40)
    path = sorted(tmp_path.glob("*.signals"))[1]
    data = path.read_bytes()
    header = data.index(b"\n") + 1
    index = header + sum(each[2] for each in json.loads(data[:header].split(b" ", 2)[2])["streams"][:2])
    for at in [
        *range(0, header, 41),
        header - 1,
        header,
        index - 1,
        index,
        *range(index, len(data), 23),
        len(data) - 1,
    ]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with pytest.raises(StorageError) as caught:
            SignalCache(tmp_path, IDENTITY).verify()
        assert path.name in str(caught.value)
        if at >= index:
            assert f"between bytes {index} and {len(data)} (rows)" in str(caught.value)
    path.write_bytes(data)
    SignalCache(tmp_path, IDENTITY).verify()


def test_a_poisoned_row_is_never_trained_on(tmp_path: Path) -> None:
    cache = capture(tmp_path, 5)
    path = tmp_path / "000001.signals"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match="damaged"):
        cache.read(text(0))


def test_a_torn_shard_is_dropped_and_captured_again(tmp_path: Path) -> None:
    capture(tmp_path, 40)
    path = sorted(tmp_path.glob("*.signals"))[-1]
    data = path.read_bytes()
    for size in (20, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(StorageError, match="capture again"):
            SignalCache(tmp_path, IDENTITY)
        assert_right(capture(tmp_path, 40), 40)
        path = sorted(tmp_path.glob("*.signals"))[-1]


def test_a_shard_that_is_gone_is_missed(tmp_path: Path) -> None:
    capture(tmp_path, 40)
    sorted(tmp_path.glob("*.signals"))[0].unlink()
    with pytest.raises(StorageError, match="a shard is gone"):
        SignalCache(tmp_path, IDENTITY)
    assert_right(capture(tmp_path, 40), 40)


def test_trap_e3_killed_at_any_moment_every_text_is_there_once(tmp_path: Path) -> None:
    """kill −9 again and again: what a shard holds is not captured again, and at the end each text is there exactly once."""
    count = 300
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(count)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    asked = list(map(int, done.stdout.split()))
    cache = SignalCache(tmp_path, IDENTITY)
    assert_right(cache, count)
    cache.verify()
    keys = [key for shard in cache._shards for key in shard.sequences]
    assert len(keys) == len(set(keys)) == count == len(set(asked))
    assert cache.positions == sum(len(example(number)[1]) for number in range(count))
    assert not list(tmp_path.glob("*.new"))
    assert count < len(asked) < count + 7 * 20  # asked twice: what the killed ones had not in a shard, no more


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with SignalWriter(tmp_path, IDENTITY), pytest.raises(StorageError, match="another process"):
        SignalWriter(tmp_path, IDENTITY)
    SignalWriter(tmp_path, IDENTITY).close()


def test_what_does_not_fit_is_refused_before_it_is_written(tmp_path: Path) -> None:
    ids_T, positions_N, signal = example(4)
    with SignalWriter(tmp_path, IDENTITY) as writer:
        with pytest.raises(SignalError, match="Sparse signals, not TopK"):
            writer.add(ids_T, positions_N, top_k(logp(ids_T)[positions_N], 3))
        for wrong in (positions_N[:-1], positions_N.flip(0), positions_N + len(ids_T)):
            with pytest.raises(SignalError, match="one row a position"):
                writer.add(ids_T, wrong, signal)
        with pytest.raises(SignalError, match="map the teacher's ids"):
            writer.add(ids_T, positions_N, replace(signal, ids_NK=signal.ids_NK + V))
        with pytest.raises(SignalError, match=r"c = 0\.05"):
            writer.add(ids_T, positions_N, threshold(logp(ids_T)[positions_N], 0.01, seeded("")))
        assert ids_T not in writer
    assert len(SignalCache(tmp_path, IDENTITY)) == 0


def test_little_memory_gives_the_same_rows(tmp_path: Path) -> None:
    capture(tmp_path)
    cache = SignalCache(tmp_path, IDENTITY, memory_bytes=1)
    assert_right(cache, 40)
    assert len(cache._decoded) == 1


def test_no_cache_and_a_later_format_are_told(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="no cache in"):
        SignalCache(tmp_path, IDENTITY)
    capture(tmp_path, 1)
    said = json.loads((tmp_path / "cache.json").read_bytes())
    (tmp_path / "cache.json").write_text(json.dumps({**said, "version": 2}))
    with pytest.raises(SignalError, match="version 2"):
        SignalCache(tmp_path, IDENTITY)


def test_an_interrupted_capture_keeps_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), SignalWriter(tmp_path, IDENTITY) as writer:
        writer.add(*example(0))
        raise KeyboardInterrupt
    assert_right(SignalCache(tmp_path, IDENTITY), 1)


def test_top_k_rows_come_back_as_they_were(tmp_path: Path) -> None:
    identity = replace(IDENTITY, kind=TopKTail(6))
    ids_T = text(9)
    wanted = top_k(logp(ids_T), 6)
    with SignalWriter(tmp_path, identity) as writer:
        writer.add(ids_T, torch.arange(len(ids_T)), wanted)
    found = SignalCache(tmp_path, identity).read(ids_T).signal
    assert isinstance(found, TopK) and torch.equal(found.ids_NK, wanted.ids_NK)
    assert (found.logp_NK - wanted.logp_NK).abs().max() < 1 / 256
    assert (found.tail_N - wanted.tail_N).abs().max() < 1 / 256

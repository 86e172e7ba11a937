"""`tutelage compare-teachers` over real HTTP: who is asked what, what is said of it, resumed, within a budget, recorded."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import WORDS, Teacher, problem, serving
from tests.pipeline.conftest import write_data
from tutelage.cli.main import main
from tutelage.collect.sources import read_rows
from tutelage.collect.split import Origin, split_rows
from tutelage.errors import ConfigError
from tutelage.jsonl import read_lines
from tutelage.ledger.verify import verify
from tutelage.run_file import load_compare_config
from tutelage.store.store import Store

RUN_FILE = """
[run]
name = "which"
seed = 5
purpose = "internal"
[task]
labels = ["sport", "food", "weather"]
instruction = "Name the topic."
[data]
path = "{data}"
gold = "topic"
licence = "own"
train = 140
held_out = 60
validation = 10
items = 60
calibration = 20
"""
CANDIDATE = """
[teachers.{name}]
url = "{url}"
model = "{name}"
licence = "MIT"
attempts = 2
concurrency = 8
timeout_s = 5
price = {{ input_usd_per_mtok = {price}, output_usd_per_mtok = 2.0, dated = "2026-11-01" }}
"""
HALF = {"sport": ("match", "goal"), "food": ("soup", "bread"), "weather": ("rain", "storm")}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))


def write(folder: Path, *candidates: str, data: Path | None = None) -> Path:
    data = data or write_data(folder / "topics.csv")
    run_file = folder / "compare.toml"
    run_file.write_text(RUN_FILE.format(data=data) + "".join(candidates))
    return run_file


def of(teacher: Teacher, name: str, price: float = 1.0, more: str = "") -> str:
    return CANDIDATE.format(name=name, url=teacher.base_url, price=price) + more


def compare(*arguments: object, probe: str = "--no-probe") -> int:
    with pytest.raises(SystemExit) as ended:
        main(["compare-teachers", *map(str, arguments), probe, "--quiet"])
    return int(ended.value.code or 0)


def found_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "comparison.json").read_bytes())


def by_name(found: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one for one in found["candidates"]}


def test_the_better_and_the_cheaper_are_told_apart(tmp_path: Path, capsys: Any) -> None:
    with serving(Teacher()) as knows, serving(Teacher(HALF)) as half, serving(Teacher()) as twin:
        run_file = write(tmp_path, of(knows, "dear", 50.0), of(half, "half"), of(twin, "cheap"))
        assert compare(run_file, "--out", tmp_path / "run") == 0
        asked = (knows.asked, half.asked, twin.asked)
        assert asked == (80, 80, 80)
        said = capsys.readouterr().out
        assert compare(run_file, "--out", tmp_path / "run", "--json") == 0
        assert (knows.asked, half.asked, twin.asked) == asked, "nothing is asked twice"
    again = json.loads(capsys.readouterr().out)
    found = found_in(tmp_path / "run")
    assert again["schema_version"] == 1 and again["candidates"] == found["candidates"]
    one = by_name(found)
    assert (one["dear"]["accuracy"], one["cheap"]["accuracy"]) == (1.0, 1.0)
    assert one["half"]["accuracy"] < 0.85
    assert one["half"]["low"] < one["half"]["accuracy"] < one["half"]["high"]
    assert (one["half"]["tier"], one["half"]["ranks"]) == (2, [3, 3])
    assert one["cheap"]["usd_per_thousand"] == pytest.approx(1000 * (7 * 1 + 2) / 1e6)
    assert one["dear"]["usd_per_thousand"] == pytest.approx(1000 * (7 * 50 + 2) / 1e6)
    assert one["cheap"]["candidates_revealed"] == 3 and "top-logprobs" in one["cheap"]["offers"]
    assert one["cheap"]["median_ms"] > 0
    verdict = found["verdict"]
    assert verdict["leaders"] == ["dear", "cheap"] and not verdict["is_decided"]
    assert "NOT DECIDED: the best may be dear or cheap" in said
    assert "no number of items" in said
    assert "half" in said and "$/1000" in said
    assert sum(found["gold"].values()) == 60


def test_a_margin_that_is_wide_enough_makes_the_cheaper_one_the_choice(tmp_path: Path, capsys: Any) -> None:
    with serving(Teacher()) as knows, serving(Teacher()) as twin:
        run_file = write(tmp_path, of(knows, "dear", 50.0), of(twin, "cheap"), "[ranking]\nmargin = 0.2\n")
        assert compare(run_file, "--out", tmp_path / "run") == 0
        said = capsys.readouterr().out
        assert "recommended  cheap: the cheapest of those shown to be within 20 points of the best" in said
        assert compare(run_file, "--out", tmp_path / "run", "--set", "ranking.margin=0.01") == 0
        assert "NOT SHOWN; for now cheap" in capsys.readouterr().out
        assert knows.asked == twin.asked == 80, "another margin asks nobody"
    assert verify(tmp_path / "run").findings == ()


def test_the_items_are_none_of_a_later_runs_held_out_part(tmp_path: Path) -> None:
    with serving(Teacher()) as one, serving(Teacher(HALF)) as two:
        run_file = write(tmp_path, of(one, "a"), of(two, "b"))
        assert compare(run_file, "--out", tmp_path / "run") == 0
        config = load_compare_config(run_file)
        rows = read_rows(tmp_path / "topics.csv", config.data).good
        items = list(read_lines(tmp_path / "run" / "data" / "items.jsonl"))
        split = split_rows(
            rows, config.data, config.task.labels, Origin("topics.csv", items[0]["source_digest"], "own"), 5
        )
        train, held_out = ({prompt.prompt_id for prompt in part} for part in (split.train, split.held_out))
        chosen = {item["prompt_id"] for item in items}
        assert len(chosen) == 80 and chosen <= train and not chosen & held_out
        groups = [item["group"] for item in items]
        assert len(set(groups)) == len(groups), "no two items are near-duplicates"
        assert set(json.loads((tmp_path / "run" / "data" / "gold.json").read_bytes())) < chosen
        assert compare(run_file, "--out", tmp_path / "run", "--set", "data.items=90") == 0
        assert one.asked == 110, "more items keep those there are"


def test_label_priors_are_balanced_on_items_of_their_own(tmp_path: Path, capsys: Any) -> None:
    class Biased(Teacher):
        def scores(self, text: str) -> dict[str, float]:
            raw = super().scores(text)
            draw = random.Random(text)  # no two texts alike: a cut can fall between any of them
            return {label: value - 6.0 * (label != "sport") - draw.random() for label, value in raw.items()}

    with serving(Biased()) as biased:
        run_file = write(tmp_path, of(biased, "plain"), of(biased, "fixed", more='decision = "balanced"\n').replace(
            'model = "fixed"', 'model = "plain"'))  # fmt: skip
        assert compare(run_file, "--out", tmp_path / "run", "--set", "data.calibration=60") == 0
        assert biased.asked == 120, "one model asked the same way is asked once"
    said, one = capsys.readouterr().out, by_name(found_in(tmp_path / "run"))
    assert one["plain"]["accuracy"] < 0.5 < 0.8 < one["fixed"]["accuracy"]
    assert one["plain"]["by_decision"]["balanced"]["accuracy"] == one["fixed"]["accuracy"]
    assert one["plain"]["calibration_gain"]["low"] > 0.3
    assert "fixed before plain" in said and "ranking      DECIDED" in said


def test_a_balanced_rule_without_one_readable_answer_to_fix_it_on_is_refused(tmp_path: Path, capsys: Any) -> None:
    class Chatty(Teacher):
        def scores(self, text: str) -> dict[str, float]:
            return {"Certainly": -0.1, "Well": -3.0}

    with serving(Teacher()) as knows, serving(Chatty()) as chatty:
        run_file = write(tmp_path, of(knows, "knows"), of(chatty, "chatty", more='decision = "balanced"\n'))
        assert compare(run_file, "--out", tmp_path / "run") != 0
        asked = (knows.asked, chatty.asked)
        err = capsys.readouterr().err
        assert "teachers.chatty: decision = 'balanced', and none of its calibration answers" in err
        assert compare(run_file, "--out", tmp_path / "run", "--set", "teachers.chatty.decision=argmax") == 0
        assert (knows.asked, chatty.asked) == asked, "what was answered is kept"
    assert by_name(found_in(tmp_path / "run"))["chatty"]["unread"] == 60


def test_whose_terms_forbid_it_is_listed_and_never_asked(tmp_path: Path, capsys: Any) -> None:
    with serving(Teacher()) as one, serving(Teacher()) as two, serving(Teacher(HALF)) as three:
        barred = of(two, "barred").replace('licence = "MIT"', 'provider = "openai"')
        run_file = write(tmp_path, of(one, "free"), barred, of(three, "half"))
        assert compare(run_file, "--out", tmp_path / "run") == 0
        assert (one.asked, two.asked) == (80, 0)
        found = found_in(tmp_path / "run")
        assert found["candidates"][-1]["name"] == "barred" and not found["candidates"][-1]["is_permitted"]
        assert "accuracy" not in found["candidates"][-1]
        said = capsys.readouterr().out
        assert "barred   not asked" in said and "openai.com" in said
        assert verify(tmp_path / "run").findings == ()
        again = write(tmp_path, barred, barred.replace("barred", "other"))
        assert compare(again, "--out", tmp_path / "two") == 1
        assert two.asked == 0
    assert "none of the 2 candidates may be asked" in capsys.readouterr().err


def test_words_alone_are_ranked_too_and_come_after_log_probabilities(tmp_path: Path, capsys: Any) -> None:
    with serving(Teacher(logprobs=False)) as mute, serving(Teacher()) as knows:
        run_file = write(tmp_path, of(mute, "mute", 0.1, 'signal = "text"\n'), of(knows, "knows", 9.0),
                         "[ranking]\nmargin = 0.2\n")  # fmt: skip
        assert compare(run_file, "--out", tmp_path / "run") == 0
        assert (mute.asked, knows.asked) == (60, 80)
    found = found_in(tmp_path / "run")
    assert by_name(found)["mute"]["offers"] == ["text"]
    assert by_name(found)["mute"]["calibration_gain"] is None
    assert found["verdict"]["recommended"] == "knows"
    assert "that reveals log-probabilities" in capsys.readouterr().out


def test_a_probe_says_what_is_revealed_and_stops_who_does_not(tmp_path: Path, capsys: Any) -> None:
    with serving(Teacher(logprobs=False)) as mute, serving(Teacher()) as knows:
        run_file = write(tmp_path, of(mute, "mute"), of(knows, "knows"))
        assert compare(run_file, "--out", tmp_path / "run", probe="--probe") == 3
        err = capsys.readouterr().err
        assert "mute" in err and "does not offer top-logprobs" in err and "[teachers.NAME]" in err
        assert compare(run_file, "--out", tmp_path / "run", "--set", "teachers.mute.signal=text", probe="--probe") == 0
    one = by_name(found_in(tmp_path / "run"))
    assert "probed" in one["knows"]["supervision"] and "text only" in one["mute"]["supervision"]


def test_one_that_fails_keeps_nobody_else_from_being_asked(tmp_path: Path, capsys: Any) -> None:
    with serving(Teacher()) as broken, serving(Teacher()) as knows:
        broken.fault = lambda number, request: problem(500) if number > 10 else None
        run_file = write(
            tmp_path, of(broken, "broken", more="attempts = 1\n").replace("attempts = 2\n", ""), of(knows, "knows")
        )
        assert compare(run_file, "--out", tmp_path / "run") == 3
        assert "1 of 2 candidates" in capsys.readouterr().err
        assert knows.asked == 80
        assert not (tmp_path / "run" / "comparison.json").exists()
        kept, broken.fault = sum(broken.answered.values()), lambda number, request: None
        assert compare(run_file, "--out", tmp_path / "run") == 0
        assert kept == 10 and sum(broken.answered.values()) == 80 and knows.asked == 80
    assert verify(tmp_path / "run").findings == ()


def test_the_budget_holds_for_all_of_them_together(tmp_path: Path, capsys: Any) -> None:
    with serving(Teacher()) as one, serving(Teacher(HALF)) as two:
        run_file = write(tmp_path, of(one, "a", 1.0), of(two, "b", 1.0))
        assert compare(run_file, "--out", tmp_path / "run", "--max-cost", "0.001") == 3
        assert one.asked + two.asked < 160
        assert "max_cost_usd" in capsys.readouterr().err
        with Store(tmp_path / "run" / "store") as store:
            assert store.spent().settled_nusd <= 1_000_000
        assert compare(run_file, "--out", tmp_path / "run", "--max-cost", "1") == 0
        assert one.asked == two.asked == 80
    assert found_in(tmp_path / "run")["spent_usd"] == pytest.approx(160 * 9e-6)


def test_an_answer_with_none_of_the_labels_is_wrong_and_counted(tmp_path: Path, capsys: Any) -> None:
    class Odd(Teacher):
        def scores(self, text: str) -> dict[str, float]:
            return {"none": -0.1} if "soup" in text else super().scores(text)

    with serving(Odd()) as odd, serving(Teacher()) as knows:
        assert compare(write(tmp_path, of(odd, "odd"), of(knows, "knows")), "--out", tmp_path / "run") == 0
    one = by_name(found_in(tmp_path / "run"))
    assert one["odd"]["unread"] == 60 - round(60 * one["odd"]["accuracy"]) > 0
    assert "hold none of the labels" in capsys.readouterr().out


def test_a_log_probability_that_is_no_number_is_no_answer(tmp_path: Path, capsys: Any) -> None:
    class Wrong(Teacher):
        def scores(self, text: str) -> dict[str, float]:
            return {label: float("nan") for label in WORDS}

    with serving(Wrong()) as wrong, serving(Teacher()) as knows:
        assert compare(write(tmp_path, of(wrong, "wrong"), of(knows, "knows")), "--out", tmp_path / "run") == 3
    assert "wrong" in capsys.readouterr().err
    assert not (tmp_path / "run" / "comparison.json").exists()


def test_a_folder_holds_one_kind_of_record(tmp_path: Path, capsys: Any) -> None:
    with serving(Teacher()) as one, serving(Teacher()) as two:
        run_file = write(tmp_path, of(one, "a"), of(two, "b"))
        assert compare(run_file, "--out", tmp_path / "run") == 0
        prompts = tmp_path / "q.jsonl"
        prompts.write_text('{"prompt": "x"}\n')
        with pytest.raises(SystemExit) as ended:
            main(
                ["collect", str(prompts), "--teacher", one.base_url, "--licence", "MIT", "--out", str(tmp_path / "run")]
            )
        assert ended.value.code == 2
        assert "is the record of `tutelage compare-teachers`" in capsys.readouterr().err
        with pytest.raises(SystemExit) as ended:
            main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out.jsonl")])
        assert "no answer to export" in capsys.readouterr().err, "what teachers were compared by is nothing to train on"


def test_a_changed_answer_or_result_is_found(tmp_path: Path) -> None:
    with serving(Teacher()) as one, serving(Teacher(HALF)) as two:
        assert compare(write(tmp_path, of(one, "a"), of(two, "b")), "--out", tmp_path / "run") == 0
    assert verify(tmp_path / "run").findings == ()
    path = tmp_path / "run" / "comparison.json"
    kept = path.read_bytes()
    path.write_bytes(kept.replace(b'"recommended": "a"', b'"recommended": "b"'))
    assert [finding.where for finding in verify(tmp_path / "run").findings] == ["comparison.json"]
    path.write_bytes(kept)
    (segment,) = (tmp_path / "run" / "store").glob("*.seg")
    segment.write_bytes(segment.read_bytes().replace(b'"answer":"sport"', b'"answer":"Sport"', 1))
    assert verify(tmp_path / "run").findings


def test_no_key_is_in_what_is_said_of_a_bad_run_file(tmp_path: Path, capsys: Any) -> None:
    bad = '[teachers.a]\nurl = "http://me:sk-planted-12345@host/v1"\n'
    assert compare(write(tmp_path, bad, bad.replace("[teachers.a]", "[teachers.b]"))) == 2
    err = capsys.readouterr().err
    assert "teachers.a" in err and "url carries a user or password" in err and "planted" not in err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teachers": 1}, "2 to 12 tables"),
        ({"twice": True}, "same candidate"),
        ({"data.items": 200}, "taken from the training rows"),
        ({"data.calibration": 0, "task.decision": "balanced"}, "needs data.calibration"),
        ({"teachers.a.decision": "balanced", "teachers.a.signal": "text"}, "needs label probabilities"),
        ({"teachers.a.completion": "no place"}, "must contain {text}"),
        ({"teachers.a.examples": [{"text": "x", "label": "tea"}]}, "'tea'"),
        ({"ranking.margin": float("nan")}, "finite"),
        ({"ranking.level": 95}, "less than 1"),
        ({"teachers.a.price.input_usd_per_mtok": float("inf")}, "finite"),
        ({"teachers.a.modle": "x"}, "did you mean model?"),
    ],
)
def test_bad_run_files_are_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    teacher = Teacher()
    teacher.base_url = "http://127.0.0.1:9/v1"
    candidates = [of(teacher, "a"), of(teacher, "b")]
    if change.pop("teachers", 2) == 1:
        candidates.pop()
    if change.pop("twice", False):
        candidates[1] = candidates[1].replace('model = "b"', 'model = "a"')
    with pytest.raises(ConfigError) as raised:
        load_compare_config(write(tmp_path, *candidates), change)
    assert words in raised.value.message


def write_gold(path: Path, gold: list[str]) -> Path:
    draw = random.Random(2)
    words = [f"word{number}" for number in range(40)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "topic"])
        for at, label in enumerate(gold):
            writer.writerow([" ".join(draw.sample(words, 7)) + f" {at}", label])
    return path


@pytest.mark.parametrize(
    ("gold", "words"),
    [
        ([""] * 220, "no row of gold.csv has one of the labels"),
        (["tea"] * 220, "no row of gold.csv has one of the labels"),
        (["food"] * 220, "are labelled 'food': whoever always says so wins"),
        (["food", "sport"] * 50 + [""] * 120, "data.items = 60"),
    ],
)
def test_labels_that_cannot_rank_anybody_are_named(tmp_path: Path, capsys: Any, gold: list[str], words: str) -> None:
    with serving(Teacher()) as one, serving(Teacher()) as two:
        run_file = write(tmp_path, of(one, "a"), of(two, "b"), data=write_gold(tmp_path / "gold.csv", gold))
        assert compare(run_file, "--out", tmp_path / "run") == 2
        assert one.asked == two.asked == 0
    assert words in capsys.readouterr().err


def test_two_addresses_under_one_name_are_refused(tmp_path: Path, capsys: Any) -> None:
    with serving(Teacher()) as one, serving(Teacher()) as two:
        named = [
            of(teacher, name).replace(f'model = "{name}"', 'model = "m"\nprovider = "together"')
            for teacher, name in ((one, "a"), (two, "b"))
        ]
        run_file = write(tmp_path, *named)
        assert compare(run_file, "--out", tmp_path / "run") == 2
        assert one.asked == two.asked == 0
    assert "at two addresses" in capsys.readouterr().err


def test_other_commands_send_a_comparison_to_its_own(tmp_path: Path, capsys: Any) -> None:
    teacher = Teacher()
    teacher.base_url = "http://127.0.0.1:9/v1"
    run_file = write(tmp_path, of(teacher, "a"), of(teacher, "b"))
    with pytest.raises(SystemExit) as ended:
        main(["run", str(run_file)])
    assert ended.value.code == 2
    assert "tutelage compare-teachers" in capsys.readouterr().err

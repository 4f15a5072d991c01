"""A guided decoder is never reported without its guide."""

import json
from dataclasses import replace

import pytest
import torch

import dlmjoint
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.guides.ar_guide import ARGuide
from dlmjoint.decoding.order import LeftToRight
from dlmjoint.decoding.policy import Policy
from dlmjoint.evaluation.metrics.accuracy import Accuracy
from dlmjoint.evaluation.metrics.agreement import CorpusAgreement
from dlmjoint.evaluation.metrics.nll import NLL
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.running.settings import weights_hash
from dlmjoint.evaluation.scoring.score import score
from dlmjoint.evaluation.tasks.word_problems import WordProblems
from dlmjoint.evaluation.telling.report import report
from dlmjoint.models.causal import Autoregressive


@pytest.fixture(scope="module")
def guided(judge) -> Policy:
    return Policy(4, order=LeftToRight(), guide=ARGuide(judge))


@pytest.fixture(scope="module")
def scored(base, judge, guided, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("guided")
    metrics = [Accuracy(), NLL(judge, prompted=True), CorpusAgreement(prompted=True)]
    task = WordProblems(n=5, max_new_tokens=8, metrics=metrics)
    decoders = {"guided": guided, "again": replace(guided, commits_per_forward=2)}
    run(base, decoders, [task], run_dir)
    return run_dir, score(run_dir)


def test_the_guide_alone_is_decoded_once_and_scored_beside(scored) -> None:
    _, scores = scored
    assert list(scores["decoders"]) == ["guided", "again", "guide-alone"]
    alone = scores["decoders"]["guide-alone"]
    assert set(alone["tasks"]["word_problems"]) == set(
        scores["decoders"]["guided"]["tasks"]["word_problems"]
    )
    assert alone["cost"]["base_forwards"] == 5 * 8
    assert scores["decoders"]["guided"]["cost"]["guide_passes"] > 0


def test_what_the_guide_writes_alone_is_its_own_greedy_continuation(base, judge, scored) -> None:
    run_dir, _ = scored
    lines = (run_dir / "generations/guide-alone/word_problems.jsonl").read_text().splitlines()
    model = Autoregressive.beside(base, judge)
    for line in map(json.loads, lines):
        ids = list(line["prompt"])
        for token in line["tokens"]:
            logits = model.model(input_ids=torch.tensor([ids])).logits[0, -1]
            logits[list(base.forbidden_ids)] = -torch.inf
            assert int(logits.argmax()) == token
            ids.append(token)


def test_every_cost_stands_in_the_written_table(scored) -> None:
    run_dir, _ = scored
    report(run_dir)
    head, _, *rows = (run_dir / "table.md").read_text().splitlines()
    for name in ("base forwards", "columns computed", "sampler passes", "guide passes"):
        assert name in head
    assert [row.split(" | ")[0] for row in rows] == ["| guided", "| again", "| guide-alone"]


def test_a_run_remembers_which_guide_it_had(scored, base) -> None:
    run_dir, _ = scored
    made = json.loads((run_dir / "settings.json").read_text())["decoders"]
    assert made["guided"]["weights"] is not None
    assert made["guided"]["weights"] == made["again"]["weights"]
    assert weights_hash(Policy().prepare(base)) is None


def test_the_guide_alone_computes_one_column_per_token(base, judge) -> None:
    alone = Policy(**ARGuide(judge).alone(Draw(temperature=0.0)))
    out = dlmjoint.generate(base, [[501, 5, 6], [501]], alone, 8)
    assert out.tokens_per_forward == 1
    assert out.tally.columns == (3 + 8) + (1 + 8) + 2 * 7

"""Texts that lm-eval asks for."""

import json

import pytest

from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.lm_eval.model import DLMJoint
from dlmjoint.evaluation.lm_eval.settings import Settings
from tests.evaluation.lm_eval.asking import BASE, SAMPLER, model_of, wanted


def test_a_text_ends_at_its_stop_and_its_temperature_is_the_tasks(tiny):
    model = model_of(tiny, policy=Policy(4))
    question = "Tom has 7 pens. Tom buys 2 more pens. How many pens does Tom have now?\n"
    (whole,) = model.generate_until([wanted(question, until=[])], disable_tqdm=True)
    (cut,) = model.generate_until([wanted(question, until=["="])], disable_tqdm=True)
    assert "=" in whole
    assert cut == whole.partition("=")[0]
    warm = [
        model.generate_until([wanted(question, i, do_sample=True, temperature=2.0)], True)[0]
        for i in range(4)
    ]
    assert len(set(warm)) > 1, "noise is the document's"
    assert model.generate_until([wanted(question, 3, until=[])], True) == [whole], "greedy has none"


def test_a_stop_may_be_a_special_token(tiny):
    model = model_of(tiny)
    ids = [*tiny.encode("9 pens"), *tiny.encode("<|im_start|>"), *tiny.encode("user")]
    assert model._text(ids, ["<|im_start|>"]) == "9 pens"
    assert model._text(ids, []) == "9 pensuser"


def test_texts_do_not_depend_on_batches_order_or_the_other_requests(tiny):
    asked = [
        wanted("Tom has 7 pens.\n" * (1 + i % 3), i, do_sample=True, temperature=2.0)
        for i in range(7)
    ]
    alone = model_of(tiny).generate_until(asked, disable_tqdm=True)
    batched = model_of(tiny, batch_size=4).generate_until(asked[::-1], disable_tqdm=True)
    assert batched[::-1] == alone
    assert model_of(tiny, seed=1).generate_until(asked, disable_tqdm=True) != alone


def test_several_texts_of_a_document_differ_and_padding_is_not_decoded(tiny):
    model = model_of(tiny, batch_size=8)
    several = wanted("Tom has 7 pens.\n", repeats=3, do_sample=True, temperature=3.0)
    texts = model.generate_until([several] * 5, disable_tqdm=True)
    assert len(set(texts[:3])) == 3
    assert texts[3:] == [texts[0]] * 2
    assert model.tally.tokens == 3 * 12


def test_a_joint_sampler_is_named_beside_the_base(tiny):
    model = model_of(tiny, policy=Policy(4), sampler=SAMPLER)
    model.generate_until([wanted("Tom has 7 pens.\n", max_gen_toks=24)], disable_tqdm=True)
    assert (model.tally.base_forwards, model.tally.sampler_passes) == (6, 18)
    info = model.get_model_info()
    assert info["policy"]["init_args"]["refine"]["init_args"] == {"sampler": SAMPLER}
    assert info["spent_by_this_process"]["tokens"] == 24
    json.dumps(info)


def test_a_prompt_that_is_too_long_is_refused_before_anything_is_decoded(tiny):
    model = model_of(tiny)
    with pytest.raises(ConfigError, match=r"document 1 of t has a prompt of \d+ tokens"):
        model.generate_until([wanted("Tom"), wanted("Tom " * 2040, 1)], disable_tqdm=True)
    assert model.tally.tokens == 0


def test_settings_of_other_decoders_are_refused_unless_they_change_nothing(tiny):
    model = model_of(tiny)
    assert model.generate_until([wanted("Tom", num_beams=1)], disable_tqdm=True)
    with pytest.raises(ConfigError, match="num_beams=4, which has no meaning here"):
        model.generate_until([wanted("Tom", num_beams=4)], disable_tqdm=True)


def test_a_chat_is_the_tokenizers_template(tiny):
    model = DLMJoint.of(tiny, Settings(base=BASE))
    said = [{"role": "user", "content": "Tom?"}]
    assert tiny.encode(model.apply_chat_template(said)) == tiny.encode_chat("Tom?")
    begun = [*said, {"role": "assistant", "content": "Tom has"}]
    assert model.apply_chat_template(begun, add_generation_prompt=False).endswith("Tom has")
    with pytest.raises(ConfigError, match="opening is not used in a chat"):
        model_of(tiny).apply_chat_template(said)

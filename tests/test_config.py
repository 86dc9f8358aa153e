import json
import math
from dataclasses import FrozenInstanceError, asdict, replace

import numpy as np
import pytest
from training import TINY

from jepa_utils.config import READ_BY, TrainConfig, check_effect
from jepa_utils.recipes import DEFAULTS, RECIPES, recipe
from jepa_utils.runtime import InputError

NAN = math.nan
BAD = [
    ("model_type", "resnet50"), ("loss_type", "simclr"), ("predictor", "rnn"), ("optimizer", "sgd"),
    ("scale", "paper"), ("dobs", 2), ("dobs", 0),
    *[(name, value) for name in ("std_coeff", "cov_coeff", "sim_loss_weight", "var_loss_weight", "cov_loss_weight",
                                 "lmbd", "weight_decay")
      for value in (-1.0, NAN, math.inf)],
    *[(name, value) for name in ("lr", "probe_lr") for value in (0.0, -1e-3, NAN, math.inf)],
    *[(name, value) for name in ("henc", "dstc", "hpre", "stride", "patch_size", "slices", "epochs",
                                 "max_steps", "checkpoint_every")
      for value in (0, -1, NAN, 1.5)],
    *[("micro_batch", value) for value in (-1, NAN, 1.5)],
    ("batch_size", 1), ("batch_size", NAN), ("views", 1), ("points", 1),
    ("warmup", -0.1), ("warmup", 1.1), ("warmup", NAN),
    ("projector", "512-"), ("projector", "0"), ("projector", "a-b"), ("projector", "-5"), ("projector", "5²"),
    *[(name, value) for name in ("batch_size", "epochs", "henc") for value in (True, "64", None)],
    ("max_steps", True), ("max_steps", "5"),
    *[(name, value) for name in ("lr", "lmbd", "warmup") for value in ("0.1", None, True)],
    ("seed", -1), ("seed", 2**32), ("seed", 0.5), ("compile", "yes"), ("compile", 1),
    ("projector", None), ("projector", 512), ("model_type", None),
]
BAD_TOGETHER = [
    ({"scale": "lejepa"}, "lmbd"),  # 10 by default, there a share
    ({"predictor": "conv", "projector": "16"}, "projector"),
    ({"micro_batch": 8}, "micro_batch"),  # the batch norms of a ResNet would take statistics of each part
    ({"predictor": "conv", "views": 3}, "views"),  # a partial view and the whole: there are always two
    ({"optimizer": "lars", "weight_decay": 0.0}, "weight_decay"),
]


@pytest.mark.fault("bad values in a configuration")
@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_configuration_names_the_parameter_that_it_refuses(name, value):
    with pytest.raises(InputError, match=f"^{name}: "):
        replace(TINY, **{name: value})


@pytest.mark.fault("bad values in a configuration")
@pytest.mark.parametrize(("changes", "name"), BAD_TOGETHER)
def test_a_configuration_refuses_values_that_do_not_go_together(changes, name):
    with pytest.raises(InputError, match=f"^{name}: "):
        replace(TINY, **changes)


def test_a_good_configuration_is_taken_and_cannot_be_changed_afterwards():
    config = replace(TINY, std_coeff=0.0, weight_decay=0, projector="16-8", scale="lejepa", lmbd=0.05,
                     max_steps=1, warmup=0)
    with pytest.raises(FrozenInstanceError):
        config.lr = 1.0
    assert TrainConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_numpys_numbers_become_pythons():
    config = replace(TINY, lr=np.float32(0.5), epochs=np.int64(3), max_steps=np.int64(5), weight_decay=np.float64(0))
    assert {type(value) for value in asdict(config).values()} <= {int, float, str, bool}
    assert config == replace(TINY, lr=0.5, epochs=3, max_steps=5, weight_decay=0.0)


@pytest.mark.parametrize("name", READ_BY)
def test_a_field_that_the_configuration_does_not_read_is_refused_where_it_is_asked_for(name):
    decides, values = READ_BY[name]
    check_effect(replace(TINY, projector="", **{decides: values[0]}), [name])
    other = {"model_type": "resnet", "predictor": "identity", "loss_type": "none"}[decides]
    with pytest.raises(InputError, match=rf"^{name}: .*nothing with {decides} {other}"):
        check_effect(replace(TINY, **{decides: other}), [name])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_configuration_of_its_name_with_the_changes_asked_for(name):
    config = RECIPES[name].config
    assert recipe(name) == config
    assert recipe(name, epochs=7, seed=3) == replace(config, epochs=7, seed=3)


def test_unknown_recipes_fields_and_wishes_without_effect_are_refused_by_name():
    with pytest.raises(InputError, match=r"^recipe: 'laptop-simclr' was given; accepted: .*laptop-vicreg"):
        recipe("laptop-simclr")
    with pytest.raises(InputError, match=r"^lmbd: 3.0 was given"):
        recipe("laptop-vicreg", lmbd=3.0)
    with pytest.raises(TypeError, match="learning_rate"):
        recipe("laptop-vicreg", learning_rate=1.0)


def test_every_model_type_has_a_default_recipe_of_its_own():
    assert {RECIPES[name].config.model_type: name for name in DEFAULTS.values()} == DEFAULTS

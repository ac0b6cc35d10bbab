"""Every network of the zoo names its paper's recipe: it can be built, and says what the paper says."""

import pytest

import minidl_models
from minidl import nn
from minidl.data import transforms

NAMES = minidl_models.names()


@pytest.mark.parametrize("name", NAMES)
def test_every_model_has_a_recipe_that_fits_it(name):
    for variant in minidl_models.entry(name).variants.values():
        with nn.init.blank():
            model = minidl_models.create(name, **variant)
            recipe = model.recipes["paper"]
            assert recipe.build_optimizer(model).params
            recipe.start(model)  # ValueError for a pattern that fits no layer
        if recipe.augment:
            transforms.parse(recipe.augment)
        if recipe.augment and "crop(" in recipe.augment and model.input_shape[0] > 32:
            assert f"({model.input_shape[0]})" in recipe.augment


def paper(name, **arguments):
    with nn.init.blank():
        return minidl_models.create(name, **arguments).recipes["paper"]


def test_nin_as_its_authors_files_say():
    recipe = paper("nin")
    assert (recipe.preprocess, recipe.augment, recipe.dropout) == ("gcn+zca", "translate(4)+flip", 0.5)
    assert (recipe.lr, recipe.batch_size, recipe.initial_std) == (0.1, 128, 0.05)
    assert (recipe.lr_factors["bias"], recipe.decay_biases, recipe.nesterov) == (2.0, False, False)
    assert paper("nin", dataset="svhn").preprocess == "lcn"
    assert paper("nin", dataset="mnist").preprocess == "none"
    assert paper("nin", variant="cifar100").lr == 0.02


@pytest.mark.parametrize("name", ["inception_v2", "inception_v3", "inception_v4", "inception_resnet_v2"])
def test_the_inceptions_as_their_papers_say(name):
    recipe = paper(name)
    assert (recipe.optimizer, recipe.lr, recipe.gamma, recipe.every) == ("rmsprop", 0.045, 0.94, 2)
    assert (recipe.clip_norm, recipe.label_smoothing, recipe.ema_decay) == (2.0, 0.1, 0.9999)


def test_residual_networks_on_cifar_as_their_paper_says():
    recipe = paper("resnet56")
    steps_in_epoch = -(-45_000 // 128)
    assert recipe.epochs * steps_in_epoch == pytest.approx(64_000, rel=0.01)
    assert [share * 64_000 for share in recipe.milestones] == [32_000, 48_000]
    assert (recipe.lr, recipe.momentum, recipe.weight_decay, recipe.warmup_steps) == (0.1, 0.9, 1e-4, 0)
    assert (recipe.preprocess, recipe.augment) == ("mean(per='pixel')", "pad_crop(4)+flip")
    assert paper("resnet110").warmup_steps == 400
    assert paper("plain56") == recipe

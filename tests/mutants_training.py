"""Mistakes in the trainers and in what is around them, each with the check that finds it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from parity_tests.planting import Slip
from tests.drawn import check_curves
from tests.epochs import (
    check_epochs,
    check_evaluated_again,
    check_interrupted_evaluation,
    check_mirrors,
    check_plateau_resumed,
    check_resumed,
    check_shares,
)
from tests.exact import (
    check_digits,
    check_empty_shares,
    check_fingerprint,
    check_jobs_that_have_not_begun,
    check_names,
    check_photographs,
    check_rescaled,
    check_sample,
    check_ties,
)
from tests.odd_files import check_link_to_what_is_read
from tests.options_matter import check_defaults, check_option, check_seed
from tests.runs import SIDES

Check = Callable[[str, Path], None]
NOTHING = "(lambda *_: None)("
RUNS, DATA = "alexnet_from_scratch.runs", "alexnet_from_scratch.data"


def _in_both(title: str, old: str, new: str, check: Check, *, old_in_torch: str = "", new_in_torch: str = "") -> tuple[Slip, ...]:
    """The same mistake in both trainers; ``check`` gets the side."""
    return tuple(
        Slip(f"{side}.train", title, *texts, partial(check, side))
        for side, texts in zip(SIDES, ((old, new), (old_in_torch or old, new_in_torch or new)), strict=True)
    )


def _option(name: str) -> Check:
    return lambda side, folder: check_option(side, name, folder)


def _seed(part: str) -> Check:
    return lambda side, folder: check_seed(side, part, folder)


TRAINERS = (
    *_in_both(
        "the optimizer keeps its first learning rate",
        "optimizer.lr = run.schedule.rate",
        "pass",
        check_epochs,
        old_in_torch='optimizer.param_groups[0]["lr"] = run.schedule.rate',
    ),
    *_in_both("after an evaluation nothing is dropped any more", "model.train()", "pass", check_epochs),
    *_in_both("an evaluation drops values too", "model.eval()", "pass", check_epochs),
    *_in_both("gradients of the step before are kept", "optimizer.zero_grad()", "pass", check_epochs, new_in_torch="pass"),
    *_in_both("digits are mirrored", "mirror=dataset.mirror", "mirror=True", check_mirrors),
    *_in_both("weight_decay is ignored", "weight_decay=options.weight_decay", "weight_decay=5e-4", _option("weight_decay")),
    *_in_both("momentum is ignored", "options.momentum", "0.9", _option("momentum")),
    *_in_both("update is ignored", "update=options.update", 'update="torch"', _option("update")),
    *_in_both("init is ignored", "init=options.init", 'init="torch"', _option("init")),
    *_in_both("dropout is ignored", "dropout=options.dropout", "dropout=0.5", _option("dropout")),
    *_in_both("ten_crops is ignored", "ten_crops=options.ten_crops", "ten_crops=False", _option("ten_crops")),
    *_in_both(
        "the weights do not depend on the seed",
        "seeds(options.seed, Purpose.WEIGHTS)",
        "seeds(0, Purpose.WEIGHTS)",
        _seed("weights"),
    ),
    *_in_both(
        "the order does not depend on the seed",
        "options.batch, options.seed, options.workers",
        "options.batch, 0, options.workers",
        _seed("order"),
    ),
    *_in_both("what is dropped does not depend on the seed", "seeds(seed, Purpose", "seeds(0, Purpose", _seed("dropout")),
    *_in_both("every step drops the same", "Purpose.DROPOUT, step)", "Purpose.DROPOUT, 0)", check_epochs),
    *_in_both(
        "every epoch drops the same",
        "seed_dropout(model, options.seed, run.position.step",
        "seed_dropout(model, options.seed, run.position.batch",
        check_epochs,
        old_in_torch="draw_masks(model, options.seed, run.position.step",
        new_in_torch="draw_masks(model, options.seed, run.position.batch",
    ),
    *_in_both("the velocities are not restored", '"state": velocities', '"state": {}', check_resumed),
    *_in_both("a resumed epoch begins anew", "first=run.position.batch", "first=0", check_resumed),
    *_in_both(
        "threads are ignored",
        "set_num_threads(options.threads or get_num_threads())",
        "set_num_threads(1)",
        _option("threads"),
        old_in_torch="torch.set_num_threads(options.threads or torch.get_num_threads())",
        new_in_torch="torch.set_num_threads(1)",
    ),
)
OF_TORCH = tuple(
    Slip("torch_impl.train", title, old, new, partial(check, "torch_impl"))
    for title, old, new, check in (
        ("--amp is ignored", "enabled=options.amp", "enabled=False", _option("amp")),
        ("--amp computes in float16", "torch.bfloat16", "torch.float16", _option("amp")),
        ("--compile is ignored", "compiled=options.compile", "compiled=False", _option("compile")),
        ("--channels-last is ignored", "if options.channels_last", "if False", _option("channels_last")),
        ("a small batch is divided by a full one's size", "world / run.batch_size", "world / options.batch", check_epochs),
        (
            "a share without images cannot be evaluated",
            "crops = images.shape[1] if images.ndim == 5 else 1",
            "crops = -1",
            lambda side, folder: check_empty_shares(),
        ),
    )
)


def _around(module: str, *rows: tuple[str, str, str, Check]) -> tuple[Slip, ...]:
    """Mistakes in what both trainers use; both sides' runs must show them, in turn."""
    return tuple(
        Slip(module, title, old, new, partial(check, tuple(SIDES)[i % 2])) for i, (title, old, new, check) in enumerate(rows)
    )


AROUND = (
    *_around(
        f"{DATA}.loader",
        ("every epoch has the same order", "[self.seed, epoch]).perm", "[self.seed]).perm", check_epochs),
        ("every epoch alters alike", "[self.seed, epoch, number]", "[self.seed, 0, number]", check_epochs),
        ("every batch alters alike", "[self.seed, epoch, number]", "[self.seed, epoch]", check_epochs),
        ("the last batch is dropped", "-(-len(self.split) // self.batch)", "len(self.split) // self.batch", check_epochs),
        (
            "a part's labels are another's",
            "self.split.labels[indices[part]]",
            "self.split.labels[indices[part]][::-1]",
            check_epochs,
        ),
        (
            "workers are ignored",
            "range(first, len(self)), workers=self.workers",
            "range(first, len(self)), workers=1",
            _option("workers"),
        ),
        ("statistics come from fewer images", "limit: int = 5000", "limit: int = 1000", lambda side, folder: check_sample()),
    ),
    *_around(
        f"{DATA}.ahead",
        (
            "jobs that have not begun are done first",
            "                future.cancel()",
            "                pass",
            lambda side, folder: check_jobs_that_have_not_begun(),
        ),
    ),
    *_around(
        f"{DATA}.datasets",
        (
            "levels of grey are cut",
            "np.rint(bunch.images * (255 / 16))",
            "(bunch.images * (255 / 16))",
            lambda side, folder: check_digits(),
        ),
        ("a fourth is held out", "held_out(labels, 5", "held_out(labels, 4", lambda side, folder: check_digits()),
        (
            "photographs are shown less often",
            "np.tile(labels, SHOWN)",
            "np.tile(labels, 8)",
            lambda side, folder: check_photographs(),
        ),
    ),
    *_around(
        "torch_impl.convert",
        (
            "the scale is rounded first",
            "DEVIATION, dtype=torch.float64",
            "DEVIATION, dtype=torch.float32",
            lambda side, folder: check_rescaled(),
        ),
        (
            "the last name ends with its last letter",
            'text.rstrip("\\r\\n")',
            "text.rstrip()",
            lambda side, folder: check_names(folder),
        ),
        (
            "a link to the file that is read is another file",
            "out.samefile(path)",
            "out == Path(path)",
            lambda side, folder: check_link_to_what_is_read(folder),
        ),
    ),
    *_around(
        f"{RUNS}.resuming",
        (
            "a run without momentum cannot go on",
            " and options.momentum > 0",
            "",
            lambda side, folder: check_resumed(side, folder, momentum=0.0),
        ),
        (
            "an evaluation by other workers is refused",
            "(OF_AN_EVALUATION if again",
            '(OF_AN_EVALUATION - {"workers"} if again',
            check_evaluated_again,
        ),
        (
            "an evaluation with pictures is refused",
            "(OF_AN_EVALUATION if again",
            '(OF_AN_EVALUATION - {"no_pictures"} if again',
            check_evaluated_again,
        ),
        *(
            (title, old, new, lambda side, folder: check_fingerprint())
            for title, old, new in (
                ("other images to test with are not noticed", "in (dataset.train, dataset.test):", "in (dataset.train,):"),
                ("images may change sides", '        digest.update(b"%d" % len(split))\n', ""),
                ("other classes are not noticed", "json.dumps(dataset.classes)", "json.dumps([])"),
            )
        ),
    ),
    *_around(
        f"{RUNS}.session",
        ("the loss is over a full batch", "loss / count, accuracy=", "loss / self.options.batch, accuracy=", check_epochs),
        ("the accuracy is over a full batch", "correct / count, lr=", "correct / self.options.batch, lr=", check_epochs),
        ("the rate never falls", "self.schedule.after_epoch(", NOTHING, check_epochs),
        ("the network is not restored", "self.learner.restore(", NOTHING, check_resumed),
        ("the schedule is not restored", "self.schedule.restore(", NOTHING, check_resumed),
        ("checkpoint_every is ignored", "% self.options.checkpoint_every", "% 100", _option("checkpoint_every")),
        ("the schedule hears of one share", "epoch, self.evaluation.error)", "epoch, evaluation.error)", check_shares),
        ("a stop during the last evaluation is no end", "if stop and not self._over:", "if stop:", check_interrupted_evaluation),
        (
            "a stop during an evaluation waits for a step",
            "if stop and not self._over:",
            "if False:",
            check_interrupted_evaluation,
        ),
        ("no_pictures is ignored", "if not self.options.no_pictures", "if False", _option("no_pictures")),
    ),
    *_around(
        f"{RUNS}.schedule",
        ("the best error is not restored", 'state["best"]', "1.0", check_plateau_resumed),
        ("the epochs waited are not restored", 'state["waited"]', "0", check_plateau_resumed),
        ("a drop is to a fifth", "0.1**self", "0.2**self", check_epochs),
        ("patience waits one epoch more", ">= self.patience", "> self.patience", check_plateau_resumed),
        ("lr_every is ignored", "(epoch + 1) // self.every", "(epoch + 1) // 1", _option("lr_every")),
    ),
    *_around(
        f"{RUNS}.evaluation",
        ("top-5 is top-4", "[:, :5]", "[:, :4]", check_epochs),
        ("ties have no order", ', kind="stable")', ")", lambda side, folder: check_ties()),
        ("the loss is the likeliest class's", "np.arange(len(labels)), labels]", "np.arange(len(labels)), 0]", check_epochs),
    ),
    *_around(
        f"{RUNS}.options",
        ("a run may go on with anything", "if name not in may_change", "if False", _option("weight_decay")),
        ("a run may go on with other layouts", "if name not in may_change", 'if name == "lr"', _option("channels_last")),
        (
            "the learning rate is another without the flag",
            "lr: float = flag(0.004,",
            "lr: float = flag(0.01,",
            lambda side, folder: check_defaults(side),
        ),
    ),
    *_around(
        f"{RUNS}.pictures",
        ("the band is the middle half", "(0.1, 0.9)", "(0.25, 0.75)", lambda side, folder: check_curves()),
        ("a stretch is shown at its end", "stretch[:, 0].mean()", "stretch[-1, 0]", lambda side, folder: check_curves()),
    ),
)

MUTANTS: tuple[Slip, ...] = (*TRAINERS, *OF_TORCH, *AROUND)

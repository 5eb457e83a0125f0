"""Mistakes in what operations share, in torch_impl, and in the words' meanings, each with the check that finds it."""

from __future__ import annotations

from collections.abc import Callable

from parity_tests import checks_core as core
from parity_tests import checks_words as words
from parity_tests.planting import Slip


def _in(module: str, check: Callable[[], None], *rows: tuple[str, str, str] | tuple[str, str, str, str]) -> tuple[Slip, ...]:
    """Mistakes in one module that one check finds: title, old, new, and the mark before it if there is one."""
    return tuple(Slip(module, *row[:3], lambda folder: check(), *row[3:]) for row in rows)


MEMORY = (
    *_in(
        "scratch.compiled.memory",
        core.check_shelf,
        (
            "a block that is taken still counts as free",
            "            self.bytes -= size\n            self.blocks.move",
            "            self.blocks.move",
        ),
        (
            "what lies there is not counted again",
            "self.bytes = sum(size * len(self.blocks.get(size, ())) for size in list(self.blocks))",
            "pass",
        ),
        ("blocks that come back are not counted", "self.bytes += size", "pass"),
        ("blocks that go still count", "                    self.bytes -= size\n", ""),
        ("the most recently used size goes", "popitem(last=False)", "popitem()"),
        ("everything goes", "self.limit // 8 * 7", "0"),
        ("nothing ever goes", "if self.bytes > self.limit:", "if False:"),
        ("no block is used again", "if not blocks:\n            return", "if True:\n            return"),
    ),
    *_in(
        "scratch.compiled.memory",
        core.check_shelf_of_one_size,
        ("the block used longest ago is next", "blocks.pop()", "blocks.popleft()"),
        ("the block used last goes", "blocks.popleft()", "blocks.pop()"),
    ),
    *_in(
        "scratch.compiled.memory",
        core.check_shelf_of_two_sizes,
        ("the first size moves to the end after each block", "self.blocks.move_to_end(size, last=False)", "pass"),
    ),
    *_in(
        "scratch.compiled.memory",
        core.check_workspaces,
        ("a workspace in use is lent again", "sys.getrefcount(spare.base) == 2", "True"),
        ("no workspace is used again", "sys.getrefcount(spare.base) == 2", "False"),
        ("workspaces begin anywhere", "-_address(_first_byte(memory)) % ALIGNMENT + shift", "4 + shift"),
    ),
    *_in(
        "scratch.compiled.memory",
        core.check_cleared_workspaces,
        ("clearing keeps the workspaces", "    _spares = _Spares()", "    pass"),
    ),
)
THREADS = (
    *_in(
        "scratch.compiled.threads",
        core.check_threads_of_a_child,
        ("a child begins with another number of threads", "[_Pool(get_num_threads())]", "[_Pool(_threads_at_the_start())]"),
    ),
    *_in(
        "scratch.compiled.threads",
        core.check_context_of_workers,
        ("threads have their own context", "context.copy().run(work)", "work()"),
        ("threads share one context", "context.copy().run(work)", "context.run(work)"),
    ),
    *_in(
        "scratch.compiled.threads",
        core.check_errors_of_workers,
        ("errors of threads are forgotten", "raise errors[0]", "pass"),
        ("errors of threads are not kept", "errors.append(error)", "pass"),
    ),
    *_in(
        "scratch.compiled.threads",
        core.check_an_error_ends_the_call,
        (
            "after an error in a thread the caller does the rest",
            "            list(ranges)  # so no thread begins another range\n",
            "",
        ),
    ),
    *_in(
        "scratch.compiled.threads",
        core.check_ranges,
        ("the last item is left out", "while bounds[-1] < n:", "while bounds[-1] < n - 1:"),
        ("equal ranges leave the last one out", "for i in range(count + 1)]", "for i in range(count)]"),
    ),
)
LADDER = (
    *_in(
        "scratch.core.ladder",
        core.check_nested_choices,
        ("the outermost block counts", "reversed(list(blocks))", "list(blocks)"),
        (
            "the process's choice goes before the thread's",
            "(_context_blocks.get(), _context_choice.get()), (_process_blocks, _process_choice)",
            "(_process_blocks, _process_choice), (_context_blocks.get(), _context_choice.get())",
        ),
        ("a block for the process is the thread's", "if self._process:", "if False:"),
        ("a block for the thread is the process's", "if self._process:", "if True:"),
        ("a block counts after its end", "inside is not None and inside.locked()", "inside is not None"),
        ("a block forgets the one around it", "{**others, weakref", "{weakref"),
    ),
    *_in(
        "scratch.core.ladder",
        core.check_choices_that_replace,
        ("a choice of all and of one adds to the process's", "    elif name:", "    elif not operations:"),
        ("a choice of all and of one adds to the thread's", "{} if name else", "{} if name and not operations else"),
        ("every choice replaces the process's", "    elif name:", "    elif True:"),
        ("every choice replaces the thread's", "({} if name else _context_choice.get())", "{}"),
    ),
    *_in(
        "scratch.core.ladder",
        core.check_rungs_below,
        ("the lowest rung runs if the chosen one does not", "reversed(higher)", "reversed(higher[-1:])"),
        ("rungs above the chosen one run", "names if chosen is None else names[: names.index(chosen.name) + 1]", "names"),
        ("gradients of any shape are taken", "if grad_out.shape != cache.out_shape:", "if False:"),
        ("any operation's cache is taken", " or cache.operation != self.operation", ""),
    ),
    *_in(
        "scratch.core.ladder",
        core.check_one_image_without_its_gradient,
        ("one image always has a gradient", "None if grad_x is None else grad_x[0], *rest", "grad_x[0], *rest"),
    ),
    *_in(
        "scratch.convolution.implicit_gemm",
        core.check_rungs_below,
        ("weights whose sum overflows are refused", " or np.isfinite(weight).all())", ")"),
    ),
)
KEPT_CODE = _in(
    "scratch.compiled.kernel_cache",
    core.check_what_kept_code_depends_on,
    ("code by another Numba is taken", "numba.__version__, llvmlite", "llvmlite"),
    ("code by another llvmlite is taken", "llvmlite.__version__, np", "np"),
    ("code by another NumPy is taken", ", np.__version__", ""),
    ("code for another processor is taken", "llvm.get_host_cpu_features().flatten(), ", ""),
    ("code for other vectors is taken", ', os.environ.get("SCRATCH_VECTOR_BITS")', ""),
    ("code by other settings is taken", "sorted(settings.items())", "()"),
    ("code of another source is taken", "co_firstlineno, self._words", "co_firstlineno"),
)
CHECKS = _in(
    "scratch.core.checks",
    core.check_bounds_of_numbers,
    ("the lowest number is refused", "number < low", "number <= low"),
    ("there is no lowest number", "low is not None and number < low", "False"),
    ("a number of 65 bits is taken", "-(2**63) <= number < 2**63", "-(2**63) <= number <= 2**63"),
    ("the lowest number of 64 bits is refused", "-(2**63) <= number", "-(2**63) < number"),
    ("True is 1", "if _is_bool(value):\n        raise", "if False:\n        raise"),
    ("a pair's second number has no lowest", "integer(operation, name, value[1], low=low)", "integer(operation, name, value[1])"),
    (
        "a pair's first number has no lowest",
        "return integer(operation, name, value[0], low=low)",
        "return integer(operation, name, value[0])",
    ),
    ("a lone number has no lowest", "both = integer(operation, name, value, low=low)", "both = integer(operation, name, value)"),
    ("there is an axis after the last", "-ndim <= number < ndim", "-ndim <= number <= ndim"),
    ("the first axis from the end is refused", "-ndim <= number", "-ndim < number"),
    ("a probability of 1 is refused", "0 <= number <= 1", "0 <= number < 1"),
    ("a probability may be NaN", "if not 0 <= number <= 1:", "if number < 0 or number > 1:"),
)
MODULES = (
    *_in(
        "scratch.core.module",
        core.check_loading,
        (
            "what fits is loaded before the rest is looked at",
            "            if type(value) not in",
            "            if np.shape(value) == own[name].shape:\n"
            "                own[name][...] = value\n            if type(value) not in",
        ),
        (
            "an array is asked for twice",
            "                own[name][...] = value",
            "                own[name][...] = state_dict[name]",
        ),
        ("a number too large is an error in the middle", 'with np.errstate(all="ignore"):  # what', "if True:  # what"),
        ("a number too small is an error in the middle", 'errstate(all="ignore"):  # what', 'errstate(over="ignore"):  # what'),
        ("whole numbers are taken", "elif not np.issubdtype(value.dtype, np.floating):", "elif False:"),
        ("any shape is taken that spreads", "elif value.shape != own[name].shape:", "elif value.ndim > own[name].ndim:"),
    ),
    *_in(
        "scratch.core.module",
        core.check_gradients_add_up_in_place,
        ("a second gradient makes another array", "self.grad += gradient", "self.grad = self.grad + gradient"),
    ),
)
WINOGRAD = (
    *_in(
        "scratch.convolution.winograd",
        core.check_limits_of_winograd,
        ("any bias is taken", "np.finfo(x.dtype).max / 2", "np.inf"),
        ("a bias up to the largest number is taken", "np.finfo(x.dtype).max / 2", "np.finfo(x.dtype).max"),
        (
            "a bias may be NaN",
            "not np.all(np.abs(biases) <= np.finfo(x.dtype).max / 2)",
            "np.any(abs(biases) > np.finfo(x.dtype).max / 2)",
        ),
    ),
    *_in(
        "scratch.convolution.winograd_filters",
        core.check_kept_filters,
        ("kept filters are never compared", "not _same(filters, made.filters)", "False"),
        ("the last stretch of a weight is not compared", "math.ceil(one.weight.size / STRETCH)", "one.weight.size // STRETCH"),
        ("one stretch that is the same is enough", "same.all()", "same.any()"),
        ("filters within a higher limit are taken", "made.limit > limit or ", ""),
        ("filters within a lower limit are made again", "made.limit > limit", "made.limit != limit"),
        ("groups and channels are not compared", "one[1:-1] != other[1:-1] or ", ""),
        ("the window's shape is not compared", "not np.array_equal(one.order, other.order) or ", ""),
        ("what is kept is no copy", "weight=memory.copy(filters.weight)", "weight=filters.weight"),
        ("filters stay when the weight is gone", "functools.partial(_kept.pop, _address(weight))", "None"),
    ),
    *_in(
        "scratch.modules",
        core.check_kept_filters,
        ("training keeps filters", "(forget if self.training else keep)", "keep"),
        ("evaluation keeps no filters", "(forget if self.training else keep)", "forget"),
    ),
    *_in(
        "scratch.convolution.winograd_filters",
        core.check_limits_of_winograd,
        ("taps are taken down to the smallest normal number", "type(4 * np", "type(np"),
        ("taps are taken from a larger number on", "type(4 * np", "type(5 * np"),
        ("any tap is taken", "if not within.all():", "if False:"),
    ),
    *_in(
        "scratch.convolution.winograd_tiles",
        core.check_limits_of_winograd,
        ("numbers are taken beyond the limit", "/ 2 / 64 /", "/ 2 / 63 /"),
        ("numbers are refused below the limit", "/ 2 / 64 /", "/ 2 / 65 /"),
        ("a sum over tiles may be of any length", "max(channels, tiles)", "channels"),
        ("a sum over channels may be of any length", "max(channels, tiles)", "tiles"),
        ("grad_x's sum may be longer than the output's", "max(C, OC // geometry.groups)", "C"),
        ("the output's sum may be longer than grad_x's", "max(C, OC // geometry.groups)", "OC // geometry.groups"),
        ("groups are not told apart", "OC // geometry.groups)", "OC)"),
        ("a larger window's pieces are not counted", "len(Pieces.of(KH, KW).taps) * ", ""),
    ),
)
SGD = (
    *_in(
        "scratch.sgd",
        core.check_changing_options,
        (
            "a step without momentum forgets the velocity",
            "                velocity = None\n            elif",
            "                velocity = self._velocities[i] = None\n            elif",
        ),
        (
            "a step without momentum changes the velocity",
            "            if momentum == 0:\n                velocity = None\n            elif velocity",
            "            if velocity",
        ),
        ("a first step is damped", "keep, gain = 0.0, 1.0", "keep = 0.0"),
    ),
    *_in(
        "scratch.sgd",
        core.check_torchs_own_state,
        (
            "torch's own state leaves the rule as it was",
            '{"update": "torch", **groups[0]}',
            '{"update": self.update, **groups[0]}',
        ),
    ),
    *_in(
        "scratch.sgd",
        core.check_one_group_of_parameters,
        ("any groups are taken", "if sizes != [len(self.parameters)]:", "if sum(sizes) != len(self.parameters):"),
    ),
    *_in(
        "scratch.sgd",
        core.check_gradients_filled_with_zeros,
        ("the optimizer multiplies gradients by zero", "parameter.grad.fill(0)", "parameter.grad *= 0"),
    ),
    *_in(
        "scratch.core.module",
        core.check_gradients_filled_with_zeros,
        ("a module multiplies gradients by zero", "parameter.grad.fill(0)", "parameter.grad *= 0"),
    ),
)
EDGES = (
    *_in(
        "scratch.convolution.geometry",
        core.check_images_without_rows,
        ("no images without rows are refused", "(min(H, W) == 0 and math.prod(N) * C)", "min(H, W) == 0"),
        ("images without rows are taken", " or (min(H, W) == 0 and math.prod(N) * C)", ""),
    ),
    *_in(
        "scratch.convolution.implicit_gemm",
        core.check_images_without_channels,
        ("images without channels are taken", "if x.size == 0 or not", "if len(x) == 0 or not"),
    ),
    *_in(
        "scratch.cross_entropy",
        core.check_mean_without_weight,
        ("the mean of nothing may be inf", "(float(total) or math.nan)", "float(total)"),
    ),
    *_in(
        "scratch.cross_entropy",
        core.check_mean_of_no_classes,
        ("the mean over no classes is 0", "total = N * D if C else 0", "total = N * D"),
    ),
    *_in(
        "scratch.cross_entropy",
        core.check_sums_beyond_the_largest_number,
        ("losses are added in float32", "axis=None, dtype=np.float64)", "axis=None)"),
        ("weights are added in float32", "weight[t[counted]].sum(dtype=np.float64)", "weight[t[counted]].sum()"),
    ),
    *_in(
        "scratch.local_response_norm",
        core.check_tiny_values_beside_large_gradients,
        (
            "alpha multiplies each value first",
            "    pulls = 2 * window.alpha * _sum_of_shifted(pull, window.after, window.before)\n"
            "    return (grad_out / _power(scale, window.beta) + x * pulls,)",
            "    pulls = _sum_of_shifted(pull, window.after, window.before)\n"
            "    return (grad_out / _power(scale, window.beta) + 2 * window.alpha * x * pulls,)",
        ),
        ("alpha multiplies each value first, one by one", "* (2 * window.alpha * pulls)", "* 2 * window.alpha * pulls"),
    ),
    *_in(
        "scratch.data",
        core.check_sizes_around_the_smallest_crop,
        ("the smallest crop has a border", "self.size >= SMALL", "self.size > SMALL"),
        ("images of the smallest crop are not scaled up", "size if size < SMALL", "size if size <= SMALL"),
        ("the smallest crop keeps its colours", "        if size < SMALL:", "        if size <= SMALL:"),
    ),
    *_in(
        "torch_impl.data",
        core.check_sizes_around_the_smallest_crop,
        ("the smallest crop has a border", "if self.size < SMALL else 0", "if self.size <= SMALL else 0"),
        ("the smallest crop keeps its colours", "        if size < SMALL:", "        if size <= SMALL:"),
    ),
    *_in(
        "scratch.adaptive_avg_pool2d",
        core.check_sign_of_a_mean_of_zeros,
        ("a sum of negative zeros is negative", "[every_other] + values.dtype.type(0)", "[every_other]"),
    ),
)
TORCH = (
    *_in(
        "torch_impl.sgd",
        core.check_changing_options,
        ("the paper's rule never maximizes", '-grad if group["maximize"] else grad', "grad"),
        ("the paper's rate is outside the velocity's first step", "= v if velocity is None", "= d if velocity is None"),
        ("the paper's weights do not decay", "d = d + group", "d = d + 0 * group"),
        ("the paper's velocity never fades", 'velocity.mul_(group["momentum"])', "velocity"),
        ("the paper's velocity is not kept", 'v = state["momentum_buffer"] = v if', "v = v if"),
        ("update is always torch's", '.get("update", "torch") == "torch"', '.get("updated", "torch") == "torch"'),
    ),
    *_in(
        "torch_impl.sgd",
        core.check_groups_of_parameters,
        ("the paper's rule takes the first group's options", "w.grad, group, self", "w.grad, self.param_groups[0], self"),
    ),
    *_in(
        "scratch.dropout",
        core.check_share_dropped,
        ("a coin decides in place of the rest of p", ">= rest", ">= 0.5"),
        ("the rest of p is the share that is kept", ">= rest", "< rest"),
        ("the byte that decides nothing drops", "mask[undecided] = ", ""),
    ),
    *_in(
        "scratch.dropout",
        core.check_scale_of_what_is_kept,
        ("the scale is rounded from a number in float64", "one / x.dtype.type(1 - p) if", "x.dtype.type(1 / (1 - p)) if"),
    ),
    *_in(
        "torch_impl.dropout",
        core.check_share_dropped,
        ("p is the share that is kept", "bernoulli_(1 - p", "bernoulli_(p"),
        ("half is dropped", "bernoulli_(1 - p", "bernoulli_(0.5"),
    ),
    *_in(
        "torch_impl.dropout",
        core.check_generator_of_masks,
        ("the generator is ignored", "generator=rng", "generator=None"),
    ),
    *_in(
        "scratch.dropout",
        core.check_generator_of_masks,
        ("the generator is ignored", "np.random.default_rng() if rng is None else rng", "np.random.default_rng()"),
    ),
    *_in(
        "torch_impl.sgd",
        core.check_torchs_own_state,
        ("torch's own state is an error", 'param_groups[0].get("update", "torch")', 'param_groups[0]["update"]'),
    ),
    *_in(
        "torch_impl.modules",
        core.check_share_dropped,
        ("the scale is 1/p", "div(1 - self.p)", "div(self.p)"),
        ("a mask is ignored", "if self.mask is None or", "if True or"),
    ),
    *_in(
        "torch_impl.modules",
        core.check_everything_dropped,
        ("nothing is kept times infinity", " if self.p < 1 else torch.zeros_like(x)", ""),
    ),
    *_in(
        "torch_impl.core.autograd",
        core.check_recorded_graph,
        ("backward runs once", "retain_graph=True", "retain_graph=False"),
        ("the graph goes on into the caller's", "tensor.detach().requires_grad_()", "tensor.requires_grad_()"),
        ("without gradients nothing is recorded", "with torch.enable_grad():", "if True:"),
        ("the result has a graph", "return out.detach(), Cache", "return out, Cache"),
        ("the unneeded gradient shifts the others", "(None, *cache.leaves[1:])", "cache.leaves[1:]"),
        ("an absent bias has a gradient", "None if leaf is None else next(gradients)", "next(gradients, 0)"),
    ),
)
MEANINGS = (
    *_in(
        "scratch.compiled.microkernel",
        words.check_words,
        ("add is ignored", "row + total if add else total", "total"),
        ("it always adds", "row + total if add else total", "row + total"),
        ("half a tile is whole", "HALF if rows <= HALF else MR", "MR"),
        ("a's rows are one apart", "k * a_step + r * a_rows]", "k * a_step + r]"),
        ("b's steps are NR apart", "b_at + k * b_step", "b_at + k * NR"),
    ),
    *_in(
        "scratch.compiled.vectors",
        words.check_words,
        ("a whole vector is copied", "few = min(count, lanes(source))", "few = lanes(source)"),
        (
            "a vector is copied from the beginning",
            "source[source_at:][: lanes(source)]",
            "source[: lanes(source)]",
            "Copy one vector.",
        ),
        ("a square is not turned", "enumerate(square.T)", "enumerate(square)"),
        ("c is forgotten", "return a * b + c", "return a * b"),
        ("NaN is the largest", "np.fmax.reduce(row[:count]", "np.maximum.reduce(row[:count]"),
        ("more is added", "row[:count].sum()", "row.sum()"),
        ("b begins where a does", "b[b_at:][:count]", "b[a_at:][:count]"),
    ),
)

MUTANTS: tuple[Slip, ...] = (
    *MEMORY,
    *THREADS,
    *LADDER,
    *KEPT_CODE,
    *CHECKS,
    *MODULES,
    *WINOGRAD,
    *SGD,
    *EDGES,
    *TORCH,
    *MEANINGS,
)

# ---
# jupyter:
#   jupytext:
#     formats: notebooks//ipynb,notebooks/text//py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # AlexNet from scratch
#
# This project grew from a tutorial. Here it is, cell by cell. Each step is written twice: first torch's line, then the same by
# hand. The cell prints how far the two are apart. The tutorial announced three more parts and never wrote them: the module, the
# forward pass and the training loop. They follow at the end.
#
# The notebook runs in a clone of the repository. Install its packages with `pip install --editable '.[learn]'`.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

from alexnet_from_scratch.data import datasets
from scratch import conv2d, data, local_response_norm, max_pool2d, relu

plt.rcParams["figure.dpi"] = 60
rng = np.random.default_rng(0)


def apart(ours, theirs):
    """How far scratch is from torch, compared with the largest number."""
    theirs = theirs.detach().numpy()
    difference = abs(ours - theirs).max() / abs(theirs).max()
    return f"{tuple(ours.shape)}, " + (
        f"apart by {difference:.0e} of the largest number" if difference else "the same to the bit"
    )


def show(x, title, channels=8):
    """The first channels of (1,C,H,W): red is above zero, blue below."""
    figure, axes = plt.subplots(1, channels, figsize=(channels * 1.2, 1.5))
    peak = abs(x[0, :channels]).max()
    for axis, plane in zip(axes, x[0], strict=False):
        axis.imshow(plane, cmap="RdBu_r", vmin=-peak, vmax=peak)
        axis.axis("off")
    figure.suptitle(title)
    plt.show()


# %% [markdown]
# ## A convolution
#
# The input is a photograph of 32×32 pixels. Eight kernels of 3×3 move over it, with a padding of 1. The picture shows the eight
# output channels.

# %%
photograph = data.prepare(datasets.photographs()["chelsea"]).astype(np.float32)
photograph -= photograph.mean()
x = data.resize(photograph, (32, 32))[np.newaxis]
weight = rng.normal(0, 0.1, (8, 3, 3, 3)).astype(np.float32)

t_x, t_weight = torch.from_numpy(x).requires_grad_(), torch.from_numpy(weight).requires_grad_()
t_conv = F.conv2d(t_x, t_weight, padding=1)  # torch
conv, conv_cache = conv2d.forward(x, weight, padding=1)  # by hand
print(apart(conv, t_conv))
show(conv, "conv 3→8")

# %% [markdown]
# ## ReLU and max pooling
#
# ReLU keeps what is above zero. Max pooling keeps the largest value of each window.

# %%
t_relu = F.relu(t_conv)  # torch
activated, relu_cache = relu.forward(conv)  # by hand
print(apart(activated, t_relu))

t_pool = F.max_pool2d(t_relu, kernel_size=3, stride=2)  # torch
pooled, pool_cache = max_pool2d.forward(activated, kernel_size=3, stride=2)  # by hand
print(apart(pooled, t_pool))
show(pooled, "max-pool 3×3, stride 2")

# %% [markdown]
# ## The way back
#
# The loss is half the sum of the output's squares. So the loss's gradient is the output itself. torch needs one call. By hand,
# each operation has its own backward pass. It takes the gradient that comes back, and the cache that forward has kept.

# %%
(t_pool.square().sum() / 2).backward()  # torch
(grad,) = max_pool2d.backward(pooled, pool_cache)  # by hand
(grad,) = relu.backward(grad, relu_cache)
grad_x, grad_weight, _ = conv2d.backward(grad, conv_cache)
print("photograph:", apart(grad_x, t_x.grad))
print("weight:    ", apart(grad_weight, t_weight.grad))
show(grad_x, "the gradient of the photograph", channels=3)

# %% [markdown]
# ## AlexNet's first two layers
#
# Each layer is a convolution, ReLU, response normalization and a max pool whose windows overlap. The image's side goes from 224
# to 55, 27, 27 and 13, by a convolution and a pool in turn.

# %%
x = data.centre_crop(photograph, 224)[np.newaxis]
t = torch.from_numpy(x)
for layer, (channels, kernel, stride, bias) in enumerate([(96, 11, 4, 0), (256, 5, 1, 1)], start=1):
    weight = rng.normal(0, 0.01, (channels, x.shape[1], kernel, kernel)).astype(np.float32)
    biases = np.full(channels, bias, np.float32)
    t = F.conv2d(t, torch.from_numpy(weight), torch.from_numpy(biases), stride=stride, padding=2)  # torch
    x, _ = conv2d.forward(x, weight, biases, stride=stride, padding=2)  # by hand
    t, (x, _) = F.relu(t), relu.forward(x)
    t, (x, _) = F.local_response_norm(t, 5, 1e-4, 0.75, 2.0), local_response_norm.forward(x, size=5, alpha=1e-4, beta=0.75, k=2.0)
    t, (x, _) = F.max_pool2d(t, 3, 2), max_pool2d.forward(x, kernel_size=3, stride=2)
    print(f"pool{layer}:", apart(x, t))
show(x, "after pool2")

# %% [markdown]
# ## The module, the forward pass, the training loop
#
# Here the tutorial stopped. The network's classes have the names of torch.nn. There is no autograd: `model.backward` walks
# through the layers in reverse. The network `mini` has AlexNet's eight layers, for grey images of 28×28 pixels. The images are
# scikit-learn's handwritten digits.

# %%
from IPython.display import display

from scratch.alexnet import AlexNet
from scratch.data import Preprocessing
from scratch.modules import CrossEntropyLoss
from scratch.sgd import SGD

images, labels = datasets.digits()
preprocessing = Preprocessing.fit(images, size=28, channels=1, mirror=False)
model, criterion = AlexNet("mini", num_classes=10, dropout=0.2, rng=rng), CrossEntropyLoss()
optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)


def curve(losses):
    figure, axis = plt.subplots(figsize=(5, 2))
    axis.plot(losses)
    axis.set(xlabel="step", ylabel="loss", ylim=(0, None))
    plt.close(figure)
    return figure


losses = []
live = display(curve(losses), display_id=True)
train, test = np.arange(len(labels)) % 5 > 0, np.arange(len(labels)) % 5 == 0
for _ in range(120):
    batch = rng.choice(np.flatnonzero(train), 64)
    optimizer.zero_grad()
    loss = criterion(model(preprocessing.evaluation(images[batch])), labels[batch])
    model.backward(criterion.backward(), need_input_grad=False)
    optimizer.step()
    losses.append(float(loss))
    if len(losses) % 20 == 0:
        live.update(curve(losses))

model.eval()
right = model(preprocessing.evaluation(images[test])).argmax(axis=1) == labels[test]
print(f"right on {right.mean():.1%} of {test.sum()} digits that it has not seen")

# %% [markdown]
# ## Where does a number come from?
#
# The X-ray runs the naive loops on special numbers: each remembers how it was made. Point at a number to see its terms. Press ▶
# to watch the loops at work.

# %%
from pathlib import Path

from IPython.display import IFrame

from alexnet_from_scratch.xray import photo
from alexnet_from_scratch.xray.__main__ import write_page

write_page("conv2d", photo.load(None, None), Path("xray.html"))
IFrame("xray.html", width="100%", height=600)

# %% [markdown]
# ## Write a backward pass yourself
#
# `check` judges your function, first its mathematics, then its edges. The function below has a mistake. Which one?

# %%
from alexnet_from_scratch.exercises import check
from scratch.conv2d import _cell, _pad, _unpad


def my_backward(grad_out, x, weight, has_bias, geometry, *, need_grad_x):
    padded = _pad(x, geometry)
    grad_padded, grad_weight, grad_bias = np.zeros_like(padded), np.zeros_like(weight), np.zeros(len(weight), x.dtype)
    for n, oc, oh, ow in np.ndindex(grad_out.shape):
        g = grad_out[n, oc, oh, ow]
        for c, kh, kw in np.ndindex(weight.shape[1:]):
            cell = (n, *_cell(oc, c, oh, ow, kh, kw, weight.shape, geometry))
            grad_weight[oc, c, kh, kw] += g * padded[cell]
            grad_padded[cell] = g * weight[oc, c, kh, kw]
        grad_bias[oc] += g
    return _unpad(grad_padded, x, geometry) if need_grad_x else None, grad_weight, grad_bias if has_bias else None


check("conv2d", my_backward, cases=30)

# %% [markdown]
# The book explains each operation, rung by rung. `make docs` builds it.

"""Compiled optimizer steps: one pass over parameter, gradient and moments, with per-member hyperparameters.

Operations and their order follow `torch.optim`; scalars are first rounded to the parameter's precision, as in
torch. Legend: M members, P numbers each; `scale` is the factor by which clipping scales the gradients.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

compiled: Any = nb.njit(nogil=True, cache=True, error_model="numpy")


@compiled
def sgd(value, grad, scale, lr, decay):
    """SGD: value (M, P) -= lr (grad · scale + decay · value); scale, lr, decay (M,)."""
    kind = value.dtype.type
    for k in range(len(value)):
        v, g = value[k], grad[k]
        s, step, w = kind(scale[k]), kind(-lr[k]), kind(decay[k])
        if decay[k] == 0:
            for i in range(len(v)):
                v[i] += step * (g[i] * s)
        else:
            for i in range(len(v)):
                v[i] += step * (g[i] * s + w * v[i])


@compiled
def momentum(value, grad, buffer, scale, lr, decay, friction, nesterov, first):
    """SGD with momentum; buffer (M, P); friction, nesterov (M,); `first` sets the buffer to the gradient."""
    kind = value.dtype.type
    for k in range(len(value)):
        v, g, b = value[k], grad[k], buffer[k]
        s, step, w, f = kind(scale[k]), kind(-lr[k]), kind(decay[k]), kind(friction[k])
        decays, looks_ahead, fresh = decay[k] != 0, nesterov[k] != 0, first or friction[k] == 0
        for i in range(len(v)):
            d = g[i] * s
            if decays:
                d += w * v[i]
            m = d if fresh else b[i] * f + d
            b[i] = m
            v[i] += step * (d + f * m if looks_ahead else m)


@compiled
def adam(value, grad, mean, square, scale, lr, decay, beta1, beta2, decoupled, step):
    """Adam, or AdamW if `decoupled`; mean, square (M, P); beta1, beta2, step (M,), which counts from 1."""
    kind = value.dtype.type
    for k in range(len(value)):
        v, g, m, q = value[k], grad[k], mean[k], square[k]
        s, w, eps = kind(scale[k]), kind(decay[k]), kind(1e-8)
        near, far = kind(1 - beta1[k]), kind(1 - (1 - beta1[k]))
        small = abs(1 - beta1[k]) < 0.5
        b2, rest2 = kind(beta2[k]), kind(1 - beta2[k])
        size = kind(-(lr[k] / (1 - beta1[k] ** step[k])))
        root = kind(np.sqrt(1 - beta2[k] ** step[k]))
        coupled = decay[k] != 0 and not decoupled
        if decoupled and decay[k] != 0:
            shrink = kind(1 - lr[k] * decay[k])
            for i in range(len(v)):
                v[i] *= shrink
        for i in range(len(v)):
            d = g[i] * s
            if coupled:
                d += w * v[i]
            m[i] = m[i] + near * (d - m[i]) if small else d - (d - m[i]) * far
            q[i] = q[i] * b2 + (rest2 * d) * d
            v[i] += (size * m[i]) / (np.sqrt(q[i]) / root + eps)

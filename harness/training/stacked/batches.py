"""The batches of a whole stack, gathered from one stored tensor.

Legend: K members, B inputs per batch, F features, N stored inputs, V views (ways to normalise).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from harness.config import RunSpec
from harness.training.augment import crop_and_flip
from harness.training.data import (
    Inputs,
    channel_scale,
    kept_places,
    noisy_labels,
    normalised,
    take_rows,
    turned,
)
from harness.training.randomness import stream
from harness.training.sources import load_arrays
from harness.training.tasks import permutation, task

CPU = torch.device("cpu")
TABLE = 2**28  # largest cache of normalised inputs in bytes; with it a batch only copies rows


class CohortData(Inputs):
    """The data of all members; each member's batches equal those of its own run bit by bit.

    Args:
        specs: the members, in the order of the stack; they share data set and batch size.
        dtype: dtype of the inputs.
        device: where the inputs are kept.

    Raises:
        ConfigError: as `harness.training.data.load`.

    Example:
        >>> from harness.config import compose
        >>> data = CohortData([compose([f"seed={seed}"]) for seed in range(3)], torch.float32)
        >>> x, y = data.batch(epoch=0, within=0)
        >>> x.shape, y.shape
        (torch.Size([3, 32, 64]), torch.Size([3, 32]))
    """

    def __init__(self, specs: Sequence[RunSpec], dtype: torch.dtype, device: torch.device = CPU) -> None:
        options = specs[0].data
        raw = load_arrays(options)
        chosen = kept_places(raw.y_train, options)
        super().__init__(raw, chosen, options, specs[0].train.batch_size, device, dtype)
        self._seeds = [spec.seed for spec in specs]
        self._scales, self._view = self._views(specs, raw.divisor)
        clean = raw.y_train[chosen]
        labels: dict[tuple[int, float], Tensor] = {}
        for spec in specs:
            key = spec.seed, spec.data.label_noise
            if key not in labels:
                labels[key] = noisy_labels(clean, key[1], raw.classes, spec.seed).to(device)
        self._labels = [labels[spec.seed, spec.data.label_noise] for spec in specs]
        self._table = self._normalised_table()
        self._epoch = -1
        self._rows = self._y = torch.empty(0)
        self._pixels: Tensor | None = None  # (K, F): the order of each member's features in that epoch
        self._buffer: Tensor | None = None

    @property
    def members(self) -> int:
        """K."""
        return len(self._seeds)

    def keep(self, places: Sequence[int]) -> None:
        """Keep only the members at these places."""
        self._seeds = [self._seeds[k] for k in places]
        self._view = [self._view[k] for k in places]
        self._labels = [self._labels[k] for k in places]
        self._pixels = None if self._pixels is None else self._pixels[list(places)]
        self._epoch, self._buffer = -1, None

    def batch(self, epoch: int, within: int) -> tuple[Tensor, Tensor]:
        """Return one training batch of every member.

        Args:
            epoch: the epoch, from 0.
            within: the step in the epoch.

        Returns:
            x (K, B, F), valid until the next call and possibly one batch expanded K times, and y (K, B).
        """
        if epoch != self._epoch:
            self._begin(epoch)
        at = slice(within * self.batch_size, (within + 1) * self.batch_size)
        rows = self._rows[:, at].reshape(-1)
        y = self._y[:, at]
        if self._table is not None:
            if self._buffer is None:
                self._buffer = self._table.new_empty(len(rows), self._table.shape[1])
            x = torch.index_select(self._table, 0, rows, out=self._buffer)
        else:
            raw = take_rows(self._x, rows).view(len(self._rows), self.batch_size, *self.shape)
            own = list(zip(self._seeds, self._view, strict=True))[: len(raw)]  # one if all share one batch
            if self._options.augment:
                draws = [stream(seed, "augment", epoch, within) for seed, _ in own]
                raw = [crop_and_flip(part, draw) for part, draw in zip(raw, draws, strict=True)]
            x = torch.cat([self._see(part, view) for part, (_, view) in zip(raw, own, strict=True)])
        x = self._permuted(x.view(len(self._rows), self.batch_size, -1))
        return x.expand(self.members, -1, -1), y

    def test_batches(self, batch_size: int = 1000) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the held-out inputs: x (K, n, F), expanded if all members see the same; y (n,)."""
        for x, y in zip(self._x_test.split(batch_size), self._y_test.split(batch_size), strict=True):
            yield self._for_all(x), y

    def probe_batches(self, batch_size: int = 1000) -> Iterator[Tensor]:
        """Iterate over the inputs of the probe in the same form."""
        for rows in self._probe.split(batch_size):
            yield self._for_all(take_rows(self._x_test, rows))

    def first(self, place: int) -> Tensor:
        """Return the first batch (B, *shape) of one member."""
        x = take_rows(self._x, self._order(self._seeds[place], 0)[: self.batch_size])
        if self._options.augment:
            x = crop_and_flip(x, stream(self._seeds[place], "augment", 0, 0))
        return self._see(x, self._view[place]).view(-1, *self.shape)

    # --- inside -------------------------------------------------------------------------------------

    def _views(
        self, specs: Sequence[RunSpec], divisor: float
    ) -> tuple[list[tuple[Tensor, Tensor]], list[int]]:
        """Return the distinct scales, and the index of each member's scale."""
        known: dict[tuple[bool, bool, float, float], int] = {}
        bases: dict[bool, tuple[Tensor, Tensor]] = {}
        scales, view = [], []
        for spec in specs:
            o = spec.data
            key = o.standardise, o.negate, o.scale, o.shift
            if o.standardise not in bases:
                bases[o.standardise] = channel_scale(self._x, divisor, standardise=o.standardise)
            if key not in known:
                known[key] = len(scales)
                scales.append(turned(*bases[o.standardise], o, self._dtype))
            view.append(known[key])
        return scales, view

    def _normalised_table(self) -> Tensor | None:
        """Normalised inputs of all views, (V · N, F); None if they would be too large."""
        size = self._x.numel() * torch.empty(0, dtype=self._dtype).element_size()
        if size * len(self._scales) > TABLE or self._options.augment:
            return None
        return torch.cat([self._see(self._x, v) for v in range(len(self._scales))])

    def _see(self, x: Tensor, view: int) -> Tensor:
        return normalised(x, *self._scales[view], self._dtype).flatten(1)

    def _for_all(self, x: Tensor) -> Tensor:
        distinct = sorted(set(self._view))
        seen = torch.stack([self._see(x, v) for v in distinct])
        if len(distinct) == 1:
            return self._permuted(seen.expand(len(self._view), -1, -1))
        return self._permuted(seen[[distinct.index(v) for v in self._view]])

    def _permuted(self, x: Tensor) -> Tensor:
        """Permute the features of inputs (K or 1, n, F) as in each member's task."""
        if self._pixels is None:
            return x
        return x.gather(2, self._pixels[: len(x), None].expand(-1, x.shape[1], -1))

    def _order(self, seed: int, epoch: int) -> Tensor:
        return torch.randperm(self.size, generator=stream(seed, "order", epoch)).to(self.device)

    def _begin(self, epoch: int) -> None:
        """Set order and labels of an epoch: rows (K or 1, N) of the table, y (K, N)."""
        orders = {seed: self._order(seed, epoch) for seed in set(self._seeds)}
        period = task(epoch, self._options.reshuffle_labels_every)
        mixed = {
            seed: torch.randperm(self.size, generator=stream(seed, "reshuffle", period)).to(self.device)
            if period
            else None
            for seed in orders
        }
        labels = []
        for seed, own in zip(self._seeds, self._labels, strict=True):
            mixing = mixed[seed]
            labels.append((own if mixing is None else own[mixing])[orders[seed]])
        self._y = torch.stack(labels)
        offset = 0 if self._table is None else self.size
        pairs = list(zip(self._seeds, self._view, strict=True))
        if len(set(pairs)) == 1:
            pairs = pairs[:1]
        self._rows = torch.stack([orders[seed] + offset * view for seed, view in pairs])
        period = task(epoch, self._options.permute_inputs_every)
        pixels = [permutation(self.shape, seed, period) for seed in self._seeds] if period else []
        self._pixels = torch.stack(pixels).to(self.device) if pixels else None
        self._epoch = epoch

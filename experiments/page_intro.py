"""What RESULTS.md says before its claims: the common setting, and how to read it."""

SETTING = """\
Setting, unless a claim says otherwise:

- An MLP with three hidden layers of 64 ReLUs. Weights are normal with deviation √(2 / fan-in) (He), the
  head's too; biases are 0. *Biases of b* means every bias that feeds an activation.
- SGD without momentum at a constant 0.1; with momentum it is 0.9, Adam has PyTorch's defaults. The mean
  cross-entropy of batches of 32, in a new random order per epoch, the rest of an epoch left out; 10
  epochs (at the budget small).
- The network is fed pixels in [0, 1]. *Standardised*: less the mean of the training images and over their
  deviation, one number each per channel.
- Digits are scikit-learn's, 1,437 for training and 360 held out. Of the other sets 1,437 training images,
  drawn once, and the whole test set (of CIFAR-10 its first 1,000).
- A unit is dead if its pre-activation is at most 0 on all n held-out images; where n is smaller than the
  test set, they are the first n of one random order. The dead share is of all hidden units. A training
  diverges if its loss or a parameter is no longer finite."""
READING = """\
How to read it:

- Each claim's runs, metric, smallest effect of interest and decision rule stand in
  `experiments/claims/<name>.py` and were fixed before this run; a design that was changed after an
  earlier look says so.
- A difference is taken within a seed (same initial weights, same batches); the seed is the unit of
  analysis. The interval is a bootstrap-t over seeds, at 95 % or more where several contrasts decide
  together. *From → to* are the means of both arms.
- A contrast is *supported* if its whole interval lies beyond the smallest effect of interest and an exact
  sign-flip test against that effect agrees; *refuted* if it lies short of it; else *undecided*. For a
  claim of no effect the question is equivalence (two one-sided tests, 90 % interval). p is of the test
  against the smallest effect of interest, not against 0.
- A pair is lost if one of its runs diverged or has no such value; it never counts as 0 %. If more than
  half of the pairs are lost, nothing is decided. “Dead or diverged” counts diverged runs as wholly dead;
  it decides nothing.
- A sentence is *supported* or *refuted* if all of its contrasts are; *mixed* if some are refuted; *partly
  open* if none is and some are undecided. Rows in parentheses were looked at beside it and decide
  nothing.
- Most rules were fixed after a rehearsal on the digits, and MNIST had been looked at: verdicts there
  confirm nothing. What decides is data that nobody had looked at, with the same design (bold in the first
  table). Where there is none yet, the verdict over the sets that were looked at is shown, and the text says
  that it is a rehearsal. A claim whose design was changed after its results on the digits, MNIST and
  Fashion-MNIST had been seen says so, and the CIFAR-10 part alone decides it.
- Over all claims, verdicts are corrected to a false discovery rate of 5 % (Benjamini–Hochberg). With 31
  claims it was Holm's correction. With 37 that called nine claims undecided whose tests have about the
  least p that 12 seeds can have (1 / 2,048), and it was replaced; by then these verdicts had been seen.
- *Would find*: the smallest effect that these seeds would call supported four times in five, by the
  spread that they have; “none” where they are too few for any.
- n: on so many inputs is a unit looked at. The share of dead units falls as n grows (claim n_of_inputs)."""

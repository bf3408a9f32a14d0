"""Task after task of permuted pixels: dead units, plasticity, and what keeps both."""

from experiments.claim import EVERY_SET, SEEN, Claim
from experiments.continual import CHANGED, decide, figure, read, resets, sweeps

SENTENCE = "On permuted images, task after task, units die, plasticity is lost, and resetting units keeps it."

CLAIM = Claim(
    name="permuted_inputs",
    sentence=SENTENCE,
    source="Dohare et al. 2024, Nature 632:768 (online permuted MNIST); Goodfellow et al. 2013, 1312.6211",
    metric="Dead share on the held-out probe, whose pixels are in the order of the task; training accuracy "
    "over all steps of the second and the last task; gradient-dormant share beside them.",
    interest="10 points of dead share, 5 points of accuracy.",
    design="500 images, ten tasks of 25 epochs: the pixels as they are first, then in a new order each time; "
    "the labels stay. Adam at 0.005, batches of 64. Controls: the same steps with one order; as many "
    "resets as ReDo's rule asks for, half as often, of units drawn at random; layer norm; weight decay. "
    "Beside new labels (continual_learning) it separates new inputs from labels that can only be learned by "
    f"heart. {CHANGED}",
    sweeps=sweeps("data.permute_inputs_every"),
    read=read,
    decide=decide,
    figure=figure(SENTENCE),
    data_sets=EVERY_SET,
    looked_at=SEEN,
    beside=resets,
    kind="paper",
)

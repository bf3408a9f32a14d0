"""Task after task of new labels: dead units, plasticity, and what keeps both."""

from experiments.claim import EVERY_SET, SEEN, Claim
from experiments.continual import CHANGED, decide, figure, read, resets, sweeps

SENTENCE = (
    "Networks that learn task after task fill up with dead units and lose plasticity; resetting units helps."
)

CLAIM = Claim(
    name="continual_learning",
    sentence=SENTENCE,
    source="Sokar et al. 2023, 2302.12902; Dohare et al. 2024, Nature 632:768",
    metric="Dead share on the held-out probe; training accuracy over all steps of the second and the last "
    "task; gradient-dormant share beside them.",
    interest="10 points of dead share, 5 points of accuracy.",
    design="500 images, ten tasks of 25 epochs: the true labels first, then all labels drawn anew each time. "
    "Adam at 0.005, batches of 64. Controls: the same steps with one set of labels; as many "
    "resets as ReDo's rule asks for, half as often, of units drawn at random; layer norm; weight decay. "
    f"Changed after a first look at all images in tasks of 4 epochs, too short to learn labels by heart. "
    f"{CHANGED}",
    sweeps=sweeps("data.reshuffle_labels_every"),
    read=read,
    decide=decide,
    figure=figure(SENTENCE),
    data_sets=EVERY_SET,
    looked_at=SEEN,
    beside=resets,
    kind="paper",
)

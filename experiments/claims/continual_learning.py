"""Task after task of new labels: dead units, plasticity, and what keeps both."""

from experiments.claim import Claim
from experiments.continual import decide, figure, read, sweeps

SENTENCE = (
    "Networks that learn task after task fill up with dead units and lose plasticity; resetting units helps."
)

CLAIM = Claim(
    name="continual_learning",
    sentence=SENTENCE,
    source="Sokar et al. 2023, 2302.12902; Dohare et al. 2024, Nature 632:768",
    metric="Dead share on the held-out probe; training accuracy at the end of the second and the last task; "
    "gradient-dormant share beside them.",
    interest="10 points of dead share, 5 points of accuracy.",
    design="500 images, ten tasks of 25 epochs: the true labels first, then all labels drawn anew each time. "
    "Adam at 0.005, batches of 64. Controls: the same steps with one set of labels; layer norm; weight "
    "decay. Changed after a first "
    "look at all images in tasks of 4 epochs, too short to learn labels by heart.",
    sweeps=sweeps("data.reshuffle_labels_every"),
    read=read,
    decide=decide,
    figure=figure(SENTENCE),
    kind="paper",
)

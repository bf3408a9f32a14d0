"""What to try first against each cause of dead units: one sentence, not a promise."""

from __future__ import annotations

#: Label of a cause → what to try first. Unknown causes have no entry.
NEXT_STEP = {
    "bias_init": "Draw the biases at 0 or above.",
    "weight_init": "Draw the weights around 0, at He's scale (torch.nn.init.kaiming_normal_); if they were "
    "trained before, redraw only those of dead units.",
    "input_offset": "Standardise the inputs: mean 0 and deviation 1 on the training set.",
    "input_shift": "Find what feeds the model other inputs from then on, or standardise them.",
    "bad_batch": "Look at the inputs of that batch; clip the gradient's norm, so that one batch can do less.",
    "step_size": "Lower the learning rate, warm it up, or clip the gradient's norm.",
    "labels": "Hold the labels of the batches before and after that step against each other.",
    "decay": "Lower the weight decay, or leave biases and norms out of it.",
    "bias_lr": "Give the biases the learning rate of the weights.",
    "norm_stats": "Hold the norms' running statistics against those of a training batch.",
    "constant": "Look for an offset or a threshold in the model's own code before the activation.",
    "surgery": "Find what writes into the parameters at that step.",
    "forward": "Find what changes that setting or buffer, and whether it should.",
    "unbounded_loss": "Check what the loss expects of its inputs, and its signs; give it a lower bound.",
    "loss_penalty": "Lower the weight of the penalty.",
    "target_scale": "Standardise the targets, or scale the outputs to them.",
}


def next_step(label: str) -> str:
    """What to try first; "" if the cause is unknown.

    Args:
        label: label of a diagnosis.

    Example:
        >>> next_step("bias_init"), next_step("unknown")
        ('Draw the biases at 0 or above.', '')
    """
    return NEXT_STEP.get(label, "")

"""Numbers for which there is a command and no machine."""

from experiments.paper import Row

OPT = (
    'python -c "import harness, torch; from transformers import AutoModelForCausalLM as M; '
    "model = M.from_pretrained('facebook/opt-1.3b'); "
    "print(harness.scan(model, [{'input_ids': torch.load('tokens.pt')[k:k + 8]} for k in range(0, "
    '512, 8)]))"'
)
SUGAR = (
    "harness -m data=cifar10 model=resnet model.depth=18 optim=sgd,adam optim.lr=0.001,0.01,0.1 "
    "optim.weight_decay=5e-4 "
    "remedy=none,sugar data.augment=true schedule=cosine train.epochs=100 seed=range(5) device=cuda"
)
ROWS = (
    Row(
        name="voita_2023",
        source="Voita, Ferrando & Nalmpantis 2023, 2309.04827: OPT-66b",
        read="source",
        theirs="over 70 % of the feed-forward units dead in some early layers",
        setting="`harness.scan` of OPT's pretrained weights on `tokens.pt`, 512 sequences of the user's own "
        "text as token numbers.",
        scaled="a smaller OPT, if one is named as in the command.",
        heavy="pretrained weights, and memory for them",
        command=OPT,
    ),
    Row(
        name="sugar_2025",
        source="Horuz et al. 2025, 2505.22074 (SUGAR): ResNet-18",
        read="secondary",
        theirs="CIFAR-10 76.8 → 86.4 %, CIFAR-100 49.0 → 56.5 %",
        setting="ReLU with and without a surrogate gradient, the learning rate tuned for each arm: a "
        "baseline "
        "of 76.8 % is not a tuned ResNet.",
        heavy="hours on a GPU",
        command=SUGAR,
    ),
)

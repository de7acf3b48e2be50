"""A linear probe on scikit-learn's digits: a scorer's features beside plain pixels.

    scripts/bench probe_digits [--scorer NAME] [--seed N] [--device cpu|cuda|mps]

Both get the same rows, the same sweep and the same test; NAME is any scorer (by default the
shipped one).  The pictures are embedded on the device; probes are fitted in float64 on the CPU.
"""

from __future__ import annotations

import json

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from guided.judging.retrieval import rate
from guided.scorers.clip import load_clip
from guided.training.linear_probe import fit_probe, search_strength, shot_curve, split
from guided.worlds.portraits.benchmarks._machine import about, arguments
from guided.worlds.portraits.tools import tool_parser


def measure(features: Tensor, truth: Tensor, seed: int) -> dict[str, object]:
    """Test accuracy, strength and few-shot curve of one kind of features [N, D]."""
    dice = torch.Generator().manual_seed(seed)
    train, test = split(truth, 0.25, dice)
    x, y = features[train], truth[train]
    fit, check = split(y, 0.2, dice)
    l2, trials = search_strength((x[fit], y[fit]), (x[check], y[check]), 10)
    probe = fit_probe(x, y, 10, l2)
    hits = probe.logits(features[test]).argmax(1) == truth[test]
    curve = shot_curve((x, y), (features[test], truth[test]), 10, l2, seed=seed)
    return {
        "accuracy": str(rate(hits.double())),
        "l2": l2,
        "trials": len(trials),
        "shots": {point.shots: round(point.accuracy, 3) for point in curve},
    }


def main() -> None:
    """Print both results as JSON."""
    parser = tool_parser("bench probe_digits", __doc__)
    parser.add_argument("--scorer", default="clip")
    parser.add_argument("--seed", type=int, default=0)
    options, device = arguments(parser)
    images, labels = load_digits(return_X_y=True)
    truth, pixels = torch.tensor(labels), torch.tensor(images / 16).float()
    scorer = load_clip(options.scorer, device)
    pictures = 1 - pixels.view(-1, 1, 8, 8).expand(-1, 3, 8, 8)
    with torch.no_grad():
        features = torch.cat(
            [scorer.embed_images(part).cpu() for part in torch.split(pictures, 64)]
        )
    found = {
        **about(device),
        "rows": len(truth),
        "pixels": measure(pixels, truth, options.seed),
        options.scorer: measure(features, truth, options.seed),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

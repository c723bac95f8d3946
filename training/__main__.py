"""`python -m training STAGE --folder FOLDER --minutes N`; see README.md."""

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch

from training import autoencoder, carrying, editor, examination, pictures, teaching, words
from training.checkpoints import Limits
from training.sentences.held_out import SetName

STAGES: dict[str, Callable[[Path, Limits], None]] = {
    "teacher": teaching.train,
    "words": words.train,
    "decoder": autoencoder.train,
    "editor": editor.train,
}
SHARES = {"words": 0.2, "decoder": 0.15, "editor": 0.5}
"""Of the time of `all`, which has no teacher; the rest is for loading and the examination."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="training", description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, "all", "examination", "carry"])
    parser.add_argument("--folder", type=Path, default=Path(".training"))
    parser.add_argument("--minutes", type=float, default=1e9, help="when to stop; what was reached is kept")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="another one gives the text encoders other sentences")
    parser.add_argument("--average-with", type=Path, nargs="*", default=(), help="folders of runs with other seeds")
    parser.add_argument("--fall", action="store_true", help="let the learning rate fall towards the end of the minutes")
    parser.add_argument(
        "--set", choices=get_args(SetName), default="first", help="of held-out sentences, to examine by"
    )
    parser.add_argument("--clip-alone", action="store_true", help="of the text encoders, let only CLIP learn")
    parser.add_argument("--anew", action="store_true", help="begin with random weights instead of the shipped ones")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(asked.threads)
    pictures.check()
    begun = time.monotonic()
    if asked.stage == "carry":
        carrying.carry()
    elif asked.stage == "examination":
        logging.info("%s", examination.examine(asked.folder, asked.set, *asked.average_with))
    elif asked.stage == "all":
        for name, share in SHARES.items():
            STAGES[name](asked.folder, Limits(minutes=asked.minutes * share, anew=asked.anew, fall=True))
            logging.info("%s is over after %.1f minutes", name, (time.monotonic() - begun) / 60)
        logging.info("%s", examination.examine(asked.folder))
    else:
        limits = Limits(
            minutes=asked.minutes, anew=asked.anew, fall=asked.fall, clip_alone=asked.clip_alone, seed=asked.seed
        )
        STAGES[asked.stage](asked.folder, limits)


if __name__ == "__main__":
    main()

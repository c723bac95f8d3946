"""`python -m training STAGE --folder FOLDER --minutes N`; see README.md."""

import argparse
import logging
from pathlib import Path

import torch

from training import autoencoder, editor, examination


def examine(folder: Path, minutes: float) -> None:
    found = examination.examine(folder, rounds=4)
    logging.info(
        "right %.1f %% of %d, tonal %.1f dB, autoencoder %.1f dB",
        100 * found["right"],
        found["edits"],
        found["tonal_psnr_db"],
        found["autoencoder_psnr_db"],
    )


STAGES = {"decoder": autoencoder.train, "editor": editor.train, "examination": examine}


def main() -> None:
    parser = argparse.ArgumentParser(prog="training", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--folder", type=Path, default=Path(".training"))
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(asked.threads)
    STAGES[asked.stage](asked.folder, asked.minutes)


if __name__ == "__main__":
    main()

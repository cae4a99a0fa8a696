"""Compare two sentences with a fine-tuned model: print their cosine and the score on the model's label scale."""

from __future__ import annotations

import sys

from connection.system.errors import InputError, exit_status
from connection.system.flags import Flags
from connection.system.versions import require_libraries


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 2 bad usage or model folder."""
    parser = Flags(
        "python -m tools.similarity",
        __doc__,
        ('python -m tools.similarity output/run "The door shall lock" "Check that the door is locked"',),
    )
    parser.add_argument("model", help="folder of the model: a run's model/, or any BERT folder")
    parser.add_argument("sentence1")
    parser.add_argument("sentence2")
    given = parser.parse_args(argv)
    return exit_status(lambda: compare(given.model, given.sentence1, given.sentence2))


def compare(folder: str, sentence1: str, sentence2: str) -> int:
    """Print the cosine of two sentences, with decision and score if the model has a threshold and a label scale."""
    require_libraries()
    import numpy as np

    from ConnectionBert import ConnectionBert

    for sentence in (sentence1, sentence2):
        if not sentence.strip() or any("\ud800" <= letter <= "\udfff" for letter in sentence):  # bytes that are not UTF-8
            raise InputError(f"{sentence!r} is no sentence")
    model = ConnectionBert.load(folder)
    cosine = float(model.similarity([sentence1], [sentence2])[0])
    print(f"cosine {cosine:.4f}")
    if model.calibration.threshold is not None:
        connected = "connected" if cosine >= model.calibration.threshold else "not connected"
        print(f"{connected}: the threshold is {model.calibration.threshold:.4f}")
    if model.labels and model.calibration.knots:  # without dev pairs no label is known to stand for a cosine
        low, high = model.labels
        predicted = float(model.calibration.predicted_label(np.array(cosine), low, high))
        print(f"score  {predicted:.2f} on the scale {low:g} to {high:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Constants, flags, validation."""

from __future__ import annotations

import pytest

import bertFineTuningWithConnectionData as driver
from connection.settings import as_json, flag_of, setting_fields
from connection.settings_reader import read_settings
from connection.system.errors import InputError
from tests.conftest import DRIVER, ROOT, run_command

CONSTANTS = {name: value for name, value in vars(driver).items() if name.isupper() and not name.startswith("TYPE_")}


def read(*argv, **changes):
    return read_settings(list(argv), CONSTANTS | changes, "")


def test_constants_and_settings_are_the_same_set():
    assert {name.lower() for name in CONSTANTS} == {field.name for field in setting_fields()}


def test_defaults_are_the_constants_and_flags_win():
    assert as_json(read()) == {n.lower(): value for n, value in CONSTANTS.items()}
    settings = read("--epochs", "7", "--learning_rate=1e-3", "--overwrite", EPOCHS=3, SEED=5)
    assert (settings.epochs, settings.learning_rate, settings.overwrite, settings.seed) == (7, 1e-3, True, 5)
    assert isinstance(read("--label-max", "4").label_max, float)
    assert read("--label-min", "-1e2").label_min == -100
    assert settings.given == {"epochs", "learning_rate", "overwrite"}


def test_all_problems_are_listed_at_once():
    words = (
        "--epochs 1.5 --batch-size 0 --learning-rate nan --pooling median --warmup-ratio 2 --nonsense 3 stray --seed".split()
    )
    with pytest.raises(InputError) as raised:
        read(*words)
    message = str(raised.value)
    for part in ("--epochs", "--batch-size", "--learning-rate", "--pooling", "--warmup-ratio", "--nonsense", "stray", "--seed"):
        assert f"- {part}: " in message


@pytest.mark.parametrize(
    ("constant", "value"), [("EPOCHS", "four"), ("EPOCHS", True), ("OVERWRITE", 1), ("MODEL_DIR", None), ("WEIGHT_DECAY", -1)]
)
def test_a_badly_edited_constant_is_refused(constant, value):
    with pytest.raises(InputError, match=flag_of(constant.lower())):
        read(**{constant: value})


@pytest.mark.parametrize("value", ["9" * 400, "1_0", "1e400", "", " "])
def test_odd_numbers_are_refused(value):
    for flag in ("--epochs", "--learning-rate"):
        with pytest.raises(InputError, match=flag):
            read(flag, value)


def test_empty_paths_are_refused():
    with pytest.raises(InputError, match="--output-dir: is empty"):
        read("--output-dir", "")


def test_label_range_must_be_a_range():
    with pytest.raises(InputError, match="is --label-max too"):
        read("--label-min", "5", "--label-max", "5")


def test_own_training_file_leaves_the_bundled_dev_and_test_files():
    settings = read("--train-file", "mine.csv", "--test-file", "held-out.csv")
    assert (settings.train_file, settings.dev_file, settings.test_file) == ("mine.csv", "", "held-out.csv")


def test_an_edited_training_file_leaves_them_too_but_no_edited_dev_file():
    settings = read_settings([], CONSTANTS | {"TRAIN_FILE": "mine.csv", "DEV_FILE": "my-dev.csv"}, "")
    assert (settings.train_file, settings.dev_file, settings.test_file) == ("mine.csv", "my-dev.csv", "")
    settings = read_settings(["--train-file", str(ROOT / CONSTANTS["TRAIN_FILE"])], CONSTANTS, "")
    assert (settings.dev_file, settings.test_file) == (CONSTANTS["DEV_FILE"], CONSTANTS["TEST_FILE"])


def test_help_names_every_flag_and_default_and_loads_nothing_heavy(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    shown = run_command(DRIVER, "--help", PYTHONPATH=str(tmp_path))
    assert shown.returncode == 0, shown.stderr
    text = "".join(shown.stdout.split())  # argparse breaks lines at hyphens too
    for name, value in CONSTANTS.items():
        assert flag_of(name.lower()) in text
        assert f"(default:{value!r})" in text


def test_bad_usage_ends_with_status_2_and_no_traceback():
    shown = run_command(DRIVER, "--epochs", "none", "--what")
    assert shown.returncode == 2
    assert "--epochs" in shown.stderr
    assert "--what" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_fractions_that_leave_no_training_pairs_are_refused():
    with pytest.raises(InputError, match="--dev-fraction: with --test-fraction it leaves no pairs"):
        read("--dev-fraction", "0.5", "--test-fraction", "0.5")


def test_labels_beyond_32_bits_are_refused():
    with pytest.raises(InputError, match="--label-max: 1e\\+39 is above"):
        read("--label-max", "1e39")

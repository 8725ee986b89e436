"""Rules of the ops that take a masked tensor apart and put one together."""

from keras.src.masking.families import inquire
from keras.src.ops import masking as MODULE

RULES = {
    "filled": inquire.filled,
    "get_mask": inquire.get_mask,
    "get_values": inquire.of_values,
}

ELSEWHERE = {"is_masked": "Asks for the type, and gets a plain answer."}
